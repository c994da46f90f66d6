"""Requests that stay with the server that they are sent to."""

import urllib.request


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A handler for `urllib.request.build_opener`: an answer that redirects is an error, not followed."""

    def redirect_request(self, *_: object) -> None:
        """Return that there is no further request."""
        return
