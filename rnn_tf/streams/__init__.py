"""What a model says while frames are still coming: along a stream, and before a sequence's end."""
