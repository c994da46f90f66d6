"""What all exported models have in common: labels, warm-up requests, TensorFlow Lite forms."""
