"""Self-contained HTML pages; none of them needs a network or a server."""
