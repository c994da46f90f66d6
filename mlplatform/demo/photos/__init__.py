"""Draws item photos with a listing: deterministic, light, with faults on request."""

from mlplatform.demo.photos.make import FAULTS, FolderNotEmptyError, make_photos

__all__ = ["FAULTS", "FolderNotEmptyError", "make_photos"]
