"""What code, libraries and data are: digests that change when they do."""
