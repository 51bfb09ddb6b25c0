"""Answers that are slow to get and asked for again in test after test."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from export.formats.format import Runtime


@dataclass(frozen=True)
class Remembering:
    """Another runtime, asked only once for each input."""

    runtime: Runtime
    answers: dict[tuple[bytes, ...], np.ndarray] = field(default_factory=dict)

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        given = (x,) if lengths is None else (x, lengths)
        key = tuple(each.tobytes() for each in given)
        if key not in self.answers:
            self.answers[key] = self.runtime.predict(*given)
        return self.answers[key]
