"""Colour of photos inside TensorFlow graphs: CIELAB, colour names, regions, palettes."""
