"""Between TFX artifacts and plain functions: the files of Examples, and which dataset version they are."""
