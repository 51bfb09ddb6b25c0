"""Pieces of the README of a bundle."""

from __future__ import annotations

from typing import Any

from export.example import EXAMPLE
from export.network import INPUT, OUTPUT


def code(language: str, *lines: str) -> str:
    """Lines of code in a fence."""
    return "\n".join([f"```{language}", *lines, "```", ""])


def load_example() -> list[str]:
    """Python that reads the bundle's example."""
    return [f'with open("{EXAMPLE}", encoding="utf-8") as file:', "    example = json.load(file)"]


def example_input(manifest: dict[str, Any]) -> str:
    """Python that makes the input `x` of the example."""
    spec = manifest["spec"]
    shape = f"(1, {spec['timesteps']}, {spec['features']})"
    return f'x = np.array(example["{INPUT}"], np.float32)  # {shape}, raw values; any batch'


def check_probabilities() -> list[str]:
    """Python that holds an answer, `probabilities`, against that of the example."""
    return [
        f'difference = np.abs(probabilities - example["{OUTPUT}"]).max()',
        'assert difference <= example["tolerance"], difference',
    ]
