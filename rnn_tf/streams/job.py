"""From a run and its data to what `rnn-tf evaluate --stream` and `--early` say, kept in the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.data import SequenceData, Split
from rnn_tf.errors import InputError
from rnn_tf.files.writing import write_text
from rnn_tf.run import Run, readable
from rnn_tf.streams import early, resets
from rnn_tf.streams.early import Along, EarlyResult
from rnn_tf.streams.resets import PolicyScores
from rnn_tf.streams.stream import as_stream, silence

if TYPE_CHECKING:
    from rnn_tf.streams.listener import Listener

# Silence fills so much memory at most.
MOST_BYTES = 2**32


def compare_policies(
    run: Run,
    data: SequenceData,
    test: Split,
    *,
    every: int | None = None,
    gap: int | None = None,
) -> list[PolicyScores]:
    """Play `test` as one stream, and compare when the state of the run's model may be reset.

    Without and with gaps of `gap` steps; `every` is a policy of its own. Both are by default the
    mean length of the training sequences of `data`, the run's own. Raises `InputError` for bad
    numbers, and for a model that reads in both directions.
    """
    mean = _mean_length(data.train)
    every, gap = mean if every is None else every, mean if gap is None else gap
    for name, value, least in (("--reset-every", every, 1), ("--gap", gap, 0)):
        if value < least:
            raise InputError(f"bad {name}", expected=f"a whole number >= {least}", got=value)
    gap_bytes = len(test.x) * test.x.shape[2] * test.x.itemsize
    if gap * gap_bytes > MOST_BYTES:
        raise InputError(
            "bad --gap", expected=f"at most {MOST_BYTES // gap_bytes:,} for these data", got=gap
        )
    gaps = (0, gap) if gap else (0,)
    listen = _listener(run).listen
    found = resets.compare_policies(
        listen, test, gaps=gaps, silence=silence(data.train), every=every
    )
    return list(found)


def answer_early(run: Run, data: SequenceData, test: Split, promise: float) -> EarlyResult:
    """Find on the validation split of `data`, the run's own, when an answer keeps a promise.

    And see on `test` whether it did. Raises `InputError` for a promise that validation cannot
    keep, for labels by step, and for a model that reads in both directions.
    """
    early.check_promise(promise)
    if data.valid.labelled_by_step or test.labelled_by_step:
        raise InputError(
            "each step has a label of its own: every answer is final",
            expected="one label a sequence, for --early",
            fix="Leave --early out.",
        )
    listener = _listener(run)

    def along(split: Split) -> Along:
        stream = as_stream(split)
        return Along.of(stream, listener.listen(stream.frames, stream.begins))

    return early.answer_early(along(data.valid), along(test), promise)


def _listener(run: Run) -> Listener:
    from rnn_tf.streams.listener import Listener

    return Listener(run.load_model(), run.spec.normalization)


def _mean_length(train: Split) -> int:
    lengths = train.lengths
    return train.x.shape[1] if lengths is None else max(1, round(float(np.mean(lengths))))


# --- what a run keeps ---
def keep_policies(run: Run, found: list[PolicyScores]) -> None:
    """Write `stream.json` and `stream.png`."""
    from rnn_tf.streams.pictures import plot_policies

    write_text(run.stream_file, json.dumps(policies_as_json(found), indent=2) + "\n")
    plot_policies(found, run.stream_picture)


def policies_as_json(found: list[PolicyScores]) -> dict[str, Any]:
    return {"order_seed": resets.SEED, "policies": [each.to_dict() for each in found]}


def keep_early(run: Run, found: EarlyResult) -> None:
    """Write `early.json`, of which a bundle gets a copy, and `early.png`."""
    from rnn_tf.streams.pictures import plot_early

    plot_early(found, run.early_picture)
    write_text(run.early_file, json.dumps(found.to_dict(), indent=2) + "\n")


def kept_early(run: Run) -> EarlyResult | None:
    """What `keep_early` has written; None if nothing was. Raises `InputError` for a bad file."""
    if not run.early_file.exists():
        return None
    with readable(run.early_file):
        return EarlyResult.from_dict(json.loads(run.early_file.read_text()))
