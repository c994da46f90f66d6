"""The design of a dataset's classes: their tree, their history, and what a photo does not distinguish."""

from mlplatform.taxonomy.errors import TaxonomyError
from mlplatform.taxonomy.taxonomy import GROUP, LEVELS, Taxonomy, read_taxonomy

__all__ = ["GROUP", "LEVELS", "Taxonomy", "TaxonomyError", "read_taxonomy"]
