"""Which earlier result may be taken for a node: its cache key, and what the node read and wrote."""
