"""Pieces of the README of a bundle."""

from __future__ import annotations

from typing import Any

from export.example import EXAMPLE
from export.network import INPUT, LENGTHS, OUTPUT


def code(language: str, *lines: str) -> str:
    """Lines of code in a fence."""
    return "\n".join([f"```{language}", *lines, "```", ""])


def load_example() -> list[str]:
    """Python that reads the bundle's example."""
    return [f'with open("{EXAMPLE}", encoding="utf-8") as file:', "    example = json.load(file)"]


def example_inputs(manifest: dict[str, Any]) -> list[str]:
    """Python that makes the inputs of the example, `x` and, where they vary, `lengths`."""
    spec = manifest["spec"]
    shape = f"(1, {spec['longest']}, {spec['features']})"
    lines = [f'x = np.array(example["{INPUT}"], np.float32)  # {shape}, raw values; any batch']
    if varies(manifest):
        lines.append(
            f'lengths = np.array(example["{LENGTHS}"], np.int32)  # (1,), the steps of each '
            "sequence"
        )
    return lines


def given(manifest: dict[str, Any], form: str) -> str:
    """What a call is given: each input by `form`, which has its `name` and `value` in Python."""
    inputs = {INPUT: "x", **({LENGTHS: "lengths"} if varies(manifest) else {})}
    return ", ".join(form.format(name=name, value=value) for name, value in inputs.items())


def varies(manifest: dict[str, Any]) -> bool:
    """Whether sequences have different lengths, which then are an input."""
    return manifest["spec"]["timesteps"] is None


def check_probabilities() -> list[str]:
    """Python that holds an answer, `probabilities`, against that of the example."""
    return [
        f'difference = np.abs(probabilities - example["{OUTPUT}"]).max()',
        'assert difference <= example["tolerance"], difference',
    ]
