"""Look at what happened under a root: pages and the same as JSON. Needs no TensorFlow, Beam or TFX."""
