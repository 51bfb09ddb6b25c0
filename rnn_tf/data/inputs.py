"""The files that predict reads: pictures, arrays, folders of both, as blocks of raw sequences.

Whatever a file holds, only one block of it is in memory. A file or an example that cannot be read
is reported, and the others are read on.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rnn_tf.data.pictures import SUFFIXES as PICTURES
from rnn_tf.data.pictures import read_picture
from rnn_tf.data.profile import DataProfile
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import StoredArray, open_npy, open_npz

ARRAYS = (".npy", ".npz")
KINDS = ", ".join(PICTURES + ARRAYS)
# A block has at most this many sequences, time steps and numbers, whichever is least: what a
# network computes on the way is so many steps times its units.
BLOCK_SEQUENCES, BLOCK_STEPS, BLOCK_NUMBERS = 1024, 1 << 18, 1 << 22
# Examples named in one message.
NAMED = 10


@dataclass(frozen=True)
class Block:
    """Some sequences, each with the name by which it is answered."""

    names: list[str]
    x: np.ndarray  # (n, timesteps, features) float32, raw and finite


@dataclass
class Inputs:
    """The sequences of some files. Iterate over it once; `failed` then counts the bad files."""

    paths: Sequence[Path]  # files, or folders of files
    spec: SequenceSpec
    profile: DataProfile | None = None
    as_is: bool = False  # pictures are not brought into the form of the training pictures
    invert: bool = False  # pictures: light becomes dark
    say: Callable[[str], None] = field(default=lambda line: print(line, file=sys.stderr))
    failed: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Block]:
        """Give blocks of sequences, those of small files together.

        Says what it does to make a file fit, and why it cannot read something. Raises `InputError`
        only when there is no file at all.
        """
        if not self.paths:
            raise InputError("no file to classify", expected=KINDS)
        most = _most_sequences(self.spec)
        names: list[str] = []
        rows: list[np.ndarray] = []
        for block in self._blocks(most):
            if rows and len(names) + len(block.names) > most:
                yield Block(names, np.concatenate(rows))
                names, rows = [], []
            names += block.names
            rows.append(block.x)
        if rows:
            yield Block(names, np.concatenate(rows))

    def _blocks(self, most: int) -> Iterator[Block]:
        for path in self.paths:
            with self._reported():
                for file in self._files(path):
                    with self._reported():
                        yield from self._read(file, most)

    def _files(self, path: Path) -> list[Path]:
        """The file `path`, or every picture and array in the folder `path`, in order."""
        if not path.is_dir():
            return [path]
        entries = sorted(entry for entry in path.iterdir() if entry.name[0] != ".")
        files = [entry for entry in entries if _kind(entry) in PICTURES + ARRAYS]
        if not files:
            raise InputError(
                f"nothing to classify in the folder {path}", expected=f"files of {KINDS}",
                got=f"{len(entries)} others" if entries else "an empty folder",
            )  # fmt: skip
        if others := len(entries) - len(files):
            self.say(f"{path}: {others} of {len(entries)} entries left out, not {KINDS}")
        return files

    def _read(self, path: Path, most: int) -> Iterator[Block]:
        kind = _kind(path)
        if kind not in PICTURES + ARRAYS:
            raise InputError(f"cannot tell what {path} is", expected=KINDS, got=kind or "none")
        if not path.is_file():
            raise InputError(f"not a file: {path}" if path.exists() else f"no such file: {path}")
        if kind in PICTURES:
            yield from self._read_picture(path)
        else:
            yield from self._read_array(path, most)

    def _read_picture(self, path: Path) -> Iterator[Block]:
        spec, profile = self.spec, self.profile
        if not spec.channels:
            raise InputError(
                f"the model was not trained on pictures, so {path} means nothing to it",
                expected=f"a .npy or .npz of shape ({spec.longest}, {spec.features})",
            )
        style = profile.style if profile else None
        x, notes = read_picture(path, spec, style, as_is=self.as_is, invert=self.invert)
        for note in notes:
            self.say(f"{path}: {note}")
        yield Block([str(path)], x[np.newaxis])

    def _read_array(self, path: Path, most: int) -> Iterator[Block]:
        seen = _Seen()
        with _open_array(path) as stored:
            _check(path, stored, self.spec)
            whole = len(stored.shape) == 2
            examples = 1 if whole else stored.shape[0]
            blocks = iter([stored.read()[np.newaxis]]) if whole else stored.blocks(most)
            start = 0
            for raw in blocks:
                with np.errstate(over="ignore"):
                    x = raw.astype(np.float32)
                names = [_name(path, start + i, examples) for i in range(len(x))]
                start += len(x)
                finite = [True] * len(x)
                if not np.isfinite(x).all():
                    finite = [bool(np.isfinite(example).all()) for example in x]
                seen.note_bad([name for name, good in zip(names, finite, strict=True) if not good])
                if any(finite):
                    x = x if all(finite) else x[finite]
                    seen.note_range(x)
                    yield Block(list(itertools.compress(names, finite)), x)
        self._review(path, seen, examples)

    def _review(self, path: Path, seen: _Seen, examples: int) -> None:
        """Say what was strange about the values of a whole file."""
        if self.profile and seen.low is not None and seen.high is not None:
            warning = self.profile.values.warning(seen.low, seen.high)
            if warning:
                self.say(f"{path}: {warning}")
        if seen.bad:
            more = seen.bad - len(seen.bad_names)
            names = ", ".join(seen.bad_names) + (f" and {more:,} more" if more else "")
            what = f"{path} does not hold finite numbers"
            if examples > 1:
                what = f"{seen.bad:,} of {examples:,} sequences in {path} are not finite numbers"
            raise InputError(what, got=f"NaN, or more than float32 can hold, in {names}")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Say what is wrong with a file, and go on."""
        try:
            yield
        except InputError as error:
            self.failed += 1
            self.say(f"error: {error}")


@dataclass
class _Seen:
    """The range of the values of a file so far, and the examples that are not finite."""

    low: np.ndarray | None = None  # (features,)
    high: np.ndarray | None = None
    bad: int = 0
    bad_names: list[str] = field(default_factory=list)  # the first of them

    def note_bad(self, names: list[str]) -> None:
        self.bad += len(names)
        self.bad_names += names[: NAMED - len(self.bad_names)]

    def note_range(self, x: np.ndarray) -> None:
        low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)


@contextlib.contextmanager
def _open_array(path: Path) -> Iterator[StoredArray]:
    """The array of a `.npy`, or of an `.npz` its only one or the one called x: header only."""
    if _kind(path) == ".npy":
        yield open_npy(path)
        return
    with open_npz(path) as arrays:
        names = list(arrays)
        name = "x" if "x" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise InputError(
                f"which array of {path}?", expected="one array, or one called x", got=names
            )
        yield arrays[name]


def _check(path: Path, stored: StoredArray, spec: SequenceSpec) -> None:
    """Raise `InputError` unless a header says that its array holds sequences of `spec`."""
    if stored.dtype.kind not in "buif":
        raise InputError(f"{path} does not hold finite numbers", got=stored.dtype)
    shape = (spec.longest, spec.features)
    if stored.shape[-2:] != shape or len(stored.shape) not in (2, 3) or 0 in stored.shape:
        raise InputError(
            f"{path} does not fit the model",
            expected=f"{shape} or (n, {shape[0]}, {shape[1]})",
            got=stored.shape,
        )


def _name(path: Path, index: int, examples: int) -> str:
    return str(path) if examples == 1 else f"{path}[{index}]"


def _most_sequences(spec: SequenceSpec) -> int:
    steps, numbers = spec.longest, spec.longest * spec.features
    return max(1, min(BLOCK_SEQUENCES, BLOCK_STEPS // steps, BLOCK_NUMBERS // numbers))


def _kind(path: Path) -> str:
    return path.suffix.lower()
