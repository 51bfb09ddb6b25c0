"""Every format, in the order in which a bundle has them. A new one is a new file and an entry."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from export.formats.format import FileRuntime, Format, Options, Step, StepRuntime
from export.network import Network
from rnn_tf.data.spec import SequenceSpec

# The trained model, rebuilt in float32: what the formats are compared with. Not a format.
REFERENCE = "model.keras"


class _Module:
    """A format's module, imported when something in it is first used."""

    def __init__(self, name: str) -> None:
        self.name = f"export.formats.{name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.name), name)


_saved_model, _tflite, _onnx, _pytorch = map(_Module, ("saved_model", "tflite", "onnx", "pytorch"))


def _open_tflite(path: Path, spec: SequenceSpec, threads: int | None) -> FileRuntime:
    runtime: FileRuntime = _tflite.LiteRuntime(path, spec, threads)
    return runtime


def _write_int8(network: Network, path: Path, options: Options) -> dict[str, Any]:
    details: dict[str, Any] = _tflite.write_int8(
        network, path, options.calibration, options.lengths
    )
    return details


def _open_tflite_step(path: Path, spec: SequenceSpec, threads: int | None) -> StepRuntime:
    runtime: StepRuntime = _tflite.LiteStep(path, spec, threads)
    return runtime


def _write_int8_step(network: Network, path: Path, options: Options) -> dict[str, Any]:
    details: dict[str, Any] = _tflite.write_int8_step(
        network, path, options.calibration, options.lengths
    )
    return details


TENSORFLOW = ("keras", "tensorflow")

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format(
            name="saved_model",
            file="saved_model",
            about="TensorFlow SavedModel, in the layout of TensorFlow Serving",
            packages=TENSORFLOW,
            write=lambda network, path, _: _saved_model.write(network, path),
            open=lambda path, spec, threads: _saved_model.SavedModelRuntime(path, spec, threads),
            readme=lambda manifest: _saved_model.readme(manifest),
            in_tensorflow=True,
            step=Step(
                file="saved_model",
                open=lambda path, spec, threads: _saved_model.SavedModelStep(path, spec, threads),
            ),
        ),
        Format(
            name="tflite",
            file="model.tflite",
            about="TFLite, float32, builtin operators only",
            packages=(*TENSORFLOW, "ai-edge-litert"),
            write=lambda network, path, _: _tflite.write(network, path),
            open=_open_tflite,
            readme=lambda manifest: _tflite.readme(manifest),
            step=Step(
                file="step.tflite",
                open=_open_tflite_step,
                write=lambda network, path, _: _tflite.write_step(network, path),
                steps=1,
            ),
        ),
        Format(
            name="tflite_int8",
            file="model.int8.tflite",
            about="TFLite with int8 weights",
            packages=(*TENSORFLOW, "ai-edge-litert"),
            write=_write_int8,
            open=_open_tflite,
            readme=lambda manifest: [],
            quantized=True,
            step=Step("step.int8.tflite", _open_tflite_step, _write_int8_step, steps=1),
        ),
        Format(
            name="tflite_float16",
            file="model.float16.tflite",
            about="TFLite with float16 weights",
            packages=(*TENSORFLOW, "ai-edge-litert"),
            write=lambda network, path, _: _tflite.write_float16(network, path),
            open=_open_tflite,
            readme=lambda manifest: [],
            quantized=True,
            step=Step(
                file="step.float16.tflite",
                open=_open_tflite_step,
                write=lambda network, path, _: _tflite.write_float16_step(network, path),
                steps=1,
            ),
        ),
        Format(
            name="onnx",
            file="model.onnx",
            about="ONNX, standard operators only",
            packages=("onnx", "tf2onnx", "onnxruntime"),
            write=lambda network, path, options: _onnx.write(
                network, path, options.calibration, options.opset, options.lengths
            ),
            open=lambda path, spec, threads: _onnx.OnnxRuntime(path, spec, threads),
            readme=lambda manifest: _onnx.readme(manifest),
            step=Step(
                file="step.onnx",
                open=lambda path, spec, threads: _onnx.OnnxStep(path, spec, threads),
                write=lambda network, path, options: _onnx.write_step(network, path, options.opset),
            ),
        ),
        Format(
            name="torch",
            file="model.safetensors",
            about="the weights for PyTorch, in safetensors; the module is below",
            packages=("torch", "safetensors"),
            write=lambda network, path, _: _pytorch.write(network, path),
            open=lambda path, spec, threads: _pytorch.TorchRuntime(path, spec, threads),
            readme=lambda manifest: _pytorch.readme(manifest),
            extra="torch",
        ),
    )
}

# What `--formats` offers, and what is made unless something else is said: what needs no more than
# this package does.
CHOICES = tuple(name for name, each in FORMATS.items() if not each.quantized)
DEFAULTS = tuple(name for name in CHOICES if FORMATS[name].extra is None)


def file_of(name: str) -> str:
    """Where a format, or the reference `keras`, lies in a bundle."""
    return REFERENCE if name == "keras" else FORMATS[name].file
