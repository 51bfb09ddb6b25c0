"""What a `.tflite` file holds, and what can be changed in it: no TensorFlow is needed.

The format is the FlatBuffers schema of TFLite, whose reader and writer come with ai-edge-litert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATORS: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}


@dataclass(frozen=True)
class Stored:
    """How a matrix is stored: `values` (rows, columns), times `scale` (rows,) if there is one."""

    values: np.ndarray  # float16 or int8
    scale: np.ndarray | None = None


def operators(model: bytes) -> Counter[str]:
    """How often each operator is in a model; what is not builtin is called `CUSTOM <its name>`."""
    tree = _read(model)
    return Counter(
        _name(tree.operatorCodes[operator.opcodeIndex])
        for graph in tree.subgraphs
        for operator in graph.operators
    )


def variables(model: bytes) -> list[str]:
    """The names of what keeps its value between calls: tensors, and variables of TensorFlow."""
    tree = _read(model)
    tensors = [
        tensor.name for graph in tree.subgraphs for tensor in graph.tensors if tensor.isVariable
    ]
    resources = {
        operator.builtinOptions.sharedName
        for graph in tree.subgraphs
        for operator in graph.operators
        if isinstance(operator.builtinOptions, schema.VarHandleOptionsT)
    }
    return sorted((name or b"").decode() for name in [*tensors, *resources])


def compact(model: bytes) -> bytes:
    """The same model without what only the converter's authors need: a third less.

    Names of tensors inside, the converter's own metadata, buffers that are empty or twice there.
    The tensors of a signature get the names that the signature has for them.
    """
    tree = _read(model)
    tree.description, tree.metadata = None, []
    for graph in tree.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None
    for signature in tree.signatureDefs:
        graph = tree.subgraphs[signature.subgraphIndex]
        for end in (*signature.inputs, *signature.outputs):
            graph.tensors[end.tensorIndex].name = end.name
    _merge_buffers(tree)
    return _write(tree)


def store_matrices(model: bytes, store: Callable[[np.ndarray], Stored]) -> bytes:
    """Store the weights of every product as `store` says; they are restored when it is loaded.

    `store` is given float32 `(outputs, inputs)`, the layout of TFLite.
    """
    tree = _read(model)
    stored: dict[int, Stored] = {}  # by buffer: time steps that are written out share one
    dequantize = len(tree.operatorCodes)
    tree.operatorCodes.append(_operator_code(schema.BuiltinOperator.DEQUANTIZE, version=2))
    for graph in tree.subgraphs:
        restored: dict[int, int] = {}  # tensor as stored -> tensor in float32
        before = []
        for operator in graph.operators:
            if _name(tree.operatorCodes[operator.opcodeIndex]) != "FULLY_CONNECTED":
                continue
            index = int(operator.inputs[1])
            tensor = graph.tensors[index]
            buffer = tree.buffers[tensor.buffer]
            if index not in restored and buffer.data is not None and len(buffer.data):
                if tensor.buffer not in stored:
                    matrix = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
                    stored[tensor.buffer] = store(matrix)
                    values = stored[tensor.buffer].values
                    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
                _retype(tensor, stored[tensor.buffer])
                graph.tensors.append(_restored(tensor))
                restored[index] = len(graph.tensors) - 1
                before.append(_operator(dequantize, [index], [restored[index]]))
            operator.inputs = [restored.get(int(i), int(i)) for i in operator.inputs]
        graph.operators = before + graph.operators
    return _write(tree)


def with_metadata(model: bytes, entries: dict[str, bytes]) -> bytes:
    """The model with these named entries as its metadata."""
    tree = _read(model)
    tree.metadata = []
    for name, value in entries.items():
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer = name, len(tree.buffers)
        buffer.data = np.frombuffer(value, np.uint8)
        tree.metadata.append(entry)
        tree.buffers.append(buffer)
    return _write(tree)


def metadata(model: bytes) -> dict[str, bytes]:
    """The named entries of a model's metadata."""
    root = schema.Model.GetRootAs(model)
    entries = [root.Metadata(i) for i in range(root.MetadataLength())]
    return {
        entry.Name().decode(): root.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
        for entry in entries
    }


def _merge_buffers(tree: Any) -> None:
    """Keep one buffer of each content; buffer 0 is the empty one, by convention."""
    place: dict[bytes, int] = {b"": 0}
    kept = [tree.buffers[0]]
    for tensor in (tensor for graph in tree.subgraphs for tensor in graph.tensors):
        data = tree.buffers[tensor.buffer].data
        content = b"" if data is None else bytes(data)
        if content not in place:
            place[content] = len(kept)
            kept.append(tree.buffers[tensor.buffer])
        tensor.buffer = place[content]
    tree.buffers = kept


def _retype(tensor: Any, stored: Stored) -> None:
    if stored.scale is None:
        tensor.type = schema.TensorType.FLOAT16
        return
    tensor.type = schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = stored.scale
    tensor.quantization.zeroPoint = np.zeros(len(stored.scale), np.int64)
    tensor.quantization.quantizedDimension = 0


def _restored(tensor: Any) -> Any:
    """A tensor like this one in float32, without content."""
    copy = schema.TensorT()
    copy.shape, copy.type, copy.buffer = tensor.shape, schema.TensorType.FLOAT32, 0
    copy.hasRank = True
    return copy


def _operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    return operator


def _operator_code(builtin: int, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    return code


def _name(code: Any) -> str:
    if code.customCode:
        return f"CUSTOM {code.customCode.decode()}"
    # The older field is full at 127, from where on the newer one counts.
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _read(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(model, 0)


def _write(tree: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
