"""Kinds of answers: how answers are read, measured, compared and shown, whatever the model.

A kind (`kind.Kind`) is found by name or import path (`find.find_kind`). All of it is NumPy on arrays by
output name; it knows no TensorFlow and no TFX.
"""
