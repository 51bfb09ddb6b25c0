"""How far an answer may be from the formulas."""

from __future__ import annotations

# float32 rounding over 28 steps and a softmax: 3e-6 seen on MNIST, 9e-6 on noise for the default
# model, whose state is not bounded. A wrong constant, a swapped gate or a lost scale gives 1e-3
# to 1.
MOST_DIFFERENCE = 1e-5
# Of what is quantized.
MOST_ACCURACY_LOSS = 0.005
LEAST_AGREEMENT = 0.99
