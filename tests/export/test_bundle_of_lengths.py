"""A bundle whose sequences vary in length: made, verified, described and called."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture
from cpp import HEADER
from extras import WITH_TORCH

from export import oracle
from export.benchmark import benchmark
from export.bundle import Bundle
from export.network import read_model
from export.predict import main as predict
from export.runtimes import load_keras, open_runtime
from export.stream import open_stream
from export.verify import main as verify
from export.verify import verify_bundle
from rnn_tf.data import SequenceData, Split
from rnn_tf.data.spec import valid_steps
from rnn_tf.errors import InputError

PYTHON = ("saved_model", "tflite", "onnx", *(("torch",) if WITH_TORCH else ()))


def blocks(bundle: Bundle, language: str) -> list[str]:
    text = (bundle.path / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def example(bundle: Bundle) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((bundle.path / "example.json").read_text())
    return values


@pytest.fixture
def split(varying: SequenceData) -> Split:
    return varying.test


# --- verified ---
def test_it_has_every_format(varying_bundle: Bundle) -> None:
    assert set(varying_bundle.formats) == {"tflite_int8", *PYTHON}
    assert list(varying_bundle.manifest["not_shipped"]) == ["step"]
    assert varying_bundle.spec.varies
    report = json.loads(varying_bundle.verification_file.read_text())
    assert report["passed"] is True
    rows = [row for row in report["rows"] if row["format"] not in ("tflite_int8",)]
    assert {row["family"] for row in rows} > {
        "each alone", "padding of zeros", "padding of noise", "padding of infinity",
        "padding of NaN", "lengths 1 and longest",
    }  # fmt: skip
    assert max(row["max_difference"] for row in rows) <= 1e-5
    assert sum(row["disagreements"] for row in rows) == 0
    accuracies = {row["accuracy"] for row in rows if row["family"] == "test split"}
    assert accuracies == {varying_bundle.manifest["metrics"]["test"]["accuracy"]}


def test_reading_both_ways_it_has_no_step(varying_bundle: Bundle) -> None:
    assert varying_bundle.steppers == []
    assert not (varying_bundle.path / "step.onnx").exists()
    with pytest.raises(InputError, match=r"no step: the model reads in both directions.*--bidir"):
        open_stream(varying_bundle)
    text = (varying_bundle.path / "README.md").read_text()
    assert "There are none: the model reads in both directions" in text


def test_it_is_verified_again_where_it_lies(varying_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(varying_bundle.path, tmp_path / "bundle")
    assert verify([str(tmp_path / "bundle")]) == 0
    report = verify_bundle(Bundle.open(tmp_path / "bundle"))
    assert report.failures() == []
    names = {row.format for row in report.rows}
    assert names == {"keras", *varying_bundle.formats}


@pytest.mark.parametrize("name", ["tflite_int8", *PYTHON])
def test_each_format_is_asked_with_lengths(name: str, varying_bundle: Bundle, split: Split) -> None:
    runtime = open_runtime(varying_bundle, name)
    padded = np.where(np.asarray(split.valid)[:, :, None], split.x, np.nan)
    answer = runtime.predict(padded, split.lengths)
    accuracy = varying_bundle.manifest["metrics"]["test"]["accuracy"]
    found = (answer.argmax(axis=1) == split.y).mean()
    assert found == pytest.approx(accuracy, abs=0.02 if name == "tflite_int8" else 1e-9)
    with pytest.raises(InputError, match=r"^the model needs lengths"):
        runtime.predict(split.x)


def test_it_answers_predict(
    varying_bundle: Bundle, split: Split, tmp_path: Path, capsys: Capture
) -> None:
    """Each file is a sequence as long as it is."""
    assert split.lengths is not None
    files = [tmp_path / f"{i}.npy" for i in range(3)]
    for file, x, steps in zip(files, split.x, split.lengths, strict=False):
        np.save(file, x[:steps])
    assert predict([*map(str, (varying_bundle.path, *files)), "--json"]) == 0
    found = [json.loads(line)["probability"] for line in capsys.readouterr().out.splitlines()]
    runtime = open_runtime(varying_bundle, "onnx")
    expected = runtime.predict(split.x[:3], split.lengths[:3]).max(axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_file_of_another_signature_is_not_opened(varying_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(varying_bundle.path, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.manifest["signatures"][0]["inputs"].pop()
    with pytest.raises(InputError, match=r"manifest\.json and model\.onnx differ"):
        open_runtime(bundle, "onnx")


# --- described ---
def test_the_manifest_says_that_lengths_vary(varying_bundle: Bundle) -> None:
    manifest = varying_bundle.manifest
    assert (manifest["spec"]["timesteps"], manifest["spec"]["longest"]) == (None, 9)
    (signature,) = manifest["signatures"]
    assert [(each["name"], each["dtype"], each["axes"]) for each in signature["inputs"]] == [
        ("sequence", "float32", ["batch", 9, 2]), ("lengths", "int32", ["batch"]),
    ]  # fmt: skip


def test_the_readme_says_it_too(varying_bundle: Bundle) -> None:
    text = (varying_bundle.path / "README.md").read_text()
    assert "it reads 1 to 9 steps of 2 numbers" in text
    assert "- input `sequence`: float32 `(batch, 9, 2)`" in text
    assert "- input `lengths`: int32 `(batch,)`, how many steps each sequence has, 1 to 9." in text
    assert "`flat[(b * 9 + t) * 2 + f]`" in text
    assert "None" not in text
    for language in ("python", "cpp", "javascript"):
        for code in blocks(varying_bundle, language):
            assert max(map(len, code.splitlines())) <= 100
            assert "lengths" in code


def test_the_example_and_the_request_have_a_length(varying_bundle: Bundle, split: Split) -> None:
    values = example(varying_bundle)
    assert split.lengths is not None
    assert values["lengths"] == [split.lengths[0]] == [1]
    np.testing.assert_array_equal(np.float32(values["sequence"]), split.x[:1])
    network = read_model(load_keras(varying_bundle.artefact("keras")), varying_bundle.spec)
    exact = oracle.probabilities(network, split.x[:1, :1])
    np.testing.assert_array_equal(np.float32(values["probabilities"]), np.float32(exact))
    request = json.loads((varying_bundle.path / "request.json").read_text())
    assert request == {"instances": [{"sequence": values["sequence"][0], "lengths": 1}]}


def test_the_request_is_what_the_signature_takes(varying_bundle: Bundle) -> None:
    """As TensorFlow Serving reads it: the instances of each input become one tensor."""
    import tensorflow as tf

    instances = json.loads((varying_bundle.path / "request.json").read_text())["instances"]
    model = tf.saved_model.load(str(varying_bundle.path / "saved_model" / "1"))
    signature = model.signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    given = {
        name: tf.constant([instance[name] for instance in instances], spec.dtype)
        for name, spec in inputs.items()
    }
    answer = signature(**given)["probabilities"].numpy()
    values = example(varying_bundle)
    np.testing.assert_allclose(answer, values["probabilities"], rtol=0, atol=values["tolerance"])


@pytest.mark.parametrize("name", PYTHON)
def test_the_python_of_each_format_runs_as_it_stands(
    name: str, varying_bundle: Bundle, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    """In this process: that it needs nothing of this package is shown in test_readme.py."""
    code = dict(zip(PYTHON, blocks(varying_bundle, "python"), strict=True))[name]
    (tmp_path / "code.py").write_text(code)
    monkeypatch.chdir(varying_bundle.path)
    runpy.run_path(str(tmp_path / "code.py"))
    label, probability = capsys.readouterr().out.split()
    values = example(varying_bundle)
    labels = varying_bundle.spec.labels
    assert (labels[int(label)] if name == "tflite" else label) == values["label"]
    assert float(probability) == pytest.approx(
        max(values["probabilities"][0]), abs=values["tolerance"]
    )


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_javascript_is_javascript(varying_bundle: Bundle, tmp_path: Path) -> None:
    (code,) = blocks(varying_bundle, "javascript")
    script = tmp_path / "example.mjs"
    script.write_text(code)
    command = [shutil.which("node") or "", "--check", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'lengths: new ort.Tensor("int32", Int32Array.from(example.lengths), [1])' in code


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_cpp_is_cpp(varying_bundle: Bundle, tmp_path: Path) -> None:
    """Against a header that has of ONNX Runtime's what is called: no Python package has its own."""
    (code,) = blocks(varying_bundle, "cpp")
    (tmp_path / "onnxruntime_cxx_api.h").write_text(HEADER)
    (tmp_path / "example.cpp").write_text(code)
    program = tmp_path / "example"
    compiler = [shutil.which("g++") or "", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}"]
    built = subprocess.run(
        [*compiler, str(tmp_path / "example.cpp"), "-o", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [str(program)], cwd=varying_bundle.path, capture_output=True, text=True, check=False
    )
    values = example(varying_bundle)
    given = np.array(done.stderr.split(), np.float32)
    expected = np.array([*np.ravel(values["sequence"]), 1], np.float32)
    np.testing.assert_array_equal(given, expected)


# --- measured ---
def test_it_is_measured(varying_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """One format: that peers take lengths is shown in test_export_benchmark.py."""
    monkeypatch.setattr("export.peers.installed", list)
    formats = {"onnx": varying_bundle.manifest["formats"]["onnx"]}
    some = replace(varying_bundle, manifest=varying_bundle.manifest | {"formats": formats})
    found = benchmark(some, rounds=1, seconds=0.01)
    accuracies = {each.name: each.accuracy for each in found}
    assert accuracies == {"onnx": varying_bundle.manifest["metrics"]["test"]["accuracy"]}


def test_steps_that_are_there() -> None:
    found = valid_steps(np.array([1, 3]), 3)
    np.testing.assert_array_equal(found, [[True, False, False], [True, True, True]])
