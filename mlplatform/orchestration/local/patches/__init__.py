"""What is changed of Beam, TFX, TensorFlow and Python's import while a node runs."""
