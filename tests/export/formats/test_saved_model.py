"""The SavedModel is whole without this package: plain TensorFlow loads, runs and explains it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from networks import (
    FAR_FROM_ZERO,
    LENGTHS,
    LONG,
    SPEC,
    STACKS,
    UNITS,
    UNITS_OF_MEASURE,
    random_network,
    raw_input,
    stacked_network,
)
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from export import oracle
from export.formats import saved_model
from export.formats.saved_model import SavedModelRuntime
from export.network import Network
from export.signatures import classify, step
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import CELLS, Cell

# float32 rounding, as in test_tflite.py: 1e-7 seen.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    saved_model.write(random_network("gru"), folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    return tf.saved_model.load(str(folder / "1"))


def test_it_is_laid_out_for_tensorflow_serving(tmp_path: Path) -> None:
    details = saved_model.write(random_network("lstm"), tmp_path / "saved_model")
    assert details == {"version": "1", "signatures": ["serving_default", "metadata", "step"]}
    assert [entry.name for entry in (tmp_path / "saved_model").iterdir()] == ["1"]
    assert (tmp_path / "saved_model" / "1" / "saved_model.pb").is_file()


def test_the_signature_says_what_it_takes_and_gives(loaded: Any) -> None:
    signature = loaded.signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    assert inputs == {
        "sequence": tf.TensorSpec((None, SPEC.longest, SPEC.features), tf.float32, "sequence")
    }
    (name,) = signature.structured_outputs
    assert name == "probabilities"
    probabilities = signature.structured_outputs[name]
    assert probabilities.shape.as_list() == [None, SPEC.classes]
    assert probabilities.dtype == tf.float32


@pytest.mark.parametrize("spec", [SPEC, LONG], ids=["short", "long"])
@pytest.mark.parametrize("cell", CELLS)
def test_it_answers_as_the_oracle_does_at_any_batch(
    cell: Cell, spec: SequenceSpec, tmp_path: Path
) -> None:
    assert_equals_oracle(random_network(cell, spec=spec), tmp_path)


@pytest.mark.parametrize(
    ("cell", "stack", "timesteps"),
    [
        *(("simple_rnn", "3 layers both ways", timesteps) for timesteps in LENGTHS),
        ("lstm", "2 layers", LENGTHS[1]),
        ("gru", "both ways", LENGTHS[1]),
    ],
)
def test_so_it_does_with_more_layers_and_directions(
    cell: Cell, stack: str, timesteps: int, tmp_path: Path
) -> None:
    assert_equals_oracle(stacked_network(cell, stack, timesteps), tmp_path)


@pytest.mark.parametrize("stack", STACKS)
def test_features_may_be_of_different_size(stack: str, tmp_path: Path) -> None:
    network = stacked_network("gru", stack, normalize=UNITS_OF_MEASURE)
    assert_equals_oracle(network, tmp_path, FAR_FROM_ZERO)


def assert_equals_oracle(network: Network, folder: Path, limit: float = ROUNDING) -> None:
    saved_model.write(network, folder)
    runtime = SavedModelRuntime(folder, network.spec)
    x = raw_input(64, network.spec)
    exact = oracle.probabilities(network, x)
    for batch in (1, 2, 7, 64, 1):
        got = runtime.predict(x[:batch])
        assert (got.shape, got.dtype) == ((batch, network.spec.classes), np.float32)
        np.testing.assert_allclose(got, exact[:batch], rtol=0, atol=limit)


def test_it_holds_no_variable(folder: Path, loaded: Any) -> None:
    signature = loaded.signatures["serving_default"]
    assert list(signature.variables) == []
    assert [op for op in signature.graph.get_operations() if "Var" in op.type] == []
    # Nothing but the description of the objects themselves.
    stored = tf.train.list_variables(str(folder / "1" / "variables" / "variables"))
    assert [name for name, _ in stored] == ["_CHECKPOINTABLE_OBJECT_GRAPH"]


def test_it_says_its_labels_specification_and_signatures(loaded: Any) -> None:
    answer = loaded.signatures["metadata"]()
    assert sorted(answer) == ["labels", "model", "signatures", "spec"]
    assert tuple(label.decode() for label in answer["labels"].numpy()) == SPEC.labels
    text = answer["spec"].numpy().decode()
    assert SequenceSpec.from_json(text) == SPEC
    assert "läuft" in text  # to be read by people too
    signatures = json.loads(answer["signatures"].numpy())
    assert signatures == [classify(SPEC).to_dict(), step(SPEC, [UNITS]).to_dict()]


def test_the_warm_up_is_a_request_that_it_can_answer(folder: Path, loaded: Any) -> None:
    file = folder / "1" / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    log = PredictionLog.FromString(record)
    assert log.WhichOneof("log_type") == "predict_log"
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == (
        "rnn_tf", "serving_default",
    )  # fmt: skip
    assert list(request.inputs) == ["sequence"]
    x = tf.make_ndarray(request.inputs["sequence"])
    assert (x.shape, x.dtype) == ((1, SPEC.longest, SPEC.features), np.float32)
    signature = loaded.signatures[request.model_spec.signature_name]
    got = signature(sequence=tf.constant(x))["probabilities"].numpy()
    exact = oracle.probabilities(random_network("gru"), x)
    np.testing.assert_allclose(got, exact, rtol=0, atol=ROUNDING)
