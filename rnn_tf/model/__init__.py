"""What the classifier is: its cells, its activations, its Keras form."""
