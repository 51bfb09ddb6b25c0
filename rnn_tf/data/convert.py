"""`python -m rnn_tf.data.convert SOURCE OUT`: write a data set into TFRecord shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from rnn_tf.command import arguments, parse
from rnn_tf.config import Source
from rnn_tf.data import TFDS, check_settings, load, records, tfds_stream
from rnn_tf.data.manifest import INDEX, MANIFEST, UNFINISHED, Manifest
from rnn_tf.data.shards import MOST_SHARDS, Shard, name_of
from rnn_tf.data.spec import SPLITS, SequenceData, Split
from rnn_tf.errors import InputError, one_line_errors
from rnn_tf.files.locking import LOCK, locked
from rnn_tf.files.writing import TEMPORARY, as_input_errors, write_text, writing
from rnn_tf.startup import process

# Without a number of shards, they have about so many bytes.
SHARD_BYTES = 128 * 2**20
# Sequences are read so many bytes at a time.
BLOCK_BYTES = 16 * 2**20

# Called with how many more sequences are in whole shards.
Written = Callable[[int], object]


def convert(
    source: str | Source,
    out: Path | str,
    shards: int | None = None,
    *,
    progress: bool = False,
) -> Manifest:
    """Write every split of a source into shards in the folder `out`, in the order of `load`.

    A source that `load` reads into memory is read so; sets of TensorFlow Datasets, and shards, are
    read a block at a time. Warns (`UserWarning`) of what is probably a mistake in data to train on.
    The rest, and what is raised, is as for `write`; `InputError` also for a source that cannot be
    read.
    """
    out = Path(out)
    source = Source(source) if isinstance(source, str) else source
    _check(out, shards)
    return write(_read(source), out, shards, progress=progress)


def _read(source: Source) -> SequenceData:
    """What `load` gives, but sets of TensorFlow Datasets not in memory."""
    check_settings(source)
    if source.dataset.startswith(TFDS) and not source.fold:
        process.start()
        data = tfds_stream.load(source.dataset.removeprefix(TFDS))
        if data is not None:
            return data.answering(source.answer)
    return load(source, to_train=True)


def write(
    data: SequenceData, out: Path | str, shards: int | None = None, *, progress: bool = False
) -> Manifest:
    """Write every split of `data` into shards in the folder `out`.

    Each split has `shards` of equal size, but not more than sequences; without a number, shards of
    about 128 MiB. Goes on where an earlier call for the same data was broken off: whole shards
    stay. Raises `InputError` where `out` holds anything else, and when it cannot be written.
    """
    out = Path(out)
    _check(out, shards)
    fix = "Wait for it, or choose another folder."
    with locked(out / LOCK, f"writes shards into {out}", fix=fix):
        process.start()
        counts = {name: _counts(getattr(data, name), shards) for name in SPLITS}
        _begin(out, _plan(data, counts))
        with _shown(sum(map(sum, counts.values())), progress) as written:
            manifest = _write_all(out, data, counts, written)
        write_text(out / MANIFEST, manifest.to_json())
        with as_input_errors(out):
            (out / UNFINISHED).unlink(missing_ok=True)
    return manifest


def _check(out: Path, shards: int | None) -> None:
    """Raise `InputError` unless `out` is empty, not there, or was begun by `write`."""
    if shards is not None and not 1 <= shards <= MOST_SHARDS:
        raise InputError("bad --shards", expected=f"1 to {MOST_SHARDS:,}", got=shards)
    if out.exists() and not out.is_dir():
        raise InputError(f"not a folder: {out}", fix="Choose another folder.")
    if (out / MANIFEST).exists():
        raise InputError(
            f"the folder already holds a set of shards: {out}",
            fix="Delete it to write it anew, or choose another folder.",
        )
    with as_input_errors(out):
        others = out.exists() and any(each.name != LOCK for each in out.iterdir())
    if others and not (out / UNFINISHED).exists():
        raise InputError(f"the folder is not empty: {out}", fix="Choose another folder.")


def _counts(split: Split, shards: int | None) -> list[int]:
    """How many sequences each shard of a split has: as equal as can be, the first ones more."""
    examples = len(split.y)
    wanted = shards or -(-split.x.nbytes // SHARD_BYTES)
    count = max(1, min(wanted, examples, MOST_SHARDS))
    whole, rest = divmod(examples, count)
    return [whole + 1] * rest + [whole] * (count - rest)


def _plan(data: SequenceData, counts: dict[str, list[int]]) -> str:
    """What will be in the folder, as JSON: other data, or other shards, have another."""
    digests = {}
    for name in SPLITS:
        split: Split = getattr(data, name)
        parts = [split.y] if split.lengths is None else [split.y, split.lengths]
        digests[name] = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    plan = {
        "spec": data.spec.to_dict(),
        "dtype": str(data.train.x.dtype),
        "shards": counts,
        "labels": digests,
    }
    return json.dumps(plan, indent=1) + "\n"


def _begin(out: Path, plan: str) -> None:
    """Say in the folder what is written there. Raises `InputError` if that is something else."""
    file = out / UNFINISHED
    if file.exists():
        if file.read_text(encoding="utf-8", errors="replace") != plan:
            raise InputError(
                f"{out} holds the beginning of other shards",
                expected="the same examples and --shards",
                fix="Delete the folder, or choose another one.",
            )
        for left in out.iterdir():  # by a kill
            if TEMPORARY.fullmatch(left.name):
                left.unlink()
    else:
        write_text(file, plan)


def _write_all(
    out: Path, data: SequenceData, counts: dict[str, list[int]], written: Written
) -> Manifest:
    index: dict[str, np.ndarray] = {}
    described: dict[str, tuple[Shard, ...]] = {}
    for name in SPLITS:
        split: Split = getattr(data, name)
        sizes, shards, first = [], [], 0
        for number, count in enumerate(counts[name]):
            file = out / name_of(name, number, len(counts[name]))
            rows = range(first, first + count)
            sizes.append((_kept if file.exists() else _write)(file, split, rows))
            shards.append(Shard.of(file, count))
            written(count)
            first += count
        described[name] = tuple(shards)
        index |= {f"y_{name}": split.y, f"bytes_{name}": np.concatenate(sizes)}
        if split.lengths is not None:
            index[f"lengths_{name}"] = split.lengths
    with writing(out / INDEX) as temporary, temporary.open("wb") as file_of_index:
        np.savez_compressed(file_of_index, **index)  # type: ignore[arg-type]
    digest = hashlib.sha256((out / INDEX).read_bytes()).hexdigest()
    return Manifest(data.spec, str(data.train.x.dtype), digest, data.notes, described)


def _write(file: Path, split: Split, rows: range) -> np.ndarray:
    """Write one shard; the bytes that each record takes, uint32 `(rows,)`."""
    import tensorflow as tf

    sizes = []
    try:
        with writing(file) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for x, y in _examples(split, rows):
                record = records.serialized(x, y)
                sizes.append(len(record) + records.FRAME_BYTES)
                writer.write(record)
    except tf.errors.OpError as error:  # how TensorFlow says that a disk is full
        raise InputError(
            f"cannot write {file}: {error.message}",
            fix="Free some space, and give the same command again: it goes on.",
        ) from error
    return np.array(sizes, np.uint32)


def _examples(split: Split, rows: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sequences without padding and their labels, a block in memory at a time."""
    _, longest, features = split.x.shape
    size = max(1, BLOCK_BYTES // (longest * features * split.x.itemsize))
    for start in range(rows.start, rows.stop, size):
        block = split.take(slice(start, min(start + size, rows.stop)))
        lengths = [longest] * len(block.y) if block.lengths is None else block.lengths.tolist()
        for x, y, length in zip(block.x, block.y, lengths, strict=True):
            yield x[:length], y[:length] if split.labelled_by_step else y


def _kept(file: Path, split: Split, rows: range) -> np.ndarray:
    """The bytes that each record of a shard takes that an earlier call has written whole.

    Raises `InputError` unless its records are as many, and the first and the last the same.
    """
    import tensorflow as tf

    again = "Delete it, and it is written again."
    ends: list[bytes] = []
    sizes = []
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            ends = [*ends[:1], record]
            sizes.append(len(record) + records.FRAME_BYTES)
    except tf.errors.OpError as error:
        raise InputError(f"{file} is damaged", fix=again) from error
    wanted = [
        records.serialized(*example)
        for row in dict.fromkeys((rows[0], rows[-1]))
        for example in _examples(split, range(row, row + 1))
    ]
    if len(sizes) != len(rows) or ends != wanted:
        raise InputError(f"{file} holds other sequences than the source has now", fix=again)
    return np.array(sizes, np.uint32)


@contextlib.contextmanager
def _shown(examples: int, progress: bool) -> Iterator[Written]:
    """Show on a terminal how much is written."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(file=sys.stderr)
    bar = Progress(
        MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console,
        redirect_stdout=False, redirect_stderr=False,
        disable=not (progress and console.is_terminal),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=examples)
        yield lambda more: bar.advance(task, more)


@dataclass(frozen=True)
class HowToRead(Source):
    """The settings of a source but its name."""

    dataset: tyro.conf.Suppress[str] = "mnist"


@dataclass(frozen=True)
class Command:
    """Write a data set into TFRecord shards, from which a training reads what it needs next.

    A command that was broken off goes on when it is given again.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """What to write: anything that --dataset of rnn-tf train takes."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """A new folder for the shards: train with --dataset tfrecord:OUT."""
    shards: int | None = None
    """How many for each split, but not more than it has sequences. Default: as many as make them
    about 128 MiB."""
    settings: tyro.conf.OmitArgPrefixes[HowToRead] = field(default_factory=HowToRead)
    """How the source is read."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m rnn_tf.data.convert") -> int:
    command = parse(Command, arguments(argv), prog)
    settings: dict[str, Any] = {**command.settings.source(), "dataset": command.source}
    try:
        manifest = convert(Source(**settings), command.out, command.shards, progress=True)
    except KeyboardInterrupt:
        print("\nstopped; go on with the same command", file=sys.stderr)
        return 130
    for name, shards in manifest.splits.items():
        examples, size = sum(s.examples for s in shards), sum(s.size for s in shards)
        files = f"{len(shards):,} shard{'' if len(shards) == 1 else 's'}"
        print(f"{name:<6}{examples:,} sequences in {files}, {size / 2**20:,.1f} MiB")
    print(f"train with: rnn-tf train --dataset tfrecord:{command.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
