"""From a trained run to a bundle that ships: SavedModel, TFLite and ONNX, proven equal.

    python -m export RUN                 make the bundle
    python -m export.verify RUN          is every format the same function?
    python -m export.benchmark RUN       how fast and how large is each?

Importing this package imports neither TensorFlow nor Keras.
"""
