"""Training in Keras on TensorFlow."""
