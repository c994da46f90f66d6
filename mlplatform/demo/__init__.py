"""Embedded photos, and the whole trip on them."""
