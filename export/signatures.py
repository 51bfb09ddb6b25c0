"""What a file can be asked: the name, type and axes of every input and output.

They stand in a bundle's manifest and in each file's own metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.network import INPUT, LENGTHS, OUTPUT
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ends = {"inputs": self.inputs, "outputs": self.outputs}
        return {
            "name": self.name,
            **{end: [tensor.to_dict() for tensor in tensors] for end, tensors in ends.items()},
        }


def classify(spec: SequenceSpec) -> Signature:
    """Whole sequences in, and their lengths where these vary; the probability of each class out."""
    inputs = [
        Tensor(
            INPUT, "float32", ("batch", spec.longest, spec.features),
            "raw values, as the data has them; normalization is inside",
        ),
    ]  # fmt: skip
    if spec.varies:
        about = (
            f"how many steps each sequence has, 1 to {spec.longest}; what stands after them never "
            "matters"
        )
        inputs.append(Tensor(LENGTHS, "int32", ("batch",), about))
    outputs = (Tensor(OUTPUT, "float32", ("batch", spec.classes), "of each label, in their order"),)
    return Signature("classify", tuple(inputs), outputs)


# Every signature that this version knows, by name.
SIGNATURES = {"classify": classify}


def check(written: object) -> None:
    """Raise `InputError` unless these are signatures, as `to_dict` gives them, that are known."""
    known = tuple(SIGNATURES)
    if not isinstance(written, list) or not all(isinstance(each, dict) for each in written):
        raise InputError("bad signatures", expected="a list of objects", got=repr(written)[:80])
    names = [each.get("name") for each in written]
    for name in names or [None]:
        if name not in known:
            raise InputError(
                f"unknown signature {name!r}",
                expected=f"one of {', '.join(known)}",
                fix="Upgrade this package, or make the bundle again.",
            )
