"""Every format is the trained function, and the check that says so can fail."""

from __future__ import annotations

import json
import re
import shutil
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import Capture, Command, failure, refusal
from extras import WITH_TORCH
from networks import (
    LONG,
    UNITS_OF_MEASURE,
    changed,
    in_keras,
    of_length,
    perturbed,
    random_network,
    raw_input,
    stacked_network,
    swapped,
    unscaled,
    with_array,
)
from oracle_runtime import OracleRuntime
from remembering import Remembering

from export import readme
from export.bundle import Bundle, find_bundle, write_manifest
from export.check import questions
from export.check.compare import Report, Row, compare, failures
from export.check.limits import LEAST_AGREEMENT, MOST_ACCURACY_LOSS, MOST_ROUNDING
from export.check.questions import Family, families
from export.formats import onnx_graph, tflite
from export.formats.format import Options, Runtime
from export.formats.onnx import with_metadata
from export.formats.registry import FORMATS as REGISTRY
from export.formats.registry import file_of
from export.formats.saved_model import SERVING_VERSION
from export.formats.tf_function import inference_function
from export.network import INPUT, OUTPUT, Layer, Network, read_model
from export.runtimes import load_keras, open_file, open_runtime
from export.verify import QUANTIZED, WITNESS, in_tensorflow, main, table, verify, verify_bundle
from rnn_tf import Run
from rnn_tf.data import SequenceData, Split
from rnn_tf.data.normalize import Normalize
from rnn_tf.errors import CheckFailed
from rnn_tf.model.cells import CELLS, Cell

# PyTorch answers too where it is installed, though the bundle has no file for it.
FORMATS = (
    *("keras", "saved_model", "tflite", "tflite_int8", "onnx"),
    *((WITNESS,) if WITH_TORCH else ()),
)
# The formats that are tried with wrong weights.
PERTURBED = [
    "onnx",
    "tflite",
    "saved_model",
    pytest.param("torch", marks=pytest.mark.torch),
]
ASKED = [
    "test split", "uniform noise", "all zero", "all max", "1000000 times max", "batches of 1",
    "batches of 2", "batches of 7", "batches of 64", "batches of 1000", "repeated calls",
    "mixed batches",
]  # fmt: skip
STEPPERS = ("saved_model", "tflite", "tflite_int8", "onnx")
ARRAYS = tuple(random_network("simple_rnn").arrays)
NO_LIMITS = {"quantized": False}


def is_step(family: str) -> bool:
    """Whether it was asked frame by frame: see tests/export/check/test_steps.py."""
    return family.startswith("step: ")


@dataclass(frozen=True)
class Case:
    """A model in Keras, its formulas, and data to ask them about."""

    network: Network
    keras: Runtime
    test: Split

    def verify(self, **runtimes: Runtime) -> Report:
        return verify_open(runtimes, self.keras, self.network, self.test)


def verify_open(
    runtimes: dict[str, Runtime], keras: Runtime, network: Network, test: Split
) -> Report:
    """`verify`, of runtimes that are open already."""

    def opener(runtime: Runtime) -> Callable[[], Runtime]:
        return lambda: runtime

    return verify({name: opener(each) for name, each in runtimes.items()}, keras, network, test)


@dataclass(frozen=True)
class Answering:
    """A runtime that answers as a function says."""

    answer: Callable[[np.ndarray], np.ndarray]

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        return self.answer(x)


def case_of(network: Network, folder: Path) -> Case:
    """A network in Keras, and forty examples of every class that it has."""
    in_keras(network).save(folder / "model.keras")
    keras = Remembering(open_file("keras", folder / "model.keras", network.spec))
    return Case(network, keras, split_of(network))


def split_of(network: Network) -> Split:
    normalize, shape = network.spec.normalization, (network.spec.longest, network.spec.features)
    normalized = np.random.default_rng(2).normal(0, 1, (40, *shape))
    x = ((normalized - normalize.shift) / normalize.scale).astype(np.float32)
    return Split(x, OracleRuntime(network).predict(x).argmax(axis=1))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Case]:
    """A small model of each cell with random weights, large enough that each one matters."""
    found = {}
    for cell in CELLS:
        network = random_network(cell)
        for name, array in network.arrays.items():
            network = with_array(network, name, 4 * array)
        found[cell] = case_of(network, tmp_path_factory.mktemp(cell))
    return found


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Case]:
    """Three layers that read both ways, of each cell, and features of different size."""
    return {
        cell: case_of(
            stacked_network(cell, "3 layers both ways", normalize=UNITS_OF_MEASURE),
            tmp_path_factory.mktemp(f"stack-{cell}"),
        )
        for cell in CELLS
    }


@pytest.fixture(scope="module")
def case(cases: dict[Cell, Case]) -> Case:
    return cases["simple_rnn"]


@pytest.fixture(scope="module")
def real(bundle: Bundle, mnist: SequenceData) -> Case:
    """The default model, trained on MNIST, with the first thousand of the test split."""
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    test = mnist.test.take(slice(1000))
    return Case(network, Remembering(open_runtime(bundle, "keras")), test)


def build(name: str, network: Network, folder: Path) -> Runtime:
    """A format, really made from a network, in its real runtime."""
    path = folder / file_of(name)
    if name == "onnx":  # without the converter that it is checked against
        onnx.save(with_metadata(onnx_graph.build(network, 17), network), path)
    else:
        REGISTRY[name].write(network, path, Options(raw_input(9, network.spec)))
    return open_file(name, path, network.spec)


def normalized_by(network: Network, normalize: Normalize | None) -> Network:
    return replace(network, spec=replace(network.spec, normalize=normalize))


def broken(report: Report, name: str) -> list[str]:
    """What is wrong with a format, after it was seen that nothing is with Keras."""
    assert report.failures("keras") == []
    return report.failures(name)


# --- what is right passes ---
@pytest.fixture(scope="module")
def report(bundle: Bundle) -> Report:
    return verify_bundle(bundle)


def test_every_format_of_the_real_model_is_the_trained_function(report: Report) -> None:
    assert report.failures() == []
    found = [(row.format, row.family) for row in report.rows]
    assert [each for each in found if not is_step(each[1])] == [
        (name, family) for name in FORMATS for family in ASKED
    ]
    assert {name for name, family in found if is_step(family)} == set(STEPPERS)
    exact = [row for row in report.rows if row.format not in QUANTIZED]
    # The limit that a user is promised; 3e-6 was seen.
    assert max(row.max_difference for row in exact) <= 1e-5
    from_keras = [row.max_difference_from_keras for row in exact]
    assert max(each for each in from_keras if each is not None) <= 1e-5
    assert sum(row.disagreements for row in exact) == 0
    # What is not compared is not the same either: float32 rounds, and int8 rounds more.
    assert min(row.max_difference for row in exact if row.family == "test split") > 0
    assert next(r for r in report.rows if r.format == "tflite_int8").max_difference > 1e-3


def test_the_whole_test_split_is_asked_with_its_labels(report: Report, run: Run) -> None:
    rows = [row for row in report.rows if row.family == "test split"]
    accuracy = run.metrics["test"]["accuracy"]
    for row in rows:
        assert row.examples == 10_000
        assert row.accuracy is not None
        # Exactly what was said of the trained model, but for what int8 may cost.
        assert row.accuracy == pytest.approx(accuracy, abs=0.005 * (row.format in QUANTIZED))
        assert row.agreement >= (0.99 if row.format in QUANTIZED else 1)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", PERTURBED)
def test_a_format_of_the_same_weights_passes(
    name: str, cell: Cell, cases: dict[Cell, Case], tmp_path: Path
) -> None:
    case = cases[cell]
    assert case.verify(**{name: build(name, case.network, tmp_path)}).failures() == []


def test_every_size_of_batch_is_asked(case: Case) -> None:
    sizes: dict[str, list[int]] = {}

    def answer(x: np.ndarray) -> np.ndarray:
        sizes.setdefault("asked", []).append(len(x))
        return OracleRuntime(case.network).predict(x)

    assert case.verify(onnx=Answering(answer)).failures() == []
    assert {1, 2, 7, 64, 1000} <= set(sizes["asked"])
    assert sizes["asked"][-8:] == [1, 64, 2, 7, 1, 64, 64, 1]


# --- what is wrong does not ---
@pytest.mark.parametrize("name", ["onnx", PERTURBED[-1]])
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("cell", CELLS)
def test_one_weight_off_by_a_thousandth_is_caught(
    cell: Cell, array: str, name: str, cases: dict[Cell, Case], tmp_path: Path
) -> None:
    case = cases[cell]
    wrong = build(name, perturbed(case.network, array), tmp_path)
    found = broken(case.verify(**{name: wrong}), name)
    assert any("|dp| from the oracle" in line for line in found)
    assert any("|dp| from Keras" in line for line in found)


@pytest.mark.parametrize("array", ARRAYS)
def test_one_weight_of_the_real_model_off_by_a_thousandth_is_caught(
    array: str, real: Case, tmp_path: Path
) -> None:
    wrong = build("onnx", perturbed(real.network, array), tmp_path)
    found = broken(real.verify(onnx=wrong), "onnx")
    assert any("|dp| from the oracle" in line for line in found)


def test_a_weight_that_no_digit_uses_is_caught_by_noise(real: Case, tmp_path: Path) -> None:
    """The left column is black in nearly every digit, so that only other input can tell."""
    kernel = real.network.layers[0].forward.kernel.copy()
    kernel[0, 0] += 1e-3
    black = ~real.test.x[:, :, 0].any(axis=1)
    assert black.mean() > 0.9
    digits = replace(real, test=real.test.take(black))
    wrong = build("onnx", changed(real.network, kernel=kernel), tmp_path)
    found = broken(digits.verify(onnx=wrong), "onnx")
    assert any("uniform noise: |dp| from the oracle" in line for line in found)
    assert not any("test split" in line for line in found)


@pytest.mark.parametrize("name", ["tflite", "saved_model"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_wrong_weight_is_caught_in_every_format(
    name: str, cell: Cell, cases: dict[Cell, Case], tmp_path: Path
) -> None:
    case = cases[cell]
    wrong = build(name, perturbed(case.network, "layer 1 forward recurrent_kernel"), tmp_path)
    assert any(
        "|dp| from the oracle" in line for line in broken(case.verify(**{name: wrong}), name)
    )


@pytest.mark.parametrize("name", PERTURBED)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_swapped_gates_are_caught(
    cell: Cell, name: str, cases: dict[Cell, Case], tmp_path: Path
) -> None:
    case = cases[cell]
    wrong = build(name, swapped(case.network), tmp_path)
    assert any(
        "|dp| from the oracle" in line for line in broken(case.verify(**{name: wrong}), name)
    )


@pytest.mark.parametrize("name", ["onnx", PERTURBED[-1]])
@pytest.mark.parametrize("cell", CELLS)
def test_a_forgotten_scale_is_caught(
    cell: Cell, name: str, cases: dict[Cell, Case], tmp_path: Path
) -> None:
    case = cases[cell]
    wrong = build(name, unscaled(case.network), tmp_path)
    assert len(broken(case.verify(**{name: wrong}), name)) > len(ASKED)


# --- what can be wrong with a stack ---
def swap_directions(network: Network) -> Network:
    """Each direction of the last layer with the weights of the other."""
    *others, last = network.layers
    assert last.backward is not None
    return replace(network, layers=(*others, Layer(last.backward, last.forward)))


def swap_in_dense(network: Network) -> Network:
    """The two final states in the other order, as the dense layer reads them."""
    return replace(network, dense_kernel=np.roll(network.dense_kernel, network.units, axis=0))


def swap_layers(network: Network) -> Network:
    first, second, third = network.layers
    return replace(network, layers=(first, third, second))


def forget_the_shift(network: Network) -> Network:
    return normalized_by(network, Normalize(network.spec.normalization.scale))


def one_scale_for_all(network: Network) -> Network:
    normalize = network.spec.normalization
    return normalized_by(network, Normalize(normalize.scale[:1], normalize.shift))


def one_weight_of_the_backward_direction(network: Network) -> Network:
    # A thousandth of it would move a GRU's answers by less than float32 loses of a pressure.
    return perturbed(network, "layer 2 backward recurrent_kernel", by=1e-2)


MUTANTS = (
    swap_directions, swap_in_dense, swap_layers, forget_the_shift, one_scale_for_all,
    one_weight_of_the_backward_direction,
)  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_of_the_same_weights_passes(
    cell: Cell, stacks: dict[Cell, Case], tmp_path: Path
) -> None:
    case = stacks[cell]
    assert case.verify(onnx=build("onnx", case.network, tmp_path)).failures() == []


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_stack_is_caught(
    mutant: Callable[[Network], Network], cell: Cell, stacks: dict[Cell, Case], tmp_path: Path
) -> None:
    case = stacks[cell]
    wrong = build("onnx", mutant(case.network), tmp_path)
    found = broken(case.verify(onnx=wrong), "onnx")
    assert any("test split: |dp| from the oracle" in line for line in found)
    assert any("test split: |dp| from Keras" in line for line in found)


@pytest.mark.parametrize("name", ["saved_model", "tflite"])
def test_a_backward_direction_that_is_read_forward_is_caught(
    name: str, stacks: dict[Cell, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really built, from a graph in which nothing is turned round."""
    import tensorflow as tf

    case = stacks["simple_rnn"]
    monkeypatch.setattr(tf, "reverse", lambda x, axis: tf.identity(x))
    wrong = build(name, case.network, tmp_path)
    found = broken(case.verify(**{name: wrong}), name)
    assert any("test split: |dp| from the oracle" in line for line in found)


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_a_scan_in_the_wrong_direction_is_caught(after: bool, tmp_path: Path) -> None:
    """What it reads, or what it has read, put forward where it is backward."""
    network = random_network("simple_rnn", "elu", LONG, layers=2, bidirectional=True)
    case = Case(network, OracleRuntime(network), split_of(network))
    model = onnx_graph.build(network, 17)
    (branch,) = [node for node in model.graph.node if node.op_type == "If"]
    turned = [
        node
        for attribute in branch.attribute
        for node in attribute.g.node
        if node.op_type == "Slice" and ("Scan" in node.input[0]) == after
    ]
    assert len(turned) == 2 * (1 if after else 2)  # the last layer gives no states to turn back
    for node in turned:
        node.op_type = "Identity"
        del node.input[1:]
    onnx.save(model, tmp_path / "model.onnx")
    wrong = open_file("onnx", tmp_path / "model.onnx", network.spec)
    found = broken(case.verify(onnx=wrong), "onnx")
    assert any("test split: |dp| from the oracle" in line for line in found)


def test_formulas_that_keras_does_not_compute_are_caught(case: Case) -> None:
    """The oracle itself may be wrong: Keras is held against it like any format."""
    wrong = perturbed(case.network, "layer 1 forward bias")
    found = verify({}, case.keras, wrong, case.test).failures("keras")
    assert any("test split: |dp| from the oracle" in line for line in found)
    assert not any("from Keras" in line for line in found)


def test_a_saved_model_that_keeps_its_state_is_caught(case: Case, tmp_path: Path) -> None:
    import tensorflow as tf

    network = case.network
    right = inference_function(network)
    module = tf.Module()
    module.calls = tf.Variable(0.0)
    shape = (None, network.spec.longest, network.spec.features)

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec(shape, tf.float32, INPUT)], autograph=False
    )
    def remembering(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        # The first call is right; each one after it begins a little further off.
        shifted = right(sequence + module.calls)
        with tf.control_dependencies([shifted[OUTPUT]]):
            module.calls.assign_add(0.01)
        return {OUTPUT: tf.identity(shifted[OUTPUT])}

    module.serving_default = remembering
    path = tmp_path / "saved_model"
    signature = remembering.get_concrete_function()
    tf.saved_model.save(
        module, str(path / SERVING_VERSION), signatures={"serving_default": signature}
    )
    runtime = open_file("saved_model", path, network.spec)
    found = broken(case.verify(saved_model=runtime), "saved_model")
    assert not any(line.startswith("saved_model, test split") for line in found)
    repeated = [line for line in found if line.startswith("saved_model, repeated calls")]
    assert any("|dp| from itself in other batches" in line for line in repeated)


@pytest.mark.parametrize("quantized", [False, True])
def test_an_answer_that_depends_on_its_batch_is_caught(quantized: bool, case: Case) -> None:
    """As of a layer that normalises over the batch, or padding that leaks."""
    oracle = OracleRuntime(case.network)

    def answer(x: np.ndarray) -> np.ndarray:
        return oracle.predict(x + 0.1 * x.mean(axis=0))

    name = "tflite_int8" if quantized else "tflite"
    found = broken(case.verify(**{name: Answering(answer)}), name)
    # Alone, an example is its own mean.
    itself = f"{name}, batches of 1: |dp| from itself in other batches "
    assert any(line.startswith(itself) for line in found)


@pytest.mark.parametrize("name", ["onnx", "tflite_int8", "tflite_float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_never_passes(name: str, value: float, case: Case) -> None:
    """One number, of the one sequence of zeros."""
    oracle = OracleRuntime(case.network)

    def answer(x: np.ndarray) -> np.ndarray:
        found = oracle.predict(x)
        # Not the best class: neither agreement nor accuracy would show an infinity of the best.
        found[~x.any(axis=(1, 2)), 0] = value
        return found

    found = broken(case.verify(**{name: Answering(answer)}), name)
    assert found
    assert all(line.startswith(f"{name}, all zero: ") for line in found)
    assert any(f"|dp| from the oracle {value}, limit" in line for line in found)


def test_all_nan_breaks_every_rule_of_a_quantized_format(case: Case) -> None:
    nan = Answering(lambda x: np.full((len(x), case.network.spec.classes), np.nan))
    report = case.verify(tflite_int8=nan)
    assert {row.family for row in report.rows if row.failures} == {
        row.family for row in report.rows
    }
    assert json.loads(report.to_json())["passed"] is False


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1)])
def test_another_shape_is_named(shape: tuple[int, ...], case: Case) -> None:
    wrong = Answering(lambda x: np.full((len(x), *shape), 0.25))
    # Of 40 examples, and this model has 4 classes.
    with pytest.raises(CheckFailed) as caught:
        case.verify(onnx=wrong)
    assert str(caught.value) == (f"onnx, test split: shape {(40, *shape)}, expected (40, 4)")


def test_a_format_that_takes_one_batch_only_is_named(case: Case, tmp_path: Path) -> None:
    """The commonest fault of an exported file: the batch of the example is built in."""
    model = onnx_graph.build(case.network, 17)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "model.onnx")
    fixed = open_file("onnx", tmp_path / "model.onnx", case.network.spec)
    with pytest.raises(CheckFailed, match=r"^onnx, test split: .*40"):
        case.verify(onnx=fixed)


# --- the rules themselves ---
def row(got: list[float], exact: list[float], labels: list[int] | None = None) -> Row:
    """One example, held against the formulas."""
    x = np.zeros((1, 7, 3), np.float32)
    family = Family("test split", x, (1,), None if labels is None else np.array(labels))
    return compare(
        "onnx", family, np.array([got]), np.array([exact]), np.array([exact]), np.array([got]), 1e-5
    )


def test_another_answer_is_allowed_only_to_a_tie() -> None:
    tied = row([0.5, 0.500002], [0.500002, 0.5])
    # Further apart than float32 may move them, so that the answer is wrong, however near.
    apart = row([0.5, 0.500007], [0.500007, 0.499993])
    assert (tied.agreement, tied.disagreements) == (0, 0)
    assert failures(tied, tied, **NO_LIMITS) == ()
    assert (apart.agreement, apart.disagreements) == (0, 1)
    assert "other answers 1, limit 0" in failures(apart, apart, **NO_LIMITS)


def test_a_difference_passes_up_to_the_limit_and_not_beyond() -> None:
    below, above = row([0.6, 0.4], [0.600009, 0.399991]), row([0.6, 0.4], [0.600011, 0.399989])
    assert failures(below, below, **NO_LIMITS) == ()
    assert failures(above, above, **NO_LIMITS) == (
        "|dp| from the oracle 1.1e-05, limit 1e-05",
        "|dp| from Keras 1.1e-05, limit 1e-05",
    )


@pytest.mark.parametrize(
    ("accuracy", "agreement", "expected"),
    [
        (0.9751, 0.9901, []),
        (0.99, 1.0, []),
        (0.9749, 0.9901, ["accuracy lost 0.0051, limit 0.005"]),
        (0.9751, 0.9899, ["agreement 0.99, at least 0.99"]),
        (0.5, 0.5, ["accuracy lost 0.48, limit 0.005", "agreement 0.5, at least 0.99"]),
    ],
)
def test_what_is_quantized_must_keep_its_accuracy(
    accuracy: float, agreement: float, expected: list[str]
) -> None:
    # A probability may be far off as long as the answers are right.
    ideal = replace(row([0.6, 0.4], [0.6, 0.4], [0]), accuracy=0.98, examples=10_000)
    found = replace(ideal, accuracy=accuracy, agreement=agreement, max_difference=0.3)
    assert list(failures(found, ideal, quantized=True)) == expected


def test_a_quantized_format_that_has_lost_a_class_is_caught(case: Case, tmp_path: Path) -> None:
    """Really built, from weights whose last class has taken the place of the first."""
    wrong = replace(case.network, dense_bias=case.network.dense_bias[::-1].copy())
    tflite.write_float16(wrong, tmp_path / "model.tflite")
    runtime = open_file("tflite_float16", tmp_path / "model.tflite", case.network.spec)
    found = broken(case.verify(tflite_float16=runtime), "tflite_float16")
    assert {line.split(" 0.")[0] for line in found} == {
        "tflite_float16, test split: accuracy lost",
        "tflite_float16, test split: agreement",
    }


@pytest.mark.parametrize(("wrong", "rules"), [(49, 0), (51, 1), (99, 1), (101, 2)])
def test_half_a_point_of_accuracy_and_one_of_agreement_may_be_lost(wrong: int, rules: int) -> None:
    """Of 10,000 answers, all of them right: 50 and 100."""
    x, y = np.zeros((10_000, 7, 3), np.float32), np.zeros(10_000, np.int64)
    family = Family("test split", x, (10_000,), y)
    exact = np.tile([0.7, 0.3], (10_000, 1))
    got = exact.copy()
    got[:wrong] = got[:wrong, ::-1]
    ideal = compare("oracle", family, exact, exact, exact, exact, 1e-5)
    found = compare("tflite_int8", family, got, exact, exact, got, 1e-5)
    assert len(failures(found, ideal, quantized=True)) == rules


def test_nor_may_it_be_one_of_few_where_all_probabilities_are_off() -> None:
    """One in twenty answers falls; that the others are still right says little."""
    family = Family("test split", np.zeros((20, 7, 3), np.float32), (20,), np.zeros(20, int))
    exact = np.tile([0.6, 0.4], (20, 1))
    exact[0] = [0.51, 0.49]
    ideal = compare("oracle", family, exact, exact, exact, exact, 1e-5)
    for off, rules in ((0.015, 0), (0.03, 2)):
        got = exact + np.array([-off, off])
        found = compare("tflite_int8", family, got, exact, exact, got, 1e-5)
        assert found.agreement == 0.95
        assert len(failures(found, ideal, quantized=True)) == rules


@pytest.mark.parametrize(
    ("examples", "wrong", "rules"),
    # Of 150 one may be lost in any case; of 400 two are half a point, and four one in a hundred.
    [(40, 1, 0), (40, 2, 2), (10, 1, 0), (9, 1, 2), (1, 1, 2), (150, 1, 0), (150, 2, 2),
     (400, 2, 0), (400, 3, 1), (400, 5, 2)],
)  # fmt: skip
def test_of_few_answers_one_may_be_another_but_never_more_than_a_tenth(
    examples: int, wrong: int, rules: int
) -> None:
    family = Family(
        "test split", np.zeros((examples, 7, 3), np.float32), (examples,), np.zeros(examples, int)
    )
    exact = np.tile([0.51, 0.49], (examples, 1))
    got = exact.copy()
    got[:wrong] = got[:wrong, ::-1]
    ideal = compare("oracle", family, exact, exact, exact, exact, 1e-5)
    found = compare("tflite_int8", family, got, exact, exact, got, 1e-5)
    assert len(failures(found, ideal, quantized=True)) == rules


@pytest.mark.parametrize(("activation", "magnitude"), [("linear", 1_000_000), ("exponential", 1)])
def test_input_beyond_the_data_is_as_large_as_float32_allows(
    activation: str, magnitude: int, case: Case
) -> None:
    names = [each.name for each in families(case.test, random_network("simple_rnn", activation))]
    assert f"{magnitude} times max" in names


def test_noise_has_the_range_of_each_feature(case: Case) -> None:
    scale = np.array([1e-3, 1, 1e5], np.float32)
    test = Split(case.test.x * scale + 2 * scale, case.test.y)
    noise = next(f.x for f in families(test, case.network) if f.name == "uniform noise")
    low, high = test.x.min(axis=(0, 1)), test.x.max(axis=(0, 1))
    assert (noise >= low).all()
    assert (noise <= high).all()
    # 700 draws of each come near both ends.
    assert (noise.max(axis=(0, 1)) - noise.min(axis=(0, 1)) > 0.95 * (high - low)).all()


# --- long sequences ---
def long_network(timesteps: int, units: int = 32) -> Network:
    return random_network("gru", spec=of_length(timesteps), units=units)


@pytest.mark.parametrize("timesteps", [28, 10_000])
def test_what_is_asked_is_bounded_in_bytes_and_in_time_steps(timesteps: int) -> None:
    network = long_network(timesteps)
    examples = 40_000_000 // timesteps
    x = np.broadcast_to(np.float32(0.5), (examples, timesteps, 3))
    asked = families(Split(x, np.arange(examples)), network)
    assert [len(each.x) for each in asked] == [sum(each.batches) for each in asked]
    largest = max(size for each in asked for size in each.batches)
    assert largest <= 1000
    # The gates of a GRU of 32 units, in float32.
    assert 4 * largest * timesteps * 96 <= 2**27
    test = asked[0]
    assert test.y is not None
    assert len(test.y) == min(examples, 2**21 // timesteps)
    # From the first to the last, evenly.
    assert (test.y[0], test.y[-1]) == (0, examples - 1)
    assert np.ptp(np.diff(test.y)) <= 1
    calls = sum(len(each.batches) for each in asked[1:])
    assert calls <= {28: 220, 10_000: 25}[timesteps]
    (mixed,) = (each for each in asked if each.name == "mixed batches")
    assert set(mixed.batches) == {1, 2, 7, min(64, largest)}


def test_the_whole_test_split_of_mnist_is_asked(real: Case, mnist: SequenceData) -> None:
    test, *_ = families(mnist.test, real.network)
    np.testing.assert_array_equal(test.x, mnist.test.x)
    assert max(test.batches) == 1000


def test_a_report_says_how_much_of_the_test_split_was_asked(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "TEST_STEPS", 7 * 10)
    report = case.verify()
    assert (report.rows[0].examples, report.test_examples) == (10, 40)
    assert "answered 10 of the 40 examples of the test split" in readme._verification(report)


def test_one_runtime_is_open_at_a_time(case: Case) -> None:
    opened: list[weakref.ref[Answering]] = []

    def open_one() -> Runtime:
        assert not any(each() for each in opened)
        runtime = Answering(OracleRuntime(case.network).predict)
        opened.append(weakref.ref(runtime))
        return runtime

    runtimes = dict.fromkeys(("saved_model", "tflite", "onnx"), open_one)
    assert verify(runtimes, case.keras, case.network, case.test).failures() == []
    assert len(opened) == 3


def test_a_runtime_that_cannot_be_opened_is_named(case: Case) -> None:
    def broken_file() -> Runtime:
        raise RuntimeError("no such operator")

    with pytest.raises(CheckFailed, match=r"^onnx: no such operator$"):
        verify({"onnx": broken_file}, case.keras, case.network, case.test)


# --- where float32 promises nothing ---
def chaotic(timesteps: int, times: float) -> Network:
    network = random_network("simple_rnn", spec=of_length(timesteps), units=32)
    kernel = network.layers[0].forward.recurrent_kernel
    return changed(network, recurrent_kernel=np.float32(times) * kernel)


def test_a_model_that_rounding_decides_is_refused_with_advice(tmp_path: Path) -> None:
    case = case_of(chaotic(200, 3), tmp_path)
    with pytest.raises(CheckFailed) as caught:
        case.verify()
    message = str(caught.value)
    assert message.startswith("the model depends on float32 rounding, which may move a probability")
    assert f"limit {MOST_ROUNDING:g}" in message
    assert "train it again" in message
    assert len(message) < 300


def test_other_inputs_that_float32_cannot_hold_are_left_out_and_named(tmp_path: Path) -> None:
    """A sum that doubles at every step: only what comes late leaves a number."""
    network = random_network("simple_rnn", "linear", of_length(200))
    double = 2 * np.eye(network.units, dtype=np.float32)
    bias = np.zeros(network.units, np.float32)
    network = changed(network, recurrent_kernel=double, bias=bias)
    case = case_of(network, tmp_path)
    late = np.where(np.arange(200)[:, None] < 195, 0, case.test.x).astype(np.float32)
    said: list[str] = []
    report = verify({}, case.keras, network, Split(late, case.test.y), said.append)
    assert set(report.not_asked) == {"uniform noise", "all max", "1 times max"}
    assert {row.family for row in report.rows} == {*ASKED[:-1], "mixed batches"} - {
        "uniform noise", "all max", "1000000 times max",
    }  # fmt: skip
    assert report.failures() == []
    assert "not asked: all max, where rounding may move a probability by inf" in said
    assert json.loads(report.to_json())["not_asked"]["all max"] is None


# --- the command ---
def test_a_good_bundle_is_shown_as_a_table(copy: Bundle, capsys: Capture) -> None:
    assert main([str(copy.path)]) == 0
    out, err = capsys.readouterr()
    first = "verifying: keras and the formulas in float64"
    in_turn = sorted(FORMATS[1:], key=in_tensorflow)
    assert err.splitlines() == [first, *(f"verifying: {name}" for name in in_turn)]
    assert "FAILED" not in out
    assert out.isascii(), "a terminal that is not in UTF-8 could not print it"
    by_step = [line for line in out.splitlines() if " step: " in line]
    assert len(by_step) > len(STEPPERS)
    lines = [line for line in out.splitlines() if line not in by_step]
    assert len(lines) == 1 + len(FORMATS) * len(ASKED)
    assert [line.split()[0] for line in lines if line[0] != " "] == list(FORMATS)
    assert out.count(" test split ") == len(FORMATS)


def test_json_is_what_is_written_beside_the_bundle(copy: Bundle, capsys: Capture) -> None:
    copy.write_verification("{}")
    assert main([str(copy.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    written = json.loads(copy.verification_file.read_text())
    del written["checksum"], written["manifest"]
    assert found == written
    assert found["passed"] is True
    assert found["limits"] == {
        "accuracy_loss": MOST_ACCURACY_LOSS,
        "agreement": LEAST_AGREEMENT,
    }
    assert found["test_examples"] == 50
    assert found["not_asked"] == {}
    # The same inputs have the same limit, whichever format answers them.
    rows = [row for row in found["rows"] if not is_step(row["family"])]
    assert len({(row["family"], row["limit"]) for row in rows}) == len(ASKED)
    assert all(0 < row["limit"] < 1e-4 for row in rows)
    assert [row["format"] for row in rows[:: len(ASKED)]] == list(FORMATS)


def put_wrong_weights(bundle: Bundle, name: str = "onnx") -> None:
    """Another model in the place of one format, and a manifest that vouches for it."""
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    if name == "saved_model":
        shutil.rmtree(bundle.path / "saved_model")
    build(name, perturbed(network, "dense_bias"), bundle.path)
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("files", "layout")}
    del manifest["model"]["fingerprint"]
    write_manifest(bundle.path, manifest)
    Bundle.open(bundle.path).write_verification("{}")


@pytest.mark.parametrize("name", ["onnx", "tflite", "saved_model"])
def test_a_wrong_format_is_one_line_and_exit_code_1(
    name: str, copy: Bundle, capsys: Capture
) -> None:
    put_wrong_weights(copy, name)
    assert main([str(copy.path)]) == 1
    out, err = capsys.readouterr()
    *progress, line = err.splitlines()
    assert all(other.startswith("verifying: ") for other in progress)
    assert line.startswith(f"failed: {name}, ")
    assert re.search(r" \(and \d+ more\)\. Make it again with: rnn-tf export RUN\.$", line)
    assert len(line) < 200
    assert "  FAILED" in out
    found = json.loads(copy.verification_file.read_text())
    assert found["passed"] is False
    assert {row["format"] for row in found["rows"] if row["failures"]} == {name}


@pytest.mark.slow
def test_a_wrong_format_fails_in_a_process_of_its_own(copy: Bundle, command: Command) -> None:
    put_wrong_weights(copy)
    done = command("export.verify", copy.path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["passed"] is False
    assert done.stderr.splitlines()[-1].startswith("failed: onnx, ")
    assert done.stderr.count("failed: ") == 1


@pytest.mark.torch
def test_pytorch_is_a_witness_that_can_disagree(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really built, of other weights than the bundle has."""
    from export.formats import pytorch

    def write(network: Network, path: Path) -> None:
        real(perturbed(network, "dense_bias"), path)

    real = pytorch.write
    monkeypatch.setattr(pytorch, "write", write)
    report = verify_bundle(small_bundle)
    assert {row.format for row in report.rows if row.failures} == {WITNESS}


def test_without_pytorch_the_formats_are_verified_as_ever(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's mark for "cannot be imported"
    report = verify_bundle(small_bundle)
    assert report.failures() == []
    assert {row.format for row in report.rows} == {"keras", *small_bundle.formats}


def test_failing_says_what_it_measured_and_the_limit(copy: Bundle, capsys: Capture) -> None:
    put_wrong_weights(copy)
    line = failure(main, [copy.path], capsys)
    found = re.fullmatch(
        r"failed: onnx, (.+): \|dp\| from the oracle (\S+), limit (\S+) \(and .*", line
    )
    assert found is not None
    family, figure, limit = found.groups()
    assert family in ASKED
    assert float(figure) > float(limit)


def test_a_run_stands_for_its_bundle(small_run: Run, capsys: Capture, tmp_path: Path) -> None:
    from export.publish import export_run

    shutil.copytree(small_run.path, tmp_path / "run")
    made = export_run(Run.open(tmp_path / "run"), formats=("onnx",))
    assert made.path == tmp_path / "run" / "bundle"
    assert find_bundle(tmp_path / "run").path == made.path
    assert main([str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("\nonnx ") == 1


def test_another_set_of_the_same_kind_can_be_asked(
    copy: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "other.npz"
    train, test = small.train, small.test
    np.savez(
        other, x_train=train.x, y_train=train.y, x_test=test.x[:5], y_test=test.y[:5],
        labels=np.array(small.spec.labels),
    )  # fmt: skip
    assert main([str(copy.path), "--data", str(other), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["examples"] == 5


def test_a_set_of_another_kind_is_refused(small_bundle: Bundle, capsys: Capture) -> None:
    line = refusal(main, [small_bundle.path, "--data", "mnist"], capsys)
    assert "mnist is not of the run's specification; expected timesteps 12, got 28" in line
    assert "nowhere.npz: cannot be read" in refusal(
        main, [small_bundle.path, "--data", "nowhere.npz"], capsys
    )


def test_a_test_split_of_one_example_is_enough(case: Case) -> None:
    report = replace(case, test=case.test.take(slice(1))).verify()
    assert report.failures() == []
    assert len(table(report).splitlines()) == 1 + len(ASKED)
