"""From a run to a bundle: build every format, prove it, and only then put it in its place."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from export import readme
from export.bundle import (
    ARTEFACTS,
    QUANTIZED,
    README,
    VERIFICATION,
    Bundle,
    check_place,
    default_path,
    publishing,
    write_manifest,
)  # fmt: skip
from export.check.compare import Report
from export.formats import onnx, saved_model, tflite
from export.network import INPUT, OUTPUT, Twin, read_model
from export.runtimes import RUNTIMES, OracleRuntime
from export.verify import Say, named, verify
from rnn_tf import __version__
from rnn_tf.data import SequenceData, load
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.evaluate import check_fits
from rnn_tf.files.writing import write_text
from rnn_tf.run import PROFILE, Run
from rnn_tf.startup import process

Quantize = Literal["none", "int8", "float16"]
FORMATS = ("saved_model", "tflite", "onnx", "torch")
# What is made unless something else is said: what needs no more than this package does.
DEFAULT_FORMATS = FORMATS[:-1]
# Whose versions decide what is in the files.
PACKAGES = ("keras", "tensorflow", "onnx", "tf2onnx", "onnxruntime", "ai-edge-litert")
TORCH_PACKAGES = ("torch", "safetensors")

# Training examples on which the two ONNX graphs are compared.
ONNX_EXAMPLES = 256


def export_run(
    run: Run,
    out: Path | None = None,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    quantize: Quantize = "int8",
    opset: int = onnx.OPSET,
    say: Say = lambda line: None,
) -> Bundle:
    """Export a finished run's best model, verified, to `out`, by default `bundle/` in the run.

    `say` is told what is being done, and what is not shipped and why. Raises `InputError` for bad
    input, and `CheckFailed` when a converter fails or a format is not the same function; what
    was in `out` before is then as it was.
    """
    _check_choices(formats, quantize, opset)
    run.require_finished()
    out = out or default_path(run)
    check_place(out.resolve())
    data = load(run.config.dataset)
    check_fits(run.spec, data.spec, run.config.dataset)
    process.start()
    twin = read_model(run.load_model(), run.spec)
    wanted = {*formats, f"tflite_{quantize}" if "tflite" in formats else ""}
    names = [name for name in ARTEFACTS if name in wanted]
    with publishing(out) as folder:
        _fill(folder, run, twin, data, names, opset, say)
    return Bundle.open(out)


def _fill(
    folder: Path,
    run: Run,
    twin: Twin,
    data: SequenceData,
    names: Sequence[str],
    opset: int,
    say: Say,
) -> None:
    """Write everything that a bundle holds, and verify it."""
    _write_reference(run, folder / ARTEFACTS["keras"])
    details = {}
    for name in names:
        say(f"writing {name}")
        details[name] = _convert(name, twin, data, folder / ARTEFACTS[name], opset)
    report = _verified(twin, data, folder, names, say)
    left_out = _left_out(report, folder, names)
    for name, reason in left_out.items():
        say(f"{name} is not shipped: {reason}")
        (folder / ARTEFACTS[name]).unlink()
        del details[name]
    report = report.without(list(left_out))
    if broken := report.failures():
        raise CheckFailed(f"nothing exported; {'; '.join(broken)}")
    manifest = _manifest(run, twin, details, left_out)
    write_text(folder / VERIFICATION, report.to_json() + "\n")
    if run.profile_file.exists():
        shutil.copyfile(run.profile_file, folder / PROFILE)
    write_text(folder / README, readme.text(manifest, report))
    write_manifest(folder, manifest)


def _check_choices(formats: Sequence[str], quantize: str, opset: int) -> None:
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"unknown format {name!r}", expected=f"some of {', '.join(FORMATS)}")
    if not formats:
        raise InputError("no format to export", expected=f"some of {', '.join(FORMATS)}")
    if quantize not in get_args(Quantize):
        raise InputError(
            f"cannot quantize to {quantize!r}", expected=f"one of {', '.join(get_args(Quantize))}"
        )
    onnx.check_opset(opset)
    if "torch" in formats:
        _check_torch()


def _check_torch() -> None:
    try:
        import export.formats.pytorch  # noqa: F401 - only to see whether it can be
    except ModuleNotFoundError as error:
        raise InputError(
            f"the format torch needs {error.name}", fix='Install it: pip install "rnn-tf[torch]"'
        ) from error


def _write_reference(run: Run, path: Path) -> None:
    """The run's model in float32, whatever it was trained in: what the formats must equal.

    Raises `InputError` when the model file is not of the sizes that `config.json` says.
    """
    from rnn_tf.model.classifier import build_model

    model = build_model(run.config, run.spec)
    try:
        model.set_weights(run.load_model().get_weights())
    except ValueError as error:
        raise InputError(f"not the model that config.json describes: {run.model_file}") from error
    model.save(path)


def _convert(name: str, twin: Twin, data: SequenceData, path: Path, opset: int) -> dict[str, Any]:
    """Write one format. Gives what the manifest says about it.

    A converter that fails is named, whatever it raises: they share no kind of error.
    """
    x = data.train.x
    writers: dict[str, Callable[[], dict[str, Any]]] = {
        "saved_model": lambda: saved_model.write(twin, path),
        "tflite": lambda: tflite.write(twin, path),
        "tflite_int8": lambda: tflite.write_int8(twin, path, x),
        "tflite_float16": lambda: tflite.write_float16(twin, path),
        "onnx": lambda: onnx.write(twin, path, x[:ONNX_EXAMPLES], opset),
        "torch": lambda: _write_torch(twin, path),
    }
    try:
        return writers[name]()
    except (InputError, CheckFailed, OSError):
        raise
    except Exception as error:
        raise CheckFailed(f"the {name} converter failed: {error}") from error


def _write_torch(twin: Twin, path: Path) -> dict[str, Any]:
    from export.formats import pytorch  # optional, and slow to import

    return pytorch.write(twin, path)


def _left_out(report: Report, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The quantized formats that are not worth shipping, and why."""
    left_out = {}
    for name in set(names) & set(QUANTIZED):
        small, large = ((folder / ARTEFACTS[each]).stat().st_size for each in (name, "tflite"))
        broken = report.failures(name)
        if small >= large:
            broken.append(f"{small:,} bytes, and float32 has {large:,}")
        if broken:
            left_out[name] = "; ".join(broken)
    return left_out


def _verified(
    twin: Twin, data: SequenceData, folder: Path, names: Sequence[str], say: Say
) -> Report:
    runtimes = {}
    for name in names:
        with named(name):
            runtimes[name] = RUNTIMES[name](folder / ARTEFACTS[name], twin.spec, 1)
    keras = RUNTIMES["keras"](folder / ARTEFACTS["keras"], twin.spec, 1)
    return verify(runtimes, keras, OracleRuntime(twin), data.test, say)


def _manifest(
    run: Run, twin: Twin, details: dict[str, dict[str, Any]], left_out: dict[str, str]
) -> dict[str, Any]:
    spec = twin.spec
    packages = (*PACKAGES, *(TORCH_PACKAGES if "torch" in details else ()))
    return {
        "model": {
            "cell": twin.cell,
            "units": twin.units,
            "activation": twin.activation,
            "parameters": twin.parameters,
        },
        "spec": json.loads(spec.to_json()),
        "dataset": run.config.dataset,
        "metrics": run.metrics,
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": [None, spec.timesteps, spec.features],
            "unit": "raw values, as the data has them; scaling is inside",
        },
        "output": {"name": OUTPUT, "dtype": "float32", "shape": [None, spec.classes]},
        "formats": details,
        "not_shipped": left_out,
        "versions": {
            "rnn-tf": __version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
