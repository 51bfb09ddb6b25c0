"""Training from shards: what it would be from memory, in the same order."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from killed import killed_after

from export.publish import export_run
from rnn_tf import Run, TrainConfig, scores, train
from rnn_tf.config import Source
from rnn_tf.data import SequenceData, load, stored
from rnn_tf.data.convert import write
from rnn_tf.errors import InputError
from rnn_tf.evaluate import evaluate
from rnn_tf.training import order as order_module
from rnn_tf.training.backend import choose_backend
from rnn_tf.training.order import Order

CONFIG = TrainConfig(units=5, epochs=2, batch_size=16, optimizer="adam", dropout=0.0, noise=0.0)


@pytest.fixture(scope="module")
def folder(small: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small` in three shards a split."""
    out = tmp_path_factory.mktemp("shards") / "set"
    write(small, out, 3)
    return out


@pytest.fixture(scope="module")
def in_pieces(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Order]:
    """Trained from shards in four pieces an epoch, killed after the first epoch and resumed."""
    path = tmp_path_factory.mktemp("runs") / "run"
    data = load(f"tfrecord:{folder}")
    with pytest.MonkeyPatch.context() as patch:
        four_batches(patch)
        with killed_after(1):
            train(CONFIG, path, data=data, progress=False, evaluate=False)
        run = train(CONFIG, path, data=data, resume=True, progress=False, evaluate=False)
        order = Order.of(data.train, 16, CONFIG.seed)
        order.epoch(0)
        return run, order


def four_batches(patch: pytest.MonkeyPatch) -> None:
    """Pieces of four batches, put together from stretches of ten examples."""
    patch.setattr(order_module, "PIECE_BATCHES", 4)
    patch.setattr(stored, "STRETCH_BYTES", 10 * 96)


def weights(run: Run) -> list[np.ndarray]:
    found: list[np.ndarray] = run.load_model().get_weights()
    return found


def assert_equal_weights(one: Run, other: Run) -> None:
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_memory_in_the_same_order_gives_the_same_weights(
    in_pieces: tuple[Run, Order],
    small: SequenceData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the same pieces bit for bit; as whole epochs but for rounding."""
    run, order = in_pieces
    assert (order.pieces, order.batches, order.updates) == (4, 4, 13)
    epochs = [order.epoch(epoch) for epoch in range(2)]
    monkeypatch.setattr(Order, "_in_memory", lambda self, epoch: epochs[epoch])
    whole = train(CONFIG, tmp_path / "whole", data=small, progress=False, evaluate=False)
    four_batches(monkeypatch)
    monkeypatch.setattr(order_module, "EPOCH_BYTES", 0)
    pieces = train(CONFIG, tmp_path / "pieces", data=small, progress=False, evaluate=False)
    assert_equal_weights(run, pieces)
    for a, b in zip(weights(run), weights(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        said = [[record[name] for record in each.history] for each in (run, pieces, whole)]
        np.testing.assert_allclose(said[0], said[1], rtol=0)
        np.testing.assert_allclose(said[0], said[2], rtol=1e-5)


def test_plain_fit_meets_the_same_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnn_tf.training.keras.batches import batches, pieces

    four_batches(monkeypatch)
    data = load(f"tfrecord:{folder}")
    order = Order.of(data.train, 16, 5)
    plain = list(batches(order, data.spec, lambda: np.array(3, np.int64)))
    fused = list(pieces(order, 3, 4))
    assert [int(steps) for *_, steps in fused] == [4, 4, 4, 1]
    for part in range(3):
        together = np.concatenate([piece[part][: int(piece[-1])] for piece in fused])
        np.testing.assert_array_equal(together, [batch[part] for batch in plain])
    rows = order.epoch(3)
    np.testing.assert_array_equal(together > 0, rows >= 0)


@pytest.mark.parametrize("kind", ["labelled_steps", "varying"])
def test_steps_and_lengths_come_as_from_memory(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels by step, and of sequences for every step, in training and in evaluation.

    Also the parts of batches that two replicas of three have.
    """
    from rnn_tf.training.keras import batches

    memory: SequenceData = request.getfixturevalue(kind).answering("every_step")
    write(memory, tmp_path / "set", 3)
    shards = load(Source(f"tfrecord:{tmp_path / 'set'}", answer="every_step"))
    monkeypatch.setattr(batches, "EVALUATION_BATCH", 23)  # of 50 examples
    found = []
    for data in (shards, memory):
        train, test = (split.labelled_for(data.spec) for split in (data.train, data.test))
        order = Order.of(train, 16, 1, every_step=True)
        found.append(
            [
                tf.nest.flatten(element)
                for dataset in (
                    batches.pieces(order, 0, 2),
                    batches.evaluation_batches(test, data.spec),
                    batches.parts_of_batches(
                        train, data.spec, batches.endless_rows(order, 0), 3, range(1, 3)
                    ).take(7),
                    batches.parts_of_batches(
                        test, data.spec, batches.rows_in_order(test, 23), 3, range(2)
                    ).take(7),
                )
                for element in dataset
            ]
        )
    assert [len(each) for each in found] == [19, 19]
    for ours, theirs in zip(*found, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_run_from_shards_is_that_from_memory(
    varying: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One piece has the order of memory: scores, profile and export are those of the same run."""
    write(varying, tmp_path / "set", 2)
    dataset = f"tfrecord:{tmp_path / 'set'}"
    config = TrainConfig(
        dataset, units=4, epochs=1, batch_size=16, class_weights="balanced",
        normalize="standard", noise=0.1,
    )  # fmt: skip
    # Scored in parts of a few examples.
    monkeypatch.setattr(scores, "PART_BYTES", 30 * 9 * 3 * 4)
    from_memory = train(config, tmp_path / "memory", data=varying, progress=False)
    run = train(config, tmp_path / "shards", progress=False)
    assert_equal_weights(run, from_memory)
    assert run.spec == from_memory.spec
    assert run.profile_file.read_bytes() == from_memory.profile_file.read_bytes()
    for split in ("train", "valid", "test"):
        ours, theirs = run.metrics[split], from_memory.metrics[split]
        assert ours == pytest.approx(theirs, rel=1e-9)
    assert evaluate(run).accuracy == run.metrics["test"]["accuracy"]
    bundle = export_run(run, formats=("onnx",))
    assert list(bundle.formats) == ["onnx"]


def test_the_first_line_says_what_is_fused(
    folder: Path, small: SequenceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = choose_backend("keras", warn=False)
    data = load(f"tfrecord:{folder}")
    assert backend.describe(CONFIG, data).startswith("each epoch one compiled program")
    four_batches(monkeypatch)
    said = "epochs of 4 pieces, each one compiled program"
    assert backend.describe(CONFIG, data).startswith(said)
    monkeypatch.setattr(order_module, "EPOCH_BYTES", small.train.x.nbytes)
    assert backend.describe(CONFIG, small).startswith(said)


@pytest.mark.parametrize("damage", ["altered", "truncated", "gone"])
def test_damage_while_training_ends_it_with_the_name_of_the_file(
    damage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_batches(monkeypatch)  # the program is compiled by now
    copied = Path(shutil.copytree(folder, tmp_path / "set"))
    data = load(f"tfrecord:{copied}")
    file = copied / "train-00001-of-00003.tfrecord"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    what = {"altered": "not the shard that", "truncated": "is truncated", "gone": "is missing"}
    with pytest.raises(InputError, match=rf"train-00001-of-00003\.tfrecord: .*{what[damage]}"):
        train(CONFIG, tmp_path / "run", data=data, progress=False, evaluate=False)
