"""What a file can be asked: the name, type and axes of every input and output.

They stand in a bundle's manifest and in each file's own metadata. There are two: `classify`, of
whole sequences, and `step`, of the next frames of sequences that go on, their state in and out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from export.network import FRAMES, INPUT, LENGTHS, NEXT_STATE, OUTPUT, STATE, Network
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

CLASSIFY, STEP = "classify", "step"
# Axes of any size: the sequences in a call, and the steps of each where a file takes any number.
BATCH, STEPS = "batch", "steps"
# Every signature that this version knows, by name.
SIGNATURES = (CLASSIFY, STEP)


@dataclass(frozen=True)
class Tensor:
    """One input or output. An axis is a number, or a name where any number will do."""

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    about: str

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "axes": list(self.axes)}


@dataclass(frozen=True)
class Signature:
    """A question: what goes in, and what comes out."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # The input of each state, and the output that is to be given to it at the next call.
    states: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ends = {"inputs": self.inputs, "outputs": self.outputs}
        return {
            "name": self.name,
            **{end: [tensor.to_dict() for tensor in tensors] for end, tensors in ends.items()},
            **({"states": [list(pair) for pair in self.states]} if self.states else {}),
        }


def classify(spec: SequenceSpec) -> Signature:
    """Whole sequences in, and their lengths where these vary; the probability of each class out."""
    inputs = [
        Tensor(
            INPUT, "float32", (BATCH, spec.longest, spec.features),
            "raw values, as the data has them; normalization is inside",
        ),
    ]  # fmt: skip
    if spec.varies:
        about = (
            f"how many steps each sequence has, 1 to {spec.longest}; what stands after them never "
            "matters"
        )
        inputs.append(Tensor(LENGTHS, "int32", (BATCH,), about))
    axes: tuple[str | int, ...] = (BATCH, spec.classes)
    about = "of each label, in their order"
    if spec.every_step:
        axes = (BATCH, spec.longest, spec.classes)
        about += ", at every step" + (
            "; after the end of a sequence they mean nothing" * spec.varies
        )
    return Signature(CLASSIFY, tuple(inputs), (Tensor(OUTPUT, "float32", axes, about),))


def step(spec: SequenceSpec, units: Sequence[int], steps: int | str = STEPS) -> Signature:
    """The next frames of sequences, and their states before them; answers, and states after them.

    `units` are those of each state, as `Network.state_units` has them; `steps` how many frames a
    call takes, a name for any number.
    """
    states = tuple((STATE.format(i), NEXT_STATE.format(i)) for i in range(len(units)))

    def of_states(end: int, about: str) -> list[Tensor]:
        names = (pair[end] for pair in states)
        shapes = ((BATCH, each) for each in units)
        return [
            Tensor(name, "float32", shape, about) for name, shape in zip(names, shapes, strict=True)
        ]

    frames = Tensor(
        FRAMES, "float32", (BATCH, steps, spec.features),
        "raw values of the next steps, as the data has them; normalization is inside",
    )  # fmt: skip
    answer = Tensor(
        OUTPUT, "float32", (BATCH, steps, spec.classes),
        "of each label, in their order, after each step",
    )  # fmt: skip
    before = of_states(0, "zeros at the start of a sequence, then what the last call gave")
    after = of_states(1, "the state after the last frame, for the next call")
    return Signature(STEP, (frames, *before), (answer, *after), states)


def of(network: Network, steps: int | str = STEPS) -> dict[str, Signature]:
    """What a network can be asked, by name; `steps` is how many a step takes in a call."""
    found = {CLASSIFY: classify(network.spec)}
    if not network.bidirectional:
        found[STEP] = step(network.spec, network.state_units, steps)
    return found


def taking(written: dict[str, Any], steps: int | str) -> dict[str, Any]:
    """A step, as `to_dict` gives it, in a file that takes so many steps in a call."""

    def taken(end: dict[str, Any]) -> dict[str, Any]:
        return {**end, "axes": [steps if axis == STEPS else axis for axis in end["axes"]]}

    return {**written, **{end: [*map(taken, written[end])] for end in ("inputs", "outputs")}}


def state_units(written: str) -> tuple[int, ...]:
    """The units of each state of the step among signatures in JSON, as a file says of itself.

    Raises `InputError` when there is none.
    """
    try:
        (found,) = [each for each in json.loads(written) if each["name"] == STEP]
        inputs = {each["name"]: each["axes"] for each in found["inputs"]}
        units = tuple(int(inputs[before][1]) for before, _ in found["states"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            "the file has no step", expected="its signature in the metadata", got=written[:80]
        ) from error
    return units


def check(written: object) -> None:
    """Raise `InputError` unless these are signatures, as `to_dict` gives them, that are known."""
    if not isinstance(written, list) or not all(isinstance(each, dict) for each in written):
        raise InputError("bad signatures", expected="a list of objects", got=repr(written)[:80])
    names = [each.get("name") for each in written]
    for name in names or [None]:
        if name not in SIGNATURES:
            raise InputError(
                f"unknown signature {name!r}",
                expected=f"one of {', '.join(SIGNATURES)}",
                fix="Upgrade this package, or make the bundle again.",
            )
