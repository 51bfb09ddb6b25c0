"""Answers at every step in every format: whole sequences, of one length and of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from extras import WITH_TORCH
from networks import (
    LONG,
    LONG_VARYING,
    SPEC,
    VARYING,
    in_keras,
    random_network,
    raw_input,
    some_lengths,
    with_padding,
)

from export import oracle
from export.check.compare import compare, failures
from export.check.questions import Family, families
from export.formats import onnx_graph
from export.formats.format import OPSET, Options
from export.formats.registry import FORMATS, file_of
from export.network import INPUT, LENGTHS, OUTPUT, Network, read_model
from export.publish import export_run
from export.runtimes import load_keras, open_file
from rnn_tf import Run
from rnn_tf.data import Split
from rnn_tf.data.spec import SequenceSpec, valid_steps
from rnn_tf.model.cells import CELLS, Cell

# float32 rounding of these small networks, and int8: as in test_tflite.py.
LIMITS = {"tflite_int8": 4e-3}


def at_every_step(spec: SequenceSpec) -> SequenceSpec:
    return replace(spec, answer="every_step")


def exact_by_prefix(network: Network, x: np.ndarray) -> np.ndarray:
    """What a model that answers at the end says of each beginning of a sequence."""
    at_end = replace(network, spec=replace(network.spec, answer="end"))
    found = [oracle.probabilities(at_end, x[:, : t + 1]) for t in range(x.shape[1])]
    return np.stack(found, axis=1)


@pytest.mark.parametrize("cell", CELLS)
def test_the_oracle_is_keras_in_float64(cell: Cell) -> None:
    for bidirectional in (False, True):
        network = random_network(
            cell, spec=at_every_step(SPEC), layers=2, bidirectional=bidirectional
        )
        x = raw_input(5, network.spec)
        theirs = np.asarray(in_keras(network, "float64")(oracle.normalized(network, x)))
        np.testing.assert_allclose(oracle.probabilities(network, x), theirs, rtol=0, atol=1e-12)


def test_reading_forward_each_answer_is_that_of_a_beginning() -> None:
    network = random_network("gru", spec=at_every_step(SPEC), layers=2)
    x = raw_input(5)
    exact = oracle.probabilities(network, x)
    np.testing.assert_allclose(exact, exact_by_prefix(network, x), rtol=0, atol=1e-15)


FORMS: dict[str, tuple[Cell, SequenceSpec, dict[str, Any]]] = {
    "elu": ("simple_rnn", SPEC, {"activation": "elu"}),
    "both ways": ("lstm", SPEC, {"layers": 2, "bidirectional": True}),
    "lengths": ("gru", VARYING, {"bidirectional": True}),
    "in a loop": ("simple_rnn", LONG, {}),
    "lengths in a loop": ("simple_rnn", LONG_VARYING, {"bidirectional": True}),
}
# SavedModel and TFLite are made from one function. The graphs of long sequences in ONNX are below,
# and int8 has loops at any length.
MADE = {
    "elu": ("onnx", "tflite", "torch"),
    "both ways": ("onnx", "saved_model", "torch"),
    "lengths": ("onnx", "tflite_int8", "saved_model", "torch"),
    "in a loop": ("saved_model",),
    "lengths in a loop": ("tflite",),
}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, marks=pytest.mark.torch) if name == "torch" else (name, form)
        for form in FORMS
        for name in MADE[form]
    ],
)
def test_every_format_answers_at_every_step(name: str, form: str, tmp_path: Path) -> None:
    cell, spec, options = FORMS[form]
    network = random_network(cell, spec=at_every_step(spec), **options)
    x = raw_input(60, network.spec)
    lengths = some_lengths(60, network.spec) if spec.varies else None
    exact = oracle.probabilities(network, x, lengths)
    valid = np.ones(x.shape[:2], bool)
    given: tuple[np.ndarray, ...] = (x,)
    if lengths is not None:
        valid = valid_steps(lengths, spec.longest)
        given = (with_padding(x, lengths, np.nan), lengths)
    path = tmp_path / file_of(name)
    FORMATS[name].write(network, path, Options(x, lengths))
    runtime = open_file(name, path, network.spec)
    for batch in (1, 60, 7):
        got = runtime.predict(*(each[:batch] for each in given))
        assert got.shape == (batch, spec.longest, spec.classes)
        off = np.abs(got - exact[:batch])[valid[:batch]].max()
        assert off <= LIMITS.get(name, 1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_onnx_in_each_form_and_every_kind_of_batch(cell: Cell) -> None:
    """The operator, the steps written out and the Scan; all as long, shorter, and mixed."""
    for spec in (SPEC, LONG, VARYING):
        for activation in ("tanh", "gelu"):
            network = random_network(
                cell, activation, at_every_step(spec), bidirectional=True, layers=2
            )
            model = onnx_graph.build(network, OPSET).SerializeToString()
            session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            x = raw_input(60, spec)
            kinds: list[np.ndarray | None] = [None]
            if spec.varies:
                kinds = [some_lengths(60, spec), np.full(60, 3, np.int32), np.full(60, 7, np.int32)]
            for lengths in kinds:
                exact = oracle.probabilities(network, x, lengths)
                given = x if lengths is None else with_padding(x, lengths, np.inf)
                for batch in (1, 60):
                    inputs = {INPUT: given[:batch]}
                    if lengths is not None:
                        inputs[LENGTHS] = lengths[:batch]
                    got = session.run([OUTPUT], inputs)[0]
                    off = np.abs(got - exact[:batch])
                    if lengths is not None:
                        off = off[valid_steps(lengths[:batch], spec.longest)]
                    assert off.max() <= 1e-6


# --- verified ---
def test_padding_is_not_compared_and_unlabelled_steps_are_not_counted() -> None:
    network = random_network("gru", spec=at_every_step(VARYING))
    x, lengths = raw_input(6, VARYING), some_lengths(6, VARYING)
    exact = oracle.probabilities(network, x, lengths)
    valid = valid_steps(lengths, VARYING.longest)
    y = np.where(valid, exact.argmax(axis=2), -1).astype(np.int32)
    unlabelled = valid & (np.arange(VARYING.longest) % 2 == 1)
    y[unlabelled] = -1
    family = Family("f", x, (6,), y, lengths=lengths)
    anything = np.where(valid[:, :, None], exact, np.nan)
    row = compare("onnx", family, anything, exact, exact, exact, 1e-6)
    assert row.examples == 6
    assert (row.max_difference, row.accuracy, row.agreement) == (0, 1, 1)
    assert failures(row, row, quantized=False) == ()
    wrong = exact.copy()
    step = lengths[0] - 1  # the last that is no padding
    wrong[0, step] = np.roll(wrong[0, step], 1)
    row = compare("onnx", family, wrong, exact, exact, exact, 1e-6)
    assert any("|dp| from the oracle" in line for line in failures(row, row, quantized=False))


def test_labels_of_steps_are_part_of_what_is_asked() -> None:
    network = random_network("gru", spec=at_every_step(SPEC))
    x = raw_input(9)
    y = np.zeros((9, SPEC.longest), np.int32)
    y[:, 0] = -1
    whole, *_ = families(Split(x, y), network)
    assert whole.y is not None
    np.testing.assert_array_equal(whole.y, y)
    whole, *_ = families(Split(x, y[:, 1]), network)
    assert whole.y is not None
    assert whole.y.shape == (9, SPEC.longest)


# --- a bundle ---
def test_a_bundle_says_that_it_answers_at_every_step(put_model: Callable[..., Run]) -> None:
    run = put_model(answer="every_step", bidirectional=True, units=6)
    bundle = export_run(run, formats=("onnx", *(["torch"] if WITH_TORCH else [])))
    (classify,) = bundle.manifest["signatures"]
    assert classify["outputs"][0]["axes"] == ["batch", 12, 3]
    text = (bundle.path / "README.md").read_text()
    assert "output `probabilities`: float32 `(batch, 12, 3)`, the probability of each class at" in (
        text
    )
    assert "There are none: the model reads in both directions" in text
    # It is read back as it was.
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    assert network.every_step
    assert network.fingerprint == bundle.manifest["model"]["fingerprint"]
