"""The ONNX graph is the oracle's function at every batch, in operators that any runtime has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import (
    FAR_FROM_ZERO,
    LENGTHS,
    LONG,
    SPEC,
    STACKS,
    UNITS_OF_MEASURE,
    changed,
    of_length,
    one_number_network,
    random_network,
    raw_input,
    stacked_network,
)

from export import oracle
from export.formats import onnx as export_onnx
from export.formats import onnx_graph
from export.formats.format import NEWEST_OPSET, OLDEST_OPSET, OPSET
from export.formats.onnx import OnnxRuntime, by_tf2onnx, check_opset, write
from export.formats.onnx_graph import MOST_IN_OPERATOR, MOST_IN_SINGLE
from export.formats.onnx_nodes import SINGLE
from export.formats.tf_function import MOST_UNROLLED
from export.network import INPUT, OUTPUT, Network
from export.signatures import classify
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import CELLS, Cell

# float32 rounding with states below 10, in all cells and activations: 9e-8 seen. A swapped gate or
# a constant wrong in its third digit gives 1e-5 to 1e-1.
ROUNDING = 1e-6
# What tf2onnx writes out takes it its time.
BRIEF = of_length(3)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = session(model).run([OUTPUT], {INPUT: x})[0]
    return result


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of all graphs inside."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def kinds(network: Network) -> set[str]:
    return {node.op_type for node in nodes(onnx_graph.build(network, OPSET).graph)}


def largest_difference(network: Network, batches: tuple[int, ...], opset: int = OPSET) -> float:
    """From the oracle, of one session asked with one batch after the other."""
    model = session(onnx_graph.build(network, opset))
    x = raw_input(max(batches), network.spec)
    exact = oracle.probabilities(network, x)
    answers = [model.run([OUTPUT], {INPUT: x[:batch]})[0] for batch in batches]
    assert [len(each) for each in answers] == list(batches)
    return max(float(np.abs(each - exact[: len(each)]).max()) for each in answers)


# --- values ---
@pytest.mark.parametrize("spec", [SPEC, LONG], ids=["short", "long"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_activation_gives_what_the_oracle_gives_on_both_sides_of_the_switch(
    cell: Cell, spec: SequenceSpec
) -> None:
    few = MOST_IN_OPERATOR[cell]
    differences = {
        name: largest_difference(random_network(cell, name, spec), (1, few, few + 1, 2))
        for name in ACTIVATIONS
    }
    # Not `>`: NaN is above no limit.
    assert {name: d for name, d in differences.items() if not d <= ROUNDING} == {}


@pytest.mark.parametrize(
    "gates",
    [
        "celu", "elu", "gelu", "hard_sigmoid", "leaky_relu", "relu", "sigmoid", "softsign",
        "sparse_sigmoid", "tanh",
    ],
)  # fmt: skip
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_may_have_another_activation_too(cell: Cell, gates: str) -> None:
    network = changed(random_network(cell, "elu"), recurrent_activation=gates)
    few = MOST_IN_OPERATOR[cell]
    assert largest_difference(network, (few, few + 1)) <= ROUNDING


@pytest.mark.parametrize("timesteps", [1, 2, MOST_UNROLLED, MOST_UNROLLED + 1])
@pytest.mark.parametrize("cell", CELLS)
def test_a_single_number_a_single_unit_any_length(cell: Cell, timesteps: int) -> None:
    spec = SequenceSpec(timesteps=timesteps, features=1, labels=("a", "b"))
    for activation in ("tanh", "gelu", "elu"):  # in an operator or fused, and written out
        network = random_network(cell, activation, spec, units=1)
        assert largest_difference(network, (1, 60)) <= ROUNDING


@pytest.mark.parametrize("timesteps", [SPEC.longest, LENGTHS[1]])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_stacks_give_what_the_oracle_gives_on_both_sides_of_the_switch(
    cell: Cell, stack: str, timesteps: int
) -> None:
    few = MOST_IN_OPERATOR[cell]
    batches = (1, few, few + 1, 2)
    network = stacked_network(cell, stack, timesteps)
    assert largest_difference(network, batches) <= ROUNDING
    other = {"tanh": "elu", "elu": "tanh"}[network.activation]
    network = random_network(cell, spec=network.spec, **{**STACKS[stack], "activation": other})
    assert largest_difference(network, batches) <= ROUNDING


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_features_may_be_of_different_size(cell: Cell, stack: str) -> None:
    few = MOST_IN_OPERATOR[cell]
    for timesteps in (SPEC.longest, LENGTHS[1]):
        network = stacked_network(cell, stack, timesteps, UNITS_OF_MEASURE)
        assert largest_difference(network, (1, few, few + 1)) <= FAR_FROM_ZERO


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"exponential"}))
def test_activations_hold_where_float32_ends(name: str) -> None:
    """Softplus by its textbook formula is infinite from 89 on; batches 1 and 9 are two forms."""
    x = np.array([89, 100, 1e3, 1e4, -89, -100, -1e3, -1e4, 0], np.float32).reshape(-1, 1, 1)
    network = one_number_network(name, slope=1e-4)
    model, exact = onnx_graph.build(network, OPSET), oracle.probabilities(network, x)
    alone = np.concatenate([answer(model, one[None]) for one in x])
    np.testing.assert_allclose(answer(model, x), exact, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(alone, exact, rtol=0, atol=ROUNDING)


def test_nothing_cancels_below_zero() -> None:
    """Squareplus of -1,000 is 0.001; in float32, the sum of its formula is 0."""
    x = -np.logspace(0, 3, 20, dtype=np.float32).reshape(-1, 1, 1)
    network = one_number_network("squareplus", slope=1e3)
    exact = oracle.probabilities(network, x)
    assert exact[-1, 0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    got = answer(onnx_graph.build(network, OPSET), x)
    np.testing.assert_allclose(got, exact, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("activation", SINGLE)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("spec", [SPEC, LONG], ids=["short", "long"])
def test_one_node_for_few_sequences_is_the_function_of_several_for_many(
    cell: Cell, activation: str, spec: SequenceSpec
) -> None:
    network = random_network(cell, activation, spec)
    few = MOST_IN_SINGLE // network.units
    assert largest_difference(network, (1, few, few + 1, 2)) <= ROUNDING


# --- forms ---
@pytest.mark.parametrize(
    ("network", "forms"),
    [
        (random_network("simple_rnn", "tanh"), set()),  # fused into its product at any batch
        # An operator with it is misread by engines; one node for few sequences, several for many.
        (random_network("simple_rnn", "elu"), {"If"}),
        (random_network("simple_rnn", "elu", units=MOST_IN_SINGLE + 1), set()),
        (random_network("simple_rnn", "gelu"), set()),  # an operator does not have it
        (random_network("simple_rnn", "tanh", LONG), {"If", "RNN", "Scan"}),
        (random_network("lstm", "tanh"), {"If", "LSTM"}),
        (random_network("lstm", "tanh", LONG), {"If", "LSTM", "Scan"}),
        (random_network("gru", "mish", LONG), {"Scan"}),
        (random_network("gru", "tanh"), {"If", "GRU"}),
        (random_network("simple_rnn", "tanh", layers=2), {"If", "RNN"}),
        (random_network("simple_rnn", "elu", LONG, layers=2), {"If", "Scan"}),
        (random_network("simple_rnn", "tanh", bidirectional=True), {"If", "RNN"}),
        (
            random_network("lstm", "tanh", LONG, layers=3, bidirectional=True),
            {"If", "LSTM", "Scan"},
        ),
        (changed(random_network("gru", layers=2), 1, activation="elu"), {"If"}),
    ],
)
def test_the_form_is_chosen_by_cell_activation_length_and_layers(
    network: Network, forms: set[str]
) -> None:
    assert kinds(network) & {"If", "RNN", "LSTM", "GRU", "Scan", "Loop"} == forms


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_operator_has_nothing_to_say_of_its_activations(cell: Cell, name: str) -> None:
    """Engines are known that ignore what it says, and compute the defaults."""
    for spec in (SPEC, LONG):
        graph = onnx_graph.build(random_network(cell, name, spec, layers=2), OPSET).graph
        for node in nodes(graph):
            said = {attribute.name for attribute in node.attribute}
            assert not said & {"activations", "activation_alpha", "activation_beta", "clip"}


def test_a_long_sequence_makes_no_larger_graph() -> None:
    sizes = [
        onnx_graph.build(random_network("gru", spec=of_length(steps)), OPSET).ByteSize()
        for steps in (MOST_UNROLLED, MOST_UNROLLED + 1, 10_000)
    ]
    # The number of steps itself takes a byte or two more.
    assert sizes[2] - sizes[1] < 16
    assert sizes[1] < sizes[0] / 2


EMPTY_BATCH = """
import sys
import numpy, onnxruntime
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    steps, features = session.get_inputs()[0].shape[1:]
    empty = numpy.zeros((0, steps, features), numpy.float32)
    print(session.run(None, {"sequence": empty})[0].shape)
"""


def test_an_empty_batch_does_not_end_the_process(tmp_path: Path) -> None:
    """In one of its own: onnxruntime's LSTM and GRU divide by the batch."""
    paths = []
    for cell in CELLS:
        for spec in (SPEC, LONG):
            networks = {name: random_network(cell, name, spec) for name in ("tanh", "elu", "gelu")}
            networks["stack"] = random_network(cell, spec=spec, layers=2, bidirectional=True)
            for name, network in networks.items():
                path = tmp_path / f"{cell}-{spec.longest}-{name}.onnx"
                onnx.save(onnx_graph.build(network, OPSET), path)
                paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", EMPTY_BATCH, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["(0, 4)"] * len(paths)


# --- the file ---
@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OPSET + 1))
def test_every_opset_builds_checks_and_runs(opset: int) -> None:
    for cell in CELLS:
        for spec in (SPEC, LONG):
            model = onnx_graph.build(random_network(cell, "elu", spec), opset)
            onnx.checker.check_model(model, full_check=True)
            assert [(each.domain, each.version) for each in model.opset_import] == [("", opset)]
            assert largest_difference(random_network(cell, "elu", spec), (1, 60), opset) <= ROUNDING
            stack = random_network(cell, spec=spec, layers=2, bidirectional=True)
            onnx.checker.check_model(onnx_graph.build(stack, opset), full_check=True)
            assert largest_difference(stack, (1, 60), opset) <= ROUNDING


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_standard_in_every_opset(name: str, opset: int) -> None:
    for spec in (SPEC, LONG):
        network = random_network("lstm", name, spec)
        model = onnx_graph.build(network, opset)
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in nodes(model.graph)} == {""}
        assert largest_difference(network, (1, 60), opset) <= ROUNDING


@pytest.mark.parametrize("opset", [OLDEST_OPSET - 1, NEWEST_OPSET + 1, 0, -1])
def test_another_opset_is_refused(opset: int) -> None:
    with pytest.raises(InputError, match=rf"^unknown opset; expected 16 to 21, got {opset}$"):
        check_opset(opset)
    check_opset(OPSET)


@pytest.mark.parametrize("cell", CELLS)
def test_the_file_says_what_it_takes_and_gives(cell: Cell, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    x = raw_input(60)
    details = write(random_network(cell), path, x)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert details["opset"] == model.opset_import[0].version == OPSET
    # Of 2022 and 2023: what is in use today loads it.
    assert details["ir_version"] == model.ir_version <= 10
    assert details["max_difference_from_tf2onnx"] <= ROUNDING
    loaded = session(model)
    (sequence,), (probabilities,) = loaded.get_inputs(), loaded.get_outputs()
    assert (sequence.name, sequence.type, sequence.shape) == (
        INPUT, "tensor(float)", ["batch", SPEC.longest, SPEC.features],
    )  # fmt: skip
    assert (probabilities.name, probabilities.type, probabilities.shape) == (
        OUTPUT, "tensor(float)", ["batch", SPEC.classes],
    )  # fmt: skip
    expected = oracle.probabilities(random_network(cell), x)
    got = OnnxRuntime(path, SPEC).predict(x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING)


def test_labels_and_specification_travel_inside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write(random_network("gru"), path, raw_input(2))
    metadata = session(onnx.load(path)).get_modelmeta()
    assert metadata.producer_name == "rnn_tf"
    found = metadata.custom_metadata_map
    assert tuple(json.loads(found["labels"])) == SPEC.labels
    assert SequenceSpec.from_json(found["spec"]) == SPEC
    (signature,) = json.loads(found["signatures"])
    assert signature == classify(SPEC).to_dict()


# --- the check against tf2onnx ---
@pytest.mark.parametrize("spec", [SPEC, LONG], ids=["short", "long"])
@pytest.mark.parametrize("cell", CELLS)
def test_tf2onnx_makes_the_same_function(cell: Cell, spec: SequenceSpec) -> None:
    assert_tf2onnx_makes_the_same_function(random_network(cell, spec=spec))


@pytest.mark.parametrize(
    ("cell", "stack", "timesteps"),
    [
        ("simple_rnn", "both ways", LENGTHS[1]),
        ("lstm", "2 layers", BRIEF.longest),
        ("gru", "3 layers both ways", BRIEF.longest),
    ],
)
def test_tf2onnx_makes_the_same_function_of_a_stack(cell: Cell, stack: str, timesteps: int) -> None:
    assert_tf2onnx_makes_the_same_function(stacked_network(cell, stack, timesteps))


def assert_tf2onnx_makes_the_same_function(network: Network) -> None:
    x = raw_input(60, network.spec)
    got = answer(by_tf2onnx(network), x)
    np.testing.assert_allclose(got, oracle.probabilities(network, x), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_file_is_written_with_every_activation(name: str, tmp_path: Path) -> None:
    """Both graphs can be made, and agree."""
    assert_is_written(random_network("simple_rnn", name, BRIEF), tmp_path)


@pytest.mark.parametrize(
    ("cell", "spec", "name"),
    [("lstm", SPEC, "hard_sigmoid"), ("gru", SPEC, "softsign"), ("gru", LONG, "hard_sigmoid")],
    ids=["lstm", "gru", "gru in a loop"],
)
def test_so_it_is_with_other_gates(
    cell: Cell, spec: SequenceSpec, name: str, tmp_path: Path
) -> None:
    network = random_network(cell, name, spec)
    assert_is_written(changed(network, recurrent_activation=name), tmp_path)


def assert_is_written(network: Network, folder: Path) -> None:
    details = write(network, folder / "model.onnx", raw_input(20, network.spec))
    assert details["max_difference_from_tf2onnx"] <= details["limit"] <= 1e-5


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
def test_a_file_is_written_in_every_opset(opset: int, tmp_path: Path) -> None:
    details = write(random_network("gru", "gelu"), tmp_path / "model.onnx", raw_input(5), opset)
    assert details["opset"] == opset


def test_two_graphs_that_differ_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network("lstm")
    other = replace(network, dense_bias=network.dense_bias + np.array([1e-3, 0, 0, 0], np.float32))
    # The real converter, on weights that are a little different.
    monkeypatch.setattr(export_onnx, "by_tf2onnx", lambda _: by_tf2onnx(other))
    with pytest.raises(CheckFailed, match=r"differs from that of tf2onnx by 0.000\d+, limit \S+$"):
        write(network, tmp_path / "model.onnx", raw_input(60))
    assert list(tmp_path.iterdir()) == []


def test_nan_is_not_taken_for_agreement(tmp_path: Path) -> None:
    x = raw_input(2)
    x[1, 2, 0] = np.nan
    with pytest.raises(CheckFailed, match=r"differs from that of tf2onnx by nan"):
        write(random_network("gru"), tmp_path / "model.onnx", x)
    assert list(tmp_path.iterdir()) == []
