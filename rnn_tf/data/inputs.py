"""The files that predict reads: pictures, arrays, tables, `.ts`, and folders of them.

They come as blocks of raw sequences. Of arrays only one block is in memory, whatever the file
holds; tables and `.ts` files are read whole. A file or an example that cannot be read
is reported, and the others are read on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rnn_tf.config import Source
from rnn_tf.data import tables, ts
from rnn_tf.data.delimited import SUFFIXES as TEXTS
from rnn_tf.data.parquet import SUFFIX as PARQUET
from rnn_tf.data.pictures import SUFFIXES as PICTURES
from rnn_tf.data.pictures import read_picture
from rnn_tf.data.profile import DataProfile
from rnn_tf.data.recordings import Recordings
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import StoredArray, open_npy, open_npz

ARRAYS = (".npy", ".npz")
RECORDINGS = (*TEXTS, PARQUET, ts.SUFFIX)
# A block has at most this many sequences, time steps and numbers, whichever is least: what a
# network computes on the way is so many steps times its units.
BLOCK_SEQUENCES, BLOCK_STEPS, BLOCK_NUMBERS = 1024, 1 << 18, 1 << 22
# Examples named in one message.
NAMED = 10


@dataclass(frozen=True)
class Block:
    """Some sequences, each with the name by which it is answered."""

    names: list[str]
    x: np.ndarray  # (n, longest, features) float32, raw and finite, right-padded with zeros
    lengths: np.ndarray | None = None  # (n,) int32, for models of sequences of different lengths

    def take(self, rows: np.ndarray) -> Block:
        """The sequences where `rows`, bool `(n,)`, says so."""
        names = list(itertools.compress(self.names, rows))
        return Block(names, self.x[rows], None if self.lengths is None else self.lengths[rows])

    @property
    def steps(self) -> np.ndarray:
        """Every step that is no padding: `(steps, features)`."""
        if self.lengths is None:
            return self.x.reshape(-1, self.x.shape[2])
        steps: np.ndarray = self.x[np.arange(self.x.shape[1]) < self.lengths[:, np.newaxis]]
        return steps


@dataclass
class Inputs:
    """The sequences of some files. Iterate over it once; `failed` then counts the bad files."""

    paths: Sequence[Path]  # files, or folders of files
    spec: SequenceSpec
    profile: DataProfile | None = None
    as_is: bool = False  # pictures are not brought into the form of the training pictures
    invert: bool = False  # pictures: light becomes dark
    source: Source = field(default_factory=Source)  # how tables are read, and what fills a gap
    say: Callable[[str], None] = field(default=lambda line: print(line, file=sys.stderr))
    failed: int = field(default=0, init=False)

    @property
    def _kinds(self) -> tuple[str, ...]:
        """The suffixes of files that can be read; beside pictures, a text is a note about them."""
        return (*PICTURES, *ARRAYS) if self.spec.channels else (*PICTURES, *ARRAYS, *RECORDINGS)

    def __iter__(self) -> Iterator[Block]:
        """Give blocks of sequences, those of small files together.

        Says what it does to make a file fit, and why it cannot read something. Raises `InputError`
        only when there is no file at all.
        """
        if not self.paths:
            raise InputError("no file to classify", expected=", ".join(self._kinds))
        most = _most_sequences(self.spec)
        some: list[Block] = []
        for block in self._blocks(most):
            if some and sum(len(each.names) for each in some) + len(block.names) > most:
                yield _joined(some)
                some = []
            some.append(block)
        if some:
            yield _joined(some)

    def _blocks(self, most: int) -> Iterator[Block]:
        for path in self.paths:
            with self._reported():
                for file in self._files(path):
                    with self._reported():
                        yield from self._read(file, most)

    def _files(self, path: Path) -> list[Path]:
        """The file `path`, or every file to classify in the folder `path`, in order."""
        if not path.is_dir():
            return [path]
        entries = sorted(entry for entry in path.iterdir() if entry.name[0] != ".")
        files = [entry for entry in entries if _kind(entry) in self._kinds]
        if not files:
            raise InputError(
                f"nothing to classify in the folder {path}",
                expected=f"files of {', '.join(self._kinds)}",
                got=f"{len(entries)} others" if entries else "an empty folder",
            )  # fmt: skip
        if others := len(entries) - len(files):
            self.say(
                f"{path}: {others} of {len(entries)} entries left out, not {', '.join(self._kinds)}"
            )
        return files

    def _read(self, path: Path, most: int) -> Iterator[Block]:
        kind = _kind(path)
        if kind not in self._kinds:
            raise InputError(
                f"cannot tell what {path} is", expected=", ".join(self._kinds), got=kind or "none"
            )
        if not path.is_file():
            raise InputError(f"not a file: {path}" if path.exists() else f"no such file: {path}")
        if kind in PICTURES:
            yield from self._read_picture(path)
        elif kind in ARRAYS:
            yield from self._read_array(path, most)
        else:
            yield from self._read_recordings(path, most)

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
        with _open_arrays(path) as (stored, stored_lengths):
            _check(path, stored, self.spec)
            lengths = _lengths(path, stored, stored_lengths, self.spec)
            whole = len(stored.shape) == 2
            examples = 1 if whole else stored.shape[0]
            blocks = iter([stored.read()[np.newaxis]]) if whole else stored.blocks(most)
            start = 0
            for raw in blocks:
                end = start + len(raw)
                names = [_name(path, i, examples) for i in range(start, end)]
                yield from _finite(_block(names, raw, lengths[start:end], self.spec), seen)
                start = end
        self._review(path, seen, examples)

    def _read_recordings(self, path: Path, most: int) -> Iterator[Block]:
        recordings = self._recordings(path)
        fits = recordings.lengths <= self.spec.longest
        fits &= self.spec.varies | (recordings.lengths == self.spec.longest)
        seen = _Seen()
        for some in _parts(np.flatnonzero(fits), most):
            part = recordings.take(some)
            raw = part.padded(int(part.lengths.max()), varies=self.spec.varies).x
            yield from _finite(_block(part.called.tolist(), raw, part.lengths, self.spec), seen)
        if not fits.all():
            with self._reported():
                self._refuse_unfit(path, recordings.take(~fits), len(fits))
        self._review(path, seen, len(fits))

    def _recordings(self, path: Path) -> Recordings:
        """The sequences of a table or a `.ts`, each with the name by which it is answered."""
        if _kind(path) == ts.SUFFIX:
            recordings, where = ts.load_input(path)
        else:
            recordings, where = tables.load_input(path, self.spec, self.source)
        features = recordings.values.shape[1]
        if features != self.spec.features:
            raise InputError(
                f"{path} does not fit the model", expected=f"{self.spec.features} features",
                got=features,
            )  # fmt: skip
        if self.source.missing != "refuse":
            recordings = recordings.without_gaps(self.source.missing, where)
        names = [_name(path, each, len(recordings)) for each in recordings.called]
        recordings = dataclasses.replace(recordings, names=np.array(names))
        if self.source.window is None:
            return recordings
        return _windows(recordings, self.source.window, self.source.stride)

    def _refuse_unfit(self, path: Path, unfit: Recordings, examples: int) -> None:
        """Raise `InputError` that names the sequences of a length that the model does not read."""
        longest = self.spec.longest
        found = zip(unfit.lengths[:NAMED], unfit.called[:NAMED], strict=True)
        got = ", ".join(f"{steps} in {name}" for steps, name in found)
        more = f" and {len(unfit) - NAMED:,} more" if len(unfit) > NAMED else ""
        raise InputError(
            f"{len(unfit):,} of {examples:,} sequences in {path} do not fit the model",
            expected=f"1 to {longest} steps" if self.spec.varies else f"{longest} steps",
            got=got + more,
        )  # fmt: skip

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

    def note_range(self, steps: np.ndarray) -> None:
        low, high = steps.min(axis=0), steps.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)


@contextlib.contextmanager
def _open_arrays(path: Path) -> Iterator[tuple[StoredArray, StoredArray | None]]:
    """The array of a `.npy`, or of an `.npz` its only one or the one called x: header only.

    Beside it, the array of an `.npz` that is called lengths, if there is one.
    """
    if _kind(path) == ".npy":
        yield open_npy(path), None
        return
    with open_npz(path) as arrays:
        names = list(arrays)
        name = "x" if "x" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise InputError(
                f"which array of {path}?", expected="one array, or one called x", got=names
            )
        yield arrays[name], arrays.get("lengths")


def _check(path: Path, stored: StoredArray, spec: SequenceSpec) -> None:
    """Raise `InputError` unless a header says that its array holds sequences of `spec`."""
    if stored.dtype.kind not in "buif":
        raise InputError(f"{path} does not hold finite numbers", got=stored.dtype)
    fits = len(stored.shape) in (2, 3) and 0 not in stored.shape
    if fits:
        steps, features = stored.shape[-2:]
        fits = features == spec.features
        fits &= steps <= spec.longest if spec.varies else steps == spec.longest
    if not fits:
        numbers = f"{f'1 to {spec.longest}' if spec.varies else spec.longest}, {spec.features}"
        raise InputError(
            f"{path} does not fit the model",
            expected=f"({numbers}) or (n, {numbers})",
            got=stored.shape,
        )


def _lengths(
    path: Path, stored: StoredArray, lengths: StoredArray | None, spec: SequenceSpec
) -> np.ndarray:
    """The length of each sequence of an array: int32 `(n,)`. All of it, unless a file says less."""
    steps = stored.shape[-2]
    examples = stored.shape[0] if len(stored.shape) == 3 else 1
    if lengths is None or not spec.varies:
        return np.full(examples, steps, np.int32)
    expected = f"{examples} whole numbers from 1 to {steps}"
    if lengths.shape != (examples,) or lengths.dtype.kind not in "iu":
        got = f"{lengths.dtype} of shape {lengths.shape}"
        raise InputError(f"bad lengths in {path}", expected=expected, got=got)
    values = lengths.read()
    wrong = values[(values < 1) | (values > steps)]
    if wrong.size:
        raise InputError(f"bad lengths in {path}", expected=expected, got=wrong[0])
    return values.astype(np.int32)


def _block(names: list[str], raw: np.ndarray, lengths: np.ndarray, spec: SequenceSpec) -> Block:
    """Raw `(n, steps, features)` as the model takes it, zeros where no sequence reaches."""
    with np.errstate(over="ignore"):
        x = raw.astype(np.float32)
    if not spec.varies:
        return Block(names, x)
    x = np.pad(x, ((0, 0), (0, spec.longest - x.shape[1]), (0, 0)))
    x[np.arange(spec.longest) >= lengths[:, np.newaxis]] = 0
    return Block(names, x, lengths)


def _finite(block: Block, seen: _Seen) -> Iterator[Block]:
    """The sequences of a block that are finite, if any; what is not, and their range, is noted."""
    finite = np.isfinite(block.x).all(axis=(1, 2))
    seen.note_bad(list(itertools.compress(block.names, ~finite)))
    if finite.any():
        block = block if finite.all() else block.take(finite)
        seen.note_range(block.steps)
        yield block


def _parts(rows: np.ndarray, most: int) -> list[np.ndarray]:
    """The same rows, at most so many at once."""
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def _windows(recordings: Recordings, size: int, stride: int | None) -> Recordings:
    """What training cuts long recordings into, each window named by its place in its recording."""
    cut = recordings.windows(size, stride or size)
    of_one = Counter(cut.called.tolist())
    names, seen = [], Counter[str]()
    for name in cut.called.tolist():
        names.append(f"{name}, window {seen[name]}" if of_one[name] > 1 else name)
        seen[name] += 1
    return dataclasses.replace(cut, names=np.array(names))


def _joined(blocks: list[Block]) -> Block:
    """All sequences of some blocks."""
    lengths = [block.lengths for block in blocks if block.lengths is not None]
    return Block(
        [name for block in blocks for name in block.names],
        np.concatenate([block.x for block in blocks]),
        np.concatenate(lengths) if lengths else None,
    )


def _name(path: Path, index: int | str, examples: int) -> str:
    return str(path) if examples == 1 else f"{path}[{index}]"


def _most_sequences(spec: SequenceSpec) -> int:
    steps, numbers = spec.longest, spec.longest * spec.features
    return max(1, min(BLOCK_SEQUENCES, BLOCK_STEPS // steps, BLOCK_NUMBERS // numbers))


def _kind(path: Path) -> str:
    return path.suffix.lower()
