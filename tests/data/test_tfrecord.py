"""Data sets in TFRecord shards: what is read is what was written, and damage is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from rnn_tf import TrainConfig
from rnn_tf.config import Source
from rnn_tf.data import SequenceData, load, normalize, shards, stored
from rnn_tf.data.convert import write
from rnn_tf.data.manifest import checksum
from rnn_tf.data.spec import SPLITS
from rnn_tf.errors import InputError
from rnn_tf.training import order as order_module
from rnn_tf.training.backend import choose_backend
from rnn_tf.training.folds import train_folds
from rnn_tf.training.order import Order, epoch_order


@pytest.fixture(scope="module")
def folder(small: SequenceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small` in three shards a split. Read it, do not change it."""
    out = tmp_path_factory.mktemp("shards") / "set"
    write(small, out, 3)
    return out


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "set"))


@pytest.mark.parametrize("kind", ["small", "varying", "labelled_steps"])
def test_what_is_read_is_what_was_written(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data: SequenceData = request.getfixturevalue(kind)
    write(data, tmp_path / "set", 3)
    found = load(Source(f"tfrecord:{tmp_path / 'set'}", answer=data.spec.answer))
    assert found.spec == data.spec
    assert found.stored
    for name in SPLITS:
        ours, theirs = getattr(found, name), getattr(data, name)
        assert ours.x.shape == theirs.x.shape
        assert (ours.x.dtype, ours.y.dtype) == (theirs.x.dtype, theirs.y.dtype)
        for a, b in zip(ours.take(slice(None))[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(a, b)
    rows = [200, 3, 3, 67, 68]  # from two shards
    np.testing.assert_array_equal(found.train.x[rows], data.train.x[rows])
    odd = np.arange(203) % 2 == 1
    np.testing.assert_array_equal(found.train.x[odd], data.train.x[odd])
    np.testing.assert_array_equal(found.train.x[7], data.train.x[7])
    assert len(found.train.take(slice(0)).x) == 0


def test_shards_are_what_other_programs_expect(small: SequenceData, folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("train-*"))
    assert names == [f"train-0000{i}-of-00003.tfrecord" for i in range(3)]
    first = next(iter(tf.data.TFRecordDataset(str(folder / names[0]))))
    features = {
        "x": tf.io.FixedLenFeature((), tf.string),
        "y": tf.io.FixedLenFeature((), tf.int64),
    }
    example = tf.io.parse_single_example(first, features)
    values = tf.io.decode_raw(example["x"], tf.float32).numpy()
    np.testing.assert_array_equal(values, small.train.x[0].ravel())
    assert int(example["y"]) == small.train.y[0]


def test_a_folder_or_a_pattern_names_the_set(folder: Path, tmp_path: Path) -> None:
    by_folder, bare, by_pattern, all_of_it = (
        load(name)
        for name in (
            f"tfrecord:{folder}", str(folder), f"tfrecord:{folder}/*.tfrecord",
            f"tfrecord:{folder}/*",
        )
    )  # fmt: skip
    for data in (bare, by_pattern, all_of_it):
        assert data.spec == by_folder.spec
        np.testing.assert_array_equal(data.test.y, by_folder.test.y)


@pytest.mark.parametrize("how", ["standard", "minmax"])
def test_a_normalization_is_learned_as_from_memory(
    how: Any, small: SequenceData, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalize, "BLOCK_VALUES", 50 * 24)  # five blocks
    assert load(str(folder)).normalized(how).spec == small.normalized(how).spec


# --- order ---
def small_pieces(monkeypatch: pytest.MonkeyPatch, data: SequenceData, batches: int) -> Order:
    """The order of `data` in pieces of so many batches of 16, in stretches of 10 examples."""
    monkeypatch.setattr(order_module, "PIECE_BATCHES", batches)
    monkeypatch.setattr(stored, "STRETCH_BYTES", 10 * 96)
    return Order.of(data.train, 16, 1)


def test_what_fits_into_a_piece_has_the_order_of_memory(folder: Path) -> None:
    order = Order.of(load(str(folder)).train, 16, 1)
    assert (order.pieces, order.batches) == (1, 13)
    np.testing.assert_array_equal(order.epoch(3), epoch_order(203, 16, 1, 3))


def test_pieces_hold_every_example_once_from_all_over_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = small_pieces(monkeypatch, load(str(folder)), 5)
    assert (order.pieces, order.batches, order.updates) == (3, 5, 13)
    first, second = order.epoch(0), order.epoch(1)
    assert first.shape == (13, 16)
    assert sorted(first[first >= 0]) == list(range(203))
    assert (first[-1] == -1).sum() == 13 * 16 - 203
    assert not np.array_equal(first, second)
    # 80 examples of a piece are 8 stretches or a few more: they come from all three files, and are
    # in no order.
    for number in range(3):
        piece = order.piece(0, number)
        rows = piece[piece >= 0]
        assert set(np.searchsorted([68, 136], rows, side="right")) == {0, 1, 2}
        assert 7 <= len(np.unique(rows // 10)) <= 25
        assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 0.4
    again = small_pieces(monkeypatch, load(str(folder)), 5)
    np.testing.assert_array_equal(again.piece(1, 2), order.piece(1, 2))


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_replica_reads_its_own_part_of_the_files(
    replicas: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_module, "LANES", 6)
    order = small_pieces(monkeypatch, load(str(folder)), 5)
    files = order.split.stored
    assert files is not None
    piece = order.piece(2, 1)
    for replica in range(replicas):
        rows = piece[:, replica::replicas].ravel()
        for gap, most in ((0, 1), (3 * files.sizes[0], 1.5)):
            monkeypatch.setattr(stored, "GAP_BYTES", gap)
            *_, counts, _ = files._stretches_of(rows)
            assert len(rows) <= counts.sum() <= most * len(rows)
            # In stretches, and not one by one: there are 8 of 10 examples in the piece, cut in six.
            assert len(counts) <= 14
        np.testing.assert_array_equal(files[rows], files[:][rows])


def test_batches_of_like_length_keep_their_lanes() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 1000)
    order = epoch_order(1000, 32, 1, 3, lengths, lanes=4)
    assert sorted(order[order >= 0]) == list(range(1000))
    for lane in range(4):
        rows = order[:, lane::4].ravel()
        rows = np.sort(rows[rows >= 0])
        np.testing.assert_array_equal(rows, np.arange(rows[0], rows[-1] + 1))
    full = order[:31]
    longest, mean = (of(lengths[full], axis=1).mean() for of in (np.max, np.mean))
    assert longest < 1.4 * mean


def test_an_epoch_in_memory_is_cut_into_pieces_when_it_is_large(
    small: SequenceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Order.of(small.train, 16, 1).pieces == 1
    monkeypatch.setattr(order_module, "EPOCH_BYTES", 203 * 96)
    order = small_pieces(monkeypatch, small, 5)
    assert order.pieces == 3
    np.testing.assert_array_equal(order.epoch(2), epoch_order(203, 16, 1, 2))


# --- bad input ---
def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def of_another_set(folder: Path) -> None:
    """A whole shard of the same size in the place of another."""
    shutil.copy(folder / "train-00000-of-00003.tfrecord", folder / "train-00001-of-00003.tfrecord")


def altered(folder: Path) -> None:
    flip(folder / "train-00001-of-00003.tfrecord", 500)


def emptied(folder: Path) -> None:
    (folder / "train-00001-of-00003.tfrecord").write_bytes(b"")


def truncated(folder: Path) -> None:
    file = folder / "train-00001-of-00003.tfrecord"
    file.write_bytes(file.read_bytes()[:-100])


def longer(folder: Path) -> None:
    with (folder / "train-00001-of-00003.tfrecord").open("ab") as file:
        file.write(b"more")


def in_manifest(**change: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "shards.json"
        values = json.loads(file.read_text()) | change
        del values["checksum"]
        file.write_text(json.dumps(values | {"checksum": checksum(values)}))

    return damage


def newer_spec(folder: Path) -> None:
    spec = json.loads((folder / "shards.json").read_text())["spec"]
    in_manifest(spec=spec | {"version": 99})(folder)


def other_features(folder: Path) -> None:
    file = folder / "shards.json"
    file.write_text(file.read_text().replace('"features": 2', '"features": 1'))


def other_index(folder: Path) -> None:
    np.savez_compressed(folder / "index.npz", y_train=np.zeros(3, np.int32))


TRAIN_1 = r"train-00001-of-00003\.tfrecord: "
MAKE_AGAIN = r"Make the shards again with rnn-tf convert, or copy them again\.$"
NOT_IT = "not the shard that was written here; expected the checksum in .* got another: altered"


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, rf"{TRAIN_1}the shard is truncated; expected .* bytes, got .*\. {MAKE_AGAIN}"),
        (longer, rf"{TRAIN_1}the shard is longer; expected"),
        (emptied, rf"{TRAIN_1}the shard is empty; expected .* bytes, got 0\."),
        (altered, rf"{TRAIN_1}{NOT_IT}, or of another set\. {MAKE_AGAIN}"),
        (of_another_set, rf"{TRAIN_1}{NOT_IT}"),
        (
            remove("train-00002-of-00003.tfrecord"),
            r"shards are missing in .*: train-00002-of-00003\.tfrecord; expected all 3 .* got 2\.",
        ),
        (remove("shards.json"), r"no shards\.json beside the shards; expected the file .*\. Copy"),
        (lambda f: (f / "shards.json").write_text("{"), r"shards\.json is damaged; got JSON"),
        (in_manifest(splits={}), r"shards\.json is damaged; got KeyError"),
        (other_features, rf"shards\.json was altered; .* {MAKE_AGAIN}"),
        (
            in_manifest(version=2),
            r"written by a newer version of this package; expected version 1 .* got 2\. Upgrade",
        ),
        (newer_spec, r"shards\.json: the specification was written by a newer version"),
        (other_index, rf"index\.npz: not the index that shards\.json describes; .*{MAKE_AGAIN}"),
        (remove("index.npz"), r"index\.npz: cannot be read; expected .*, got no such file"),
    ],
)
def test_damage_is_named(copied: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copied)
    with pytest.raises(InputError, match=message) as caught:
        load(f"tfrecord:{copied}/*.tfrecord")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no/where/*.tfrecord", r"no file matches no/where/\*\.tfrecord; expected the shards"),
        ("FOLDER/train-*", r"missing in .*: valid-00000-of-00003\.tfrecord, .* all 3 .*, got 0"),
        (
            "FOLDER/*-0000[01]-*",
            r"missing in .*: train-00002-of-00003.* match all with the pattern",
        ),
        ("FOLDER/../../*", r"is not a shard; expected names like train-00000-of-00016\.tfrecord"),
    ],
)
def test_patterns_that_match_something_else(folder: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("tfrecord:" + pattern.replace("FOLDER", str(folder)))


def test_damage_in_the_middle_is_found_when_it_is_read(mnist: SequenceData, tmp_path: Path) -> None:
    """Beyond the edges that are compared when a shard is opened."""
    splits = {name: getattr(mnist, name).take(slice(300)) for name in SPLITS}
    write(SequenceData(mnist.spec, **splits), tmp_path / "set", 1)
    file = tmp_path / "set" / "train-00000-of-00001.tfrecord"
    flip(file, shards.EDGE_BYTES + 1000)
    data = load(str(tmp_path / "set"))
    np.testing.assert_array_equal(data.train.x[:70], mnist.train.x[:70])
    with pytest.raises(InputError, match=re.escape(f"{file}: not the shard that was written here")):
        data.train.x[:]


def test_what_needs_all_examples_in_memory_is_refused(folder: Path, tmp_path: Path) -> None:
    dataset = f"tfrecord:{folder}"
    for source in (Source(dataset, fold="1/2"), TrainConfig(dataset, fold="1/2")):
        with pytest.raises(InputError, match="is in shards, of which no folds are made; expected"):
            load(source)
    with pytest.raises(InputError, match="no folds are made"):
        train_folds(2, TrainConfig(dataset), tmp_path / "folds", progress=False)
    with pytest.raises(InputError, match=r"--test-share means nothing in tfrecord:"):
        load(Source(dataset, test_share=0.2))


@pytest.mark.torch
def test_torch_refuses_shards(folder: Path) -> None:
    config = TrainConfig(f"tfrecord:{folder}", backend="torch")
    with pytest.raises(InputError, match="--backend torch needs all examples in memory, and"):
        choose_backend("torch").describe(config, load(config))
