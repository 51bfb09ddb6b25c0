"""Pieces of the README of a bundle."""

from __future__ import annotations

from typing import Any


def code(language: str, *lines: str) -> str:
    """Lines of code in a fence."""
    return "\n".join([f"```{language}", *lines, "```", ""])


def zeros(manifest: dict[str, Any]) -> str:
    """One input of zeros, as an expression of NumPy."""
    spec = manifest["spec"]
    return f"np.zeros((1, {spec['timesteps']}, {spec['features']}), np.float32)"
