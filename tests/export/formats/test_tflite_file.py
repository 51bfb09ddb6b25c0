"""What a `.tflite` file holds is read, and changed, without changing what it computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from networks import SPEC, random_network, raw_input

from export.formats import tflite
from export.formats.tf_function import inference_function
from export.formats.tflite_file import (
    Stored,
    _write,
    compact,
    metadata,
    operators,
    store_matrices,
    variables,
    with_metadata,
)  # fmt: skip
from export.network import Network
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.startup import stderr


def converted(network: Network, *, unroll: bool) -> bytes:
    """As TensorFlow's converter leaves it."""
    module = tf.Module()
    module.serving_default = inference_function(network, unroll=unroll)
    concrete = module.serving_default.get_concrete_function()
    with stderr.muted():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        result: bytes = converter.convert()
    return result


def answer(model: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model)
    result: np.ndarray = interpreter.get_signature_runner()(sequence=x)["probabilities"]
    return result


def tree(model: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromPackedBuf(model, 0)


# --- compact ---
@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_a_compact_model_is_smaller_and_the_same_to_the_bit(cell: Cell, unroll: bool) -> None:
    model = converted(random_network(cell), unroll=unroll)
    small = compact(model)
    assert len(small) < 0.9 * len(model)
    assert operators(small) == operators(model)
    for batch in (1, 7, 64):
        np.testing.assert_array_equal(
            answer(small, raw_input(batch)), answer(model, raw_input(batch))
        )
    before, after = (
        Interpreter(model_content=each).get_signature_list() for each in (model, small)
    )
    assert after == before


def test_the_ends_of_a_compact_model_have_the_names_of_the_signature() -> None:
    interpreter = Interpreter(model_content=compact(converted(random_network("gru"), unroll=True)))
    (sequence,), (probabilities,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    assert (sequence["name"], probabilities["name"]) == ("sequence", "probabilities")
    assert sequence["shape_signature"].tolist() == [-1, SPEC.longest, SPEC.features]
    assert probabilities["shape_signature"].tolist() == [-1, SPEC.classes]


def test_no_buffer_is_kept_twice_and_compacting_again_changes_nothing() -> None:
    small = compact(converted(random_network("lstm"), unroll=True))
    contents = [bytes(b.data) if b.data is not None else b"" for b in tree(small).buffers]
    assert len(contents) == len(set(contents))
    assert contents[0] == b""
    assert compact(small) == small


# --- metadata ---
READ_METADATA = """
import json, sys
from pathlib import Path
from export.formats.tflite_file import metadata
entries = metadata(Path(sys.argv[1]).read_bytes())
loaded = [name for name in ("tensorflow", "keras") if name in sys.modules]
print(json.dumps([sorted(entries), entries["labels"].decode(), entries["spec"].decode(), loaded]))
"""


@pytest.mark.parametrize("write", [tflite.write, tflite.write_float16])
def test_labels_and_specification_are_read_without_tensorflow(
    write: Callable[[Network, Path], object], tmp_path: Path
) -> None:
    write(random_network("gru"), tmp_path / "model.tflite")
    done = subprocess.run(
        [sys.executable, "-c", READ_METADATA, str(tmp_path / "model.tflite")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, labels, spec, loaded = json.loads(done.stdout)
    assert names == ["labels", "model", "signatures", "spec"]
    assert tuple(json.loads(labels)) == SPEC.labels
    assert SequenceSpec.from_json(spec) == SPEC
    assert loaded == []


def test_metadata_makes_the_round_trip_and_replaces_what_was_there() -> None:
    model = compact(converted(random_network("simple_rnn"), unroll=True))
    assert metadata(model) == {}
    first = with_metadata(model, {"old": b"gone"})
    entries = {"text": "läuft 歩く".encode(), "bytes": bytes(range(256))}
    second = with_metadata(first, entries)
    assert metadata(second) == entries
    np.testing.assert_array_equal(answer(second, raw_input(7)), answer(model, raw_input(7)))


# --- stored matrices ---
def weights(model: bytes) -> list[tuple[int, int]]:
    """The type and the number of values, as stored, of the matrix of each product."""
    root = tree(model)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    found = []
    for graph in root.subgraphs:
        made = {operator.outputs[0]: operator for operator in graph.operators}
        for operator in graph.operators:
            if names[root.operatorCodes[operator.opcodeIndex].builtinCode] == "FULLY_CONNECTED":
                index = operator.inputs[1]
                if index in made:
                    code = root.operatorCodes[made[index].opcodeIndex].builtinCode
                    assert names[code] == "DEQUANTIZE"
                    index = made[index].inputs[0]
                tensor = graph.tensors[index]
                found.append((tensor.type, len(root.buffers[tensor.buffer].data)))
    return sorted(found)


def matrices_in_float32(model: bytes) -> list[list[int]]:
    root = tree(model)
    return [
        list(tensor.shape)
        for graph in root.subgraphs
        for tensor in graph.tensors
        if tensor.type == schema.TensorType.FLOAT32
        and root.buffers[tensor.buffer].data is not None
        and sum(size > 1 for size in tensor.shape) > 1
    ]


def values_of(network: Network) -> list[int]:
    return sorted(m.size for name, m in network.arrays.items() if name.endswith("kernel"))


@pytest.mark.parametrize("cell", CELLS)
def test_the_file_really_holds_weights_of_one_or_two_bytes(cell: Cell, tmp_path: Path) -> None:
    network = random_network(cell)
    sizes = values_of(network)
    tflite.write_int8(network, tmp_path / "int8", raw_input(50))
    tflite.write_float16(network, tmp_path / "float16")
    int8, float16 = ((tmp_path / kind).read_bytes() for kind in ("int8", "float16"))
    assert weights(int8) == [(schema.TensorType.INT8, size) for size in sizes]
    assert weights(float16) == [(schema.TensorType.FLOAT16, 2 * size) for size in sizes]
    # Nor are they there a second time.
    assert matrices_in_float32(int8) == matrices_in_float32(float16) == []


@pytest.mark.parametrize("unroll", [True, False])
def test_a_matrix_is_stored_once_however_often_it_is_used(unroll: bool) -> None:
    network = random_network("simple_rnn")
    model = compact(converted(network, unroll=unroll))
    asked = []

    def store(matrix: np.ndarray) -> Stored:
        asked.append(matrix)
        return Stored(matrix.astype(np.float16))

    half = store_matrices(model, store)
    assert sorted(matrix.size for matrix in asked) == values_of(network)
    # (outputs, inputs), the layout of TFLite
    assert {matrix.shape for matrix in asked} == {(5, 3), (5, 5), (4, 5)}
    assert operators(half)["DEQUANTIZE"] == 3
    # float16 has 11 bits: 1e-4 seen.
    np.testing.assert_allclose(
        answer(half, raw_input(9)), answer(model, raw_input(9)), rtol=0, atol=5e-4
    )


def test_each_row_of_int8_is_restored_with_its_own_scale() -> None:
    """With that of another row, one of them would be a thousand times as large, or as small."""
    network = random_network("simple_rnn")
    network.dense_kernel[:, 0] *= 1e-3
    model = compact(converted(network, unroll=False))

    def store(matrix: np.ndarray) -> Stored:
        scale = (np.abs(matrix).max(axis=1) / 127).astype(np.float32)
        return Stored(np.rint(matrix / scale[:, None]).astype(np.int8), scale)

    got = answer(store_matrices(model, store), raw_input(60))
    # 8 bits a weight: 1e-3 seen.
    np.testing.assert_allclose(got, answer(model, raw_input(60)), rtol=0, atol=5e-3)


# --- what is in a model ---
def test_operators_are_counted_by_name() -> None:
    found = operators(compact(converted(random_network("lstm"), unroll=True)))
    assert found["FULLY_CONNECTED"] == SPEC.longest + 1  # the input at once, then the dense layer
    assert found["TANH"] == 2 * SPEC.longest
    assert found["SOFTMAX"] == 1


def test_operators_of_tensorflow_are_called_custom() -> None:
    cholesky = tf.function(tf.linalg.cholesky).get_concrete_function(tf.TensorSpec((3, 3)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([cholesky], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    assert operators(converter.convert())["CUSTOM FlexCholesky"] == 1


class Counter(tf.Module):
    """Counts its calls, which no classifier should."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0, name="calls")

    @tf.function(input_signature=[tf.TensorSpec(())])  # type: ignore[untyped-decorator]
    def count(self, x: tf.Tensor) -> tf.Tensor:
        self.calls.assign_add(1.0)
        return x + self.calls


def test_a_variable_of_tensorflow_is_found() -> None:
    counter = Counter()
    concrete = counter.count.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], counter)
    converter.experimental_enable_resource_variables = True
    model = converter.convert()
    assert variables(model) == ["calls"]
    assert variables(compact(model)) == ["calls"]


def test_a_tensor_that_keeps_its_value_is_found() -> None:
    root = tree(converted(random_network("gru"), unroll=True))
    tensor = root.subgraphs[0].tensors[3]
    tensor.isVariable, tensor.name = True, b"state"
    assert variables(_write(root)) == ["state"]
