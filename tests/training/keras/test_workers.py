"""What workers say to each other before they train, without the others."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rnn_tf import TrainConfig, load
from rnn_tf.data import SequenceData
from rnn_tf.data.convert import write
from rnn_tf.errors import InputError
from rnn_tf.training.cluster import Cluster
from rnn_tf.training.keras import replicas
from rnn_tf.training.keras.workers import Workers, what_trains

CONFIG = TrainConfig(units=5)


@dataclasses.dataclass(frozen=True)
class Two(Workers):
    """The chief of two, of which the second says that it trains `other`."""

    other: dict[str, Any] = dataclasses.field(default_factory=dict)

    def _exchange(self, text: str) -> list[str]:
        return [text, json.dumps(self.other)]


def two(other: dict[str, Any]) -> Two:
    return Two(Cluster(("here:1", "there:2"), 0), tf.distribute.get_strategy(), other=other)


def test_workers_that_would_train_the_same_agree(small: SequenceData) -> None:
    two(what_trains(CONFIG, small)).agree(CONFIG, small)
    elsewhere = dataclasses.replace(CONFIG, dataset="another/folder.npz")
    two(what_trains(elsewhere, small)).agree(CONFIG, small)


@pytest.mark.parametrize(
    ("name", "value"),
    [("version of tensorflow", "2.20.0"), ("learning_rate", 0.5), ("training data", "0" * 16)],
)
def test_what_differs_is_named(name: str, value: object, small: SequenceData) -> None:
    expected = rf"worker 1 \(there:2\) has another {name} than the chief; expected .*, got .*"
    with pytest.raises(InputError, match=expected) as caught:
        two({**what_trains(CONFIG, small), name: value}).agree(CONFIG, small)
    assert str(value) in str(caught.value)


def test_data_differ_by_a_number_a_label_and_a_length(varying: SequenceData) -> None:
    x, y = varying.train.x.copy(), varying.train.y.copy()
    lengths = np.array(varying.train.lengths)
    x[3, 0, 0] += 1
    y[3] = (y[3] + 1) % 3
    lengths[np.argmax(lengths)] -= 1
    changes: list[dict[str, Any]] = [{"x": x}, {"y": y}, {"lengths": lengths}]
    for change in changes:
        other = dataclasses.replace(varying, train=varying.train._replace(**change))
        with pytest.raises(InputError, match="another training data than the chief"):
            two(what_trains(CONFIG, other)).agree(CONFIG, varying)


def test_shards_differ_by_what_is_in_them(
    small: SequenceData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    other = small.train._replace(x=small.train.x + 1)
    sets = {"one": small, "copy": small, "other": dataclasses.replace(small, train=other)}
    said = {}
    for name, data in sets.items():
        write(data, folder / name, 2)
        said[name] = what_trains(CONFIG, load(f"tfrecord:{folder / name}"))
    assert said["one"] == said["copy"]
    assert said["one"]["training data"] != said["other"]["training data"]
    assert said["one"]["validation data"] == said["other"]["validation data"]


def test_another_keras_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = tf.distribute.get_strategy()
    assert "1 replicas" in replicas.describe(strategy, 16)
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    with pytest.warns(UserWarning, match=r"known to train with Keras 3\.15, and this is 3\.99\.0"):
        replicas.describe(strategy, 16)
