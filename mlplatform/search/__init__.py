"""Search by embedding: the index as files, its kinds, filters, items added since, and how good it is.

Nothing here knows TensorFlow or TFX; faiss is loaded for the kinds that need it alone.
"""
