"""Data sets in TFRecord shards, as `rnn-tf convert` writes them: larger than memory if need be.

What is kept in memory is what a training must know of all sequences at once, their classes and
lengths and where in the files they are; the sequences themselves are read when they are needed.
"""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path
from typing import cast

import numpy as np

from rnn_tf.data.manifest import INDEX, MANIFEST, Manifest
from rnn_tf.data.shards import MAKE_AGAIN, SHARD, check
from rnn_tf.data.spec import SPLITS, SequenceData, Split
from rnn_tf.data.stored import StoredSequences
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import read_arrays, readable

PREFIX = "tfrecord:"
# How many missing shards a message names.
MOST_NAMED = 3


def holds(folder: Path) -> bool:
    """Whether a folder is a data set in shards."""
    return (folder / MANIFEST).is_file()


def load(dataset: str) -> SequenceData:
    """Load a set of shards: `tfrecord:<glob>`, or a folder with or without `tfrecord:`.

    A glob must match every shard of the set. Splits have `StoredSequences` as their `x`. Raises
    `InputError` for a glob that matches nothing, a shard that is missing, empty, truncated,
    altered at its ends or of another set, and for what a newer version wrote.
    """
    name = dataset.removeprefix(PREFIX)
    folder, matched = _found(name)
    manifest = Manifest.open(folder)
    index = _index(folder, manifest)
    splits = []
    for split in SPLITS:
        files = manifest.files(split, folder)
        _require_all(files, matched, name)
        for file, shard in zip(files, manifest.splits[split], strict=True):
            check(file, shard)
        with readable(f"{folder / INDEX}: not the index of these shards", MAKE_AGAIN):
            splits.append(_split(split, files, manifest, index))
    return SequenceData(manifest.spec, *splits, notes=manifest.notes)


def _found(name: str) -> tuple[Path, set[str] | None]:
    """The folder of a set, and the names in it that a glob matches; None for a whole folder."""
    path = Path(name)
    if path.is_dir():
        return path, None
    matches = sorted(map(Path, glob.glob(name)))  # noqa: PTH207 - an absolute pattern too
    if not matches:
        raise InputError(
            f"no file matches {name}", expected="the shards of a set, or their folder",
            fix="Quote the pattern, and write the shards with: rnn-tf convert SOURCE OUT.",
        )  # fmt: skip
    others = [path for path in matches if not SHARD.fullmatch(path.name)]
    if others and {path.name for path in others} - {MANIFEST, INDEX}:
        raise InputError(
            f"{others[0]} is not a shard", expected="names like train-00000-of-00016.tfrecord",
            fix=f"Match less than {name}, or give the folder.",
        )  # fmt: skip
    folders = {path.parent for path in matches}
    if len(folders) > 1:
        raise InputError(
            f"{name} matches files of {len(folders)} folders", expected="the shards of one set"
        )
    return folders.pop(), {path.name for path in matches}


def _require_all(files: tuple[Path, ...], matched: set[str] | None, name: str) -> None:
    there = {file.name for file in files if file.is_file()} if matched is None else matched
    missing = [file.name for file in files if file.name not in there]
    if missing:
        more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
        raise InputError(
            f"shards are missing in {name}: {', '.join(missing[:MOST_NAMED])}{more}",
            expected=f"all {len(files):,} of the split", got=f"{len(files) - len(missing):,}",
            fix="Copy them there, or match all with the pattern, or give the folder.",
        )  # fmt: skip


def _index(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    path = folder / INDEX
    arrays = read_arrays(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.index:
        raise InputError(
            f"{path}: not the index that {MANIFEST} describes",
            expected="the checksum that it says", fix=MAKE_AGAIN,
        )  # fmt: skip
    return arrays


def _split(
    name: str, files: tuple[Path, ...], manifest: Manifest, index: dict[str, np.ndarray]
) -> Split:
    spec, shards, sizes = manifest.spec, manifest.splits[name], index[f"bytes_{name}"]
    y, lengths = index[f"y_{name}"], index.get(f"lengths_{name}")
    examples = sum(shard.examples for shard in shards)
    if not len(y) == len(sizes) == examples or y.min() < -1 or y.max() >= spec.classes:
        raise ValueError(f"bad arrays of {name}")
    x = StoredSequences(files, shards, sizes, spec.longest, spec.features, np.dtype(manifest.dtype))
    # Typed as what it stands for: see `Split`.
    return Split(cast(np.ndarray, x), y, lengths)
