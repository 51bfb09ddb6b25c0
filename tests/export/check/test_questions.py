"""Where lengths vary: what is asked about them, and that no format that misreads them passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from extras import WITH_TORCH
from networks import (
    LONG_VARYING,
    SPEC,
    STACKS,
    VARYING,
    in_keras,
    random_network,
    raw_input,
    some_lengths,
    with_array,
    with_padding,
)
from onnx import helper, numpy_helper
from remembering import Remembering

from export import oracle
from export.check.compare import Report
from export.check.questions import MIXED, Family, families
from export.formats import onnx_graph
from export.formats.format import Options, Runtime
from export.formats.registry import FORMATS, file_of
from export.network import LENGTHS, Network
from export.runtimes import open_file
from export.verify import verify
from rnn_tf.data import SequenceSpec, Split
from rnn_tf.data.spec import valid_steps
from rnn_tf.model.cells import Cell

EXAMPLES = 60
OF_LENGTHS = [
    "each alone", "padding of zeros", "padding of noise", "padding of infinity", "padding of NaN",
    "lengths 1 and longest",
]  # fmt: skip


def network_of(cell: Cell, spec: SequenceSpec = VARYING, **stack: Any) -> Network:
    """One in which every weight matters."""
    network = random_network(cell, spec=spec, **stack)
    for name, array in network.arrays.items():
        network = with_array(network, name, 3 * array)
    return network


def split_of(network: Network) -> Split:
    x = raw_input(EXAMPLES, network.spec)
    lengths = some_lengths(EXAMPLES, network.spec)
    x = with_padding(x, lengths, 0.0)
    return Split(x, oracle.probabilities(network, x, lengths).argmax(axis=1), lengths)


Verify = Callable[..., Report]


@pytest.fixture(scope="module")
def held_against_keras(tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """`verify` of a network's runtimes, by name. It is slow to ask Keras: once for each network."""
    references: dict[str, Runtime] = {}

    def in_keras_once(network: Network) -> Runtime:
        if network.fingerprint not in references:
            path = tmp_path_factory.mktemp("keras") / file_of("keras")
            in_keras(network).save(path)
            runtime = open_file("keras", path, network.spec)
            references[network.fingerprint] = Remembering(runtime)
        return references[network.fingerprint]

    def held(network: Network, **runtimes: Runtime) -> Report:
        opened = {name: (lambda runtime=runtime: runtime) for name, runtime in runtimes.items()}
        report = verify(opened, in_keras_once(network), network, split_of(network))
        assert report.failures("keras") == []
        return report

    return held


def in_onnx(model: onnx.ModelProto, network: Network, folder: Path) -> Runtime:
    onnx.save(model, folder / "model.onnx")
    return open_file("onnx", folder / "model.onnx", network.spec)


# --- what is asked ---
@pytest.fixture(scope="module")
def asked() -> dict[str, Family]:
    network = network_of("gru")
    return {family.name: family for family in families(split_of(network), network)}


def test_models_of_one_length_are_asked_nothing_more(asked: dict[str, Family]) -> None:
    network = random_network("gru", spec=SPEC)
    x = raw_input(9)
    fixed = families(Split(x, np.zeros(9, int)), network)
    names = [family.name for family in fixed]
    assert [name for name in asked if name not in OF_LENGTHS] == names
    assert all(family.lengths is None and len(family.inputs) == 1 for family in fixed)
    assert list(asked)[-len(OF_LENGTHS) :] == OF_LENGTHS


def test_every_question_has_lengths_that_fit(asked: dict[str, Family]) -> None:
    for family in asked.values():
        assert family.lengths is not None
        assert family.lengths.shape == (len(family.x),) == (sum(family.batches),)
        assert (family.lengths.dtype, family.x.dtype) == (np.int32, np.float32)
        assert family.lengths.min() >= 1
        assert family.lengths.max() <= VARYING.longest
    for name in ("uniform noise", "1000000 times max", "lengths 1 and longest"):
        lengths = asked[name].lengths
        assert lengths is not None
        assert {1, VARYING.longest} <= set(lengths.tolist()), name


def test_each_sequence_is_asked_alone_and_in_random_company(asked: dict[str, Family]) -> None:
    test = split_of(network_of("gru"))
    alone = asked["each alone"]
    assert set(alone.batches) == {1}
    assert alone.asked_before is not None
    np.testing.assert_array_equal(alone.asked_before, np.arange(EXAMPLES))
    orders = []
    for name in OF_LENGTHS[1:-1]:
        family = asked[name]
        assert family.asked_before is not None
        assert sorted(family.asked_before) == list(range(EXAMPLES))
        assert set(family.batches) <= {*MIXED, *range(64)}
        orders.append(tuple(family.asked_before))
        same = test.take(family.asked_before)
        np.testing.assert_array_equal(family.lengths, same.lengths)
        np.testing.assert_array_equal(family.x[same.valid], same.x[same.valid])
    assert len(set(orders)) == len(orders)


def test_the_padding_is_what_its_name_says(asked: dict[str, Family]) -> None:
    def padding(name: str) -> np.ndarray:
        family = asked[f"padding of {name}"]
        assert family.lengths is not None
        values: np.ndarray = family.x[~valid_steps(family.lengths, VARYING.longest)]
        assert values.size
        return values

    assert not padding("zeros").any()
    assert np.isposinf(padding("infinity")).all()
    assert np.isnan(padding("NaN")).all()
    noise = padding("noise")
    low, high = (of(split_of(network_of("gru")).x) for of in (np.min, np.max))
    assert low <= noise.min() < 0 < noise.max() <= high
    assert len(np.unique(noise)) > noise.size / 2


def test_the_range_of_the_data_is_that_of_its_steps() -> None:
    """Zeros in the padding are not data: a pressure is never zero."""
    network = network_of("gru")
    x, lengths = raw_input(EXAMPLES, VARYING) + 1000, some_lengths(EXAMPLES, VARYING)
    x = with_padding(x, lengths, 0.0)
    test = Split(x, np.zeros(EXAMPLES, int), lengths)
    noise = next(each for each in families(test, network) if each.name == "uniform noise")
    assert noise.x.min() > 900


def test_a_long_split_is_asked_alone_in_part() -> None:
    network = network_of("gru", LONG_VARYING)
    lengths = some_lengths(1000, LONG_VARYING)
    test = Split(raw_input(1000, LONG_VARYING), np.zeros(1000, int), lengths)
    alone = next(each for each in families(test, network) if each.name == "each alone")
    assert len(alone.x) == 28_000 // LONG_VARYING.longest
    assert alone.asked_before is not None
    assert (alone.asked_before[0], alone.asked_before[-1]) == (0, 999)


# --- what is right passes ---
NAMES = ["saved_model", "tflite", "tflite_int8", "onnx", *(["torch"] if WITH_TORCH else [])]


@pytest.mark.parametrize(("cell", "stack"), [("simple_rnn", "2 layers"), ("lstm", "both ways")])
def test_every_format_of_the_same_weights_passes(
    cell: Cell, stack: str, tmp_path: Path, held_against_keras: Verify
) -> None:
    network = network_of(cell, **STACKS[stack])
    test = split_of(network)
    runtimes = {}
    for name in NAMES:
        FORMATS[name].write(network, tmp_path / file_of(name), Options(test.x, test.lengths))
        runtimes[name] = open_file(name, tmp_path / file_of(name), VARYING)
    report = held_against_keras(network, **runtimes)
    assert report.failures() == []
    assert max(row.max_difference for row in report.rows if row.format != "tflite_int8") <= 1e-5
    rows = Counter(row.format for row in report.rows)
    assert set(rows.values()) == {18}
    assert set(OF_LENGTHS) <= {row.family for row in report.rows}


# --- what misreads lengths does not ---
def lengths_by(operator: str, value: int | None) -> Callable[[onnx.ModelProto], None]:
    """Lengths that another node has changed before the graph reads them."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        (reader,) = [node for node in graph.node if LENGTHS in node.input]
        reader.input[list(reader.input).index(LENGTHS)] = "other_lengths"
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(np.array([value], np.int32), "change"))
            node = helper.make_node(operator, [LENGTHS, "change"], ["other_lengths"])
        else:
            for name, number in (("first", -1), ("last", -(2**31)), ("by", -1)):
                graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
            graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
            inputs = [LENGTHS, "first", "last", "axis", "by"]
            node = helper.make_node(operator, inputs, ["other_lengths"])
        graph.node.insert(0, node)

    return change


def graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """A graph and all that are inside its nodes."""
    inner = [
        found
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for found in graphs(attribute.g)
    ]
    return [graph, *inner]


def replace_selections(
    model: onnx.ModelProto, change: Callable[[list[str]], list[onnx.NodeProto]]
) -> None:
    """Put what `change` makes of its inputs and its output for each choice between two states."""
    changed = 0
    for graph in graphs(model.graph):
        for i, node in reversed(list(enumerate(graph.node))):
            if node.op_type == "Where":
                made = change([*node.input, *node.output])
                del graph.node[i]
                for each in reversed(made):
                    graph.node.insert(i, each)
                changed += 1
    assert changed


def goes_on(ends: list[str]) -> list[onnx.NodeProto]:
    """A sequence that has ended reads its padding."""
    return [helper.make_node("Identity", [ends[1]], [ends[3]])]


def multiplies(ends: list[str]) -> list[onnx.NodeProto]:
    """As a mask is often applied, and as tf2onnx does it: NaN times zero is NaN."""
    valid, new, old, state = ends
    return [
        helper.make_node("Cast", [valid], [f"{state}_m"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", [new, old], [f"{state}_change"]),
        helper.make_node("Mul", [f"{state}_change", f"{state}_m"], [f"{state}_product"]),
        helper.make_node("Add", [old, f"{state}_product"], [state]),
    ]


def begins_at_the_padding(model: onnx.ModelProto) -> None:
    """The direction that reads backward starts with the last step of the batch."""
    changed = 0
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.op_type != "ReverseSequence":
                continue
            values = {"r_last": [-1], "r_end": [-(2**31)], "r_time": [0]}
            if not changed:
                for name, value in values.items():
                    model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
            frames = node.input[0]
            node.op_type = "Slice"
            node.ClearField("input")
            node.ClearField("attribute")
            node.input.extend([frames, "r_last", "r_end", "r_time", "r_last"])
            changed += 1
    assert changed


WRONG: dict[str, Callable[[onnx.ModelProto], None]] = {
    "mask dropped": lengths_by("Max", VARYING.longest),
    "one more": lengths_by("Add", 1),
    "one less": lengths_by("Sub", 1),
    "of another example": lengths_by("Slice", None),
    "padding is read": lambda model: replace_selections(model, goes_on),
}


@pytest.mark.parametrize(
    ("cell", "activation"), [("simple_rnn", "elu"), ("gru", "tanh"), ("lstm", "elu")]
)
@pytest.mark.parametrize("wrong", WRONG)
def test_lengths_that_are_misread_are_caught(
    wrong: str, cell: Cell, activation: str, tmp_path: Path, held_against_keras: Verify
) -> None:
    network = network_of(cell, activation=activation)
    model = onnx_graph.build(network, 17)
    WRONG[wrong](model)
    report = held_against_keras(network, onnx=in_onnx(model, network, tmp_path))
    found = report.failures("onnx")
    assert any(line.startswith("onnx, test split: |dp| from the oracle") for line in found)


def test_a_backward_direction_that_begins_at_the_padding_is_caught(
    tmp_path: Path, held_against_keras: Verify
) -> None:
    network = network_of("simple_rnn", bidirectional=True)
    model = onnx_graph.build(network, 17)
    begins_at_the_padding(model)
    report = held_against_keras(network, onnx=in_onnx(model, network, tmp_path))
    found = report.failures("onnx")
    assert any(line.startswith("onnx, test split: |dp| from the oracle") for line in found)
    # Alone, it has no padding.
    assert not any(line.startswith("onnx, each alone: |dp| from the oracle") for line in found)


def test_a_product_with_zero_is_caught_by_infinity_and_nan(
    tmp_path: Path, held_against_keras: Verify
) -> None:
    network = network_of("simple_rnn", activation="elu")
    model = onnx_graph.build(network, 17)
    replace_selections(model, multiplies)
    report = held_against_keras(network, onnx=in_onnx(model, network, tmp_path))
    wrong = {row.family for row in report.rows if row.format == "onnx" and row.failures}
    assert wrong == {"padding of infinity", "padding of NaN"}


@pytest.mark.parametrize("name", ["tflite", "tflite_int8", "saved_model"])
def test_so_it_is_in_what_tensorflow_makes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_against_keras: Verify
) -> None:
    """With its steps written out, and in int8 in a loop."""
    import tensorflow as tf

    network = network_of("simple_rnn", bidirectional=True)
    test = split_of(network)
    monkeypatch.setattr(tf, "reverse_sequence", lambda x, *_, **__: tf.reverse(x, axis=[1]))
    path = tmp_path / file_of(name)
    FORMATS[name].write(network, path, Options(test.x, test.lengths))
    report = held_against_keras(network, **{name: open_file(name, path, VARYING)})
    assert any(line.startswith(f"{name}, test split: ") for line in report.failures(name))
