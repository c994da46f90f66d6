"""Builds a search index of photos beside the model that embeds them; see README.md."""
