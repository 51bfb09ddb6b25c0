"""A TFRecord file that is one shard of a split: its name, and what is known of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from rnn_tf.errors import InputError

# Of a split, counted from 0, and how many there are: both have five digits.
SHARD = re.compile(r"(train|valid|test)-\d{5}-of-\d{5}\.tfrecord")
MOST_SHARDS = 99_999
# So many bytes at each end of a shard are compared whenever it is opened: a shard of another set is
# found at once, and no training waits until all of it has been read.
EDGE_BYTES = 2**16

MAKE_AGAIN = "Make the shards again with rnn-tf convert, or copy them again."


@dataclass(frozen=True)
class Shard:
    """What is said about a shard."""

    examples: int  # at least 1
    size: int  # bytes
    sha256: str
    edges: str  # SHA-256 of its first and last `EDGE_BYTES`

    @classmethod
    def of(cls, file: Path, examples: int) -> Shard:
        """What can be said about a whole file."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(examples, file.stat().st_size, digest, edges(file))


def edges(file: Path) -> str:
    """The SHA-256 of the two ends of a file, of all of it where they meet."""
    with file.open("rb") as opened:
        ends = opened.read(EDGE_BYTES)
        opened.seek(max(opened.tell(), file.stat().st_size - EDGE_BYTES))
        return hashlib.sha256(ends + opened.read()).hexdigest()


def name_of(split: str, number: int, count: int) -> str:
    """The name of a shard, `number` counted from 0."""
    return f"{split}-{number:05d}-of-{count:05d}.tfrecord"


def check(file: Path, shard: Shard, *, whole: bool = False) -> None:
    """Raise `InputError` unless `file` is the shard that was written, by its size and its edges.

    With `whole`, by all of its bytes.
    """
    if not file.is_file():
        raise InputError(f"{file}: the shard is missing", fix=MAKE_AGAIN)
    size = file.stat().st_size
    if size != shard.size:
        what = "is empty" if size == 0 else "is truncated" if size < shard.size else "is longer"
        raise InputError(
            f"{file}: the shard {what}", expected=f"{shard.size:,} bytes", got=f"{size:,}",
            fix=MAKE_AGAIN,
        )  # fmt: skip
    same = edges(file) == shard.edges and (not whole or Shard.of(file, shard.examples) == shard)
    if not same:
        raise InputError(
            f"{file}: not the shard that was written here",
            expected="the checksum in shards.json", got="another: altered, or of another set",
            fix=MAKE_AGAIN,
        )  # fmt: skip
