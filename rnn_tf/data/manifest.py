"""What `shards.json` says of a data set in TFRecord shards.

Beside the shards of a folder, `train-00000-of-00016.tfrecord` and so on, are two files:

- `shards.json`: the specification, how many sequences each shard has, its size and its checksums;
- `index.npz`: what a training must know of all sequences at once, some bytes of each: their
  classes, `y_train`, their lengths where these vary, `lengths_train`, and how many bytes the record
  of each takes, `bytes_train`; likewise of the other splits.

`convert` writes them and `tfrecord` reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnn_tf.data.shards import MAKE_AGAIN, Shard, name_of
from rnn_tf.data.spec import SPLITS, SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.files.text import open_text

# Of `shards.json`. Raised when what is in one changes.
VERSION = 1
MANIFEST, INDEX = "shards.json", "index.npz"
# What is being written into a folder, until it is there.
UNFINISHED = ".unfinished.json"


@dataclass(frozen=True)
class Manifest:
    """What `shards.json` says."""

    spec: SequenceSpec
    dtype: str  # of the sequences: uint8 or float32
    index: str  # SHA-256 of `index.npz`
    notes: tuple[str, ...]  # how the source was read
    splits: Mapping[str, tuple[Shard, ...]]  # of each split, in order

    def files(self, split: str, folder: Path) -> tuple[Path, ...]:
        count = len(self.splits[split])
        return tuple(folder / name_of(split, number, count) for number in range(count))

    def to_json(self) -> str:
        values = {
            "version": VERSION,
            "spec": self.spec.to_dict(),
            "dtype": self.dtype,
            "index": self.index,
            "notes": list(self.notes),
            "splits": {name: [asdict(shard) for shard in of] for name, of in self.splits.items()},
        }
        return json.dumps({**values, "checksum": checksum(values)}, indent=1) + "\n"

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """Read the `shards.json` of a folder.

        Raises `InputError` when there is none, it is damaged, or a newer version wrote it.
        """
        path = folder / MANIFEST
        if not path.is_file() and (folder / UNFINISHED).exists():
            raise InputError(
                f"{folder} is not written to its end",
                fix="Give the command rnn-tf convert again: it goes on.",
            )
        if not path.is_file():
            raise InputError(
                f"no {MANIFEST} beside the shards", expected=f"the file {path}",
                fix="Copy it from where the shards are from, or write the set anew: "
                "rnn-tf convert SOURCE OUT.",
            )  # fmt: skip
        with open_text(path) as file:
            text = file.read()
        try:
            values = json.loads(text)
            version = values["version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _damaged(path, error) from error
        if not isinstance(version, int) or version > VERSION:
            raise InputError(
                f"{path} was written by a newer version of this package",
                expected=f"version {VERSION} or older", got=repr(version),
                fix="Upgrade: pip install --upgrade rnn-tf.",
            )  # fmt: skip
        if values.pop("checksum", None) != checksum(values):
            raise InputError(
                f"{path} was altered", expected="the checksum that it says", fix=MAKE_AGAIN
            )
        try:
            return cls._from_values(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (TypeError, KeyError, AttributeError) as error:
            raise _damaged(path, error) from error

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> Manifest:
        splits = {
            name: tuple(Shard(**shard) for shard in values["splits"][name]) for name in SPLITS
        }
        for name, shards in splits.items():
            counts = [shard.examples for shard in shards]
            if not counts or not all(isinstance(n, int) and n > 0 for n in counts):
                raise InputError(
                    f"bad shards of {name}", expected="one or more sequences in each", got=counts
                )
        spec = SequenceSpec.from_dict(values["spec"])
        notes = tuple(map(str, values["notes"]))
        return cls(spec, values["dtype"], str(values["index"]), notes, splits)


def checksum(values: dict[str, Any]) -> str:
    """The SHA-256 of everything else that `shards.json` says."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged", got=f"{type(error).__name__}: {error}", fix=MAKE_AGAIN)
