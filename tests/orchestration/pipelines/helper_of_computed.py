"""Imported by `computed`; edited by the tests, in a copy."""

TEXT = "one"
