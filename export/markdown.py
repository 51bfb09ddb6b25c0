"""Pieces of the README of a bundle."""

from __future__ import annotations

from typing import Any

from export.example import EXAMPLE
from export.network import FRAMES, INPUT, LENGTHS, OUTPUT
from export.signatures import STEP


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


def every_step(manifest: dict[str, Any]) -> bool:
    """Whether there is an answer at every step of a sequence."""
    return bool(manifest["spec"].get("answer") == "every_step")


def state_units(manifest: dict[str, Any]) -> dict[str, int]:
    """The input of each state of the step, and how many units it has; none without a step."""
    found = [each for each in manifest["signatures"] if each["name"] == STEP]
    inputs = {tensor["name"]: tensor["axes"] for each in found for tensor in each["inputs"]}
    return {name: axes[1] for name, axes in inputs.items() if name != FRAMES}


def next_states(manifest: dict[str, Any]) -> dict[str, str]:
    """The input of each state, and the output that is given to it at the next call."""
    found = [each for each in manifest["signatures"] if each["name"] == STEP]
    return {before: after for each in found for before, after in each["states"]}


def zero_states(manifest: dict[str, Any], zeros: str) -> list[str]:
    """Python that makes the states of a new sequence, by a function of a shape."""
    pairs = (f'"{name}": {zeros.format(units)}' for name, units in state_units(manifest).items())
    return [
        "# Frame by frame: the states that come out go in with the next frame.",
        "states = {" + ", ".join(pairs) + "}",
    ]


def each_frame(manifest: dict[str, Any]) -> str:
    """Python that begins the loop over the frames of `x`, each `x[:, t : t + 1]`."""
    return f"for t in range({'lengths[0]' if varies(manifest) else 'x.shape[1]'}):"


def check_last(manifest: dict[str, Any], said: str) -> list[str]:
    """Python that holds what was `said` of the last frame against the end of the example."""
    end = ", -1" if every_step(manifest) else ""
    return [
        f'expected = np.array(example["{OUTPUT}"])[0{end}]',
        f"difference = np.abs({said} - expected).max()",
        'assert difference <= example["tolerance"], difference',
    ]


def last_answer(manifest: dict[str, Any]) -> str:
    """Python for the answer to the whole of the first sequence, out of `probabilities`."""
    return "probabilities[0, -1]" if every_step(manifest) else "probabilities[0]"


def check_probabilities(manifest: dict[str, Any]) -> list[str]:
    """Python that holds an answer, `probabilities`, against that of the example."""
    cut = [f"{OUTPUT} = {OUTPUT}[:, : lengths[0]]  # after its end they mean nothing"]
    return [
        *(cut if every_step(manifest) and varies(manifest) else []),
        f'difference = np.abs(probabilities - example["{OUTPUT}"]).max()',
        'assert difference <= example["tolerance"], difference',
    ]
