"""The bytes of the dataset store: records, packs, manifests, and the C library that reads them quickly."""
