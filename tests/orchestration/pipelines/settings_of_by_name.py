"""Read by `by_name`; edited by the tests, in a copy."""

SUFFIX = "!"
