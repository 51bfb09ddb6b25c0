"""What a process needs before TensorFlow is imported."""
