"""The names of the activations that a cell can have.

They are those of `keras.activations` that are functions of one number. The others look at all
units at once (softmax), halve the width (glu), or take more than the number (threshold). Each
dialect has one table of implementations, with these names as its keys.
"""

from __future__ import annotations

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh",
    "tanh_shrink",
)  # fmt: skip
# Other names that Keras takes for some of them; a model that is built has the ones above.
ALIASES = {"hard_swish": "hard_silu", "swish": "silu"}
# Those whose values stay within bounds: a state that comes out of one cannot add up without end.
BOUNDED = (
    "hard_sigmoid", "hard_tanh", "relu6", "sigmoid", "softsign", "sparse_sigmoid", "tanh",
)  # fmt: skip
