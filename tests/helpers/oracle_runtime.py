"""The float64 formulas as a runtime: what formats are held against."""

from __future__ import annotations

import numpy as np

from export import oracle
from export.formats.format import as_inputs
from export.network import Network


class OracleRuntime:
    """Answers as the formulas of a network do, float64."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Probabilities `(n, classes)` of raw `(n, timesteps, features)`."""
        inputs = as_inputs(x, lengths, self.network.spec)
        return oracle.probabilities(self.network, *inputs.values())
