"""What a bundle's README says works as it stands there."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp import HEADER

from export import oracle
from export.bundle import Bundle
from export.network import read_model
from export.runtimes import load_keras
from rnn_tf import Run
from rnn_tf.data import SequenceData

# The formats in the order in which their Python blocks stand.
PYTHON = ("saved_model", "tflite", "onnx")


def blocks(bundle: Bundle, language: str) -> list[str]:
    text = (bundle.path / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def example(bundle: Bundle) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((bundle.path / "example.json").read_text())
    return values


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a user has it: in the bundle, without this package to fall back on."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- its example ---
def test_the_example_is_the_first_of_the_test_split_and_what_the_formulas_say_of_it(
    bundle: Bundle, mnist: SequenceData
) -> None:
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    values, x = example(bundle), mnist.test.x[:1]
    np.testing.assert_array_equal(values["sequence"], x)
    exact = oracle.probabilities(network, x)
    np.testing.assert_array_equal(np.float32(values["probabilities"]), np.float32(exact))
    assert values["label"] == "7"
    assert 0 < values["tolerance"] < 1e-4


def test_the_example_holds_float32_to_the_last_bit(
    small_bundle: Bundle, small: SequenceData
) -> None:
    values = example(small_bundle)
    assert np.float32(values["sequence"]).tobytes() == small.test.x[:1].tobytes()
    request = json.loads((small_bundle.path / "request.json").read_text())
    assert request == {"instances": values["sequence"]}


def test_numbers_lie_in_memory_as_the_readme_says(small_bundle: Bundle) -> None:
    text = (small_bundle.path / "README.md").read_text()
    assert "`flat[(b * 12 + t) * 2 + f]`: `flat[(b*T + t)*F + f]`" in text
    x = np.array(example(small_bundle)["sequence"], np.float32)
    flat = np.ascontiguousarray(x).ravel()
    assert all(flat[(0 * 12 + t) * 2 + f] == x[0, t, f] for t in range(12) for f in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON)
def test_the_python_of_each_format_runs_as_it_stands(name: str, bundle: Bundle) -> None:
    code = dict(zip(PYTHON, blocks(bundle, "python"), strict=True))[name]
    done = run_python(code, bundle.path)
    assert done.returncode == 0, done.stderr
    assert "rnn_tf" not in code
    label, probability = done.stdout.split()
    values = example(bundle)
    assert label == values["label"]
    limit = values["tolerance"]
    assert float(probability) == pytest.approx(max(values["probabilities"][0]), abs=limit)


@pytest.mark.parametrize("name", PYTHON)
def test_the_python_of_each_format_notices_another_answer(
    name: str, copy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = dict(zip(PYTHON, blocks(copy, "python"), strict=True))[name]
    values = example(copy)
    values["probabilities"][0][0] += 2 * values["tolerance"]
    (copy.path / "example.json").write_text(json.dumps(values))
    (tmp_path / "code.py").write_text(code)
    monkeypatch.chdir(copy.path)
    with pytest.raises(AssertionError):
        runpy.run_path(str(tmp_path / "code.py"))


def test_a_format_is_called_by_the_names_and_shapes_of_the_manifest(bundle: Bundle) -> None:
    classify, step = bundle.manifest["signatures"]
    (given,), (answer,) = classify["inputs"], classify["outputs"]
    _, timesteps, features = given["axes"]
    (cpp,), (javascript,) = blocks(bundle, "cpp"), blocks(bundle, "javascript")
    assert f'inputs[] = {{"{given["name"]}"}}' in cpp
    assert f'outputs[] = {{"{answer["name"]}"}}' in cpp
    assert f"shape = {{1, {timesteps}, {features}}}" in cpp
    assert f"i < {answer['axes'][1]};" in cpp
    assert '"model.onnx"' in cpp
    assert f'{given["name"]}: new ort.Tensor("float32", x, [1, {timesteps}, {features}])' in (
        javascript
    )
    assert f"const {{ {answer['name']} }} = await session.run" in javascript
    assert '"model.onnx"' in javascript
    # And its step.
    frames, state = (each["name"] for each in step["inputs"])
    _, after = (each["name"] for each in step["outputs"])
    units = step["inputs"][1]["axes"][1]
    assert f'step_inputs[] = {{"{frames}", "{state}"}}' in cpp
    assert f'step_outputs[] = {{"{answer["name"]}", "{after}"}}' in cpp
    assert f"states = {{std::vector<float>({units})}};" in cpp
    assert f"x.data() + t * {features}, {features}" in cpp
    assert f"const {frames} = new ort.Tensor" in javascript
    assert f"states = {{ {state}: said.{after} }};" in javascript
    assert f"new Float32Array({units}), [1, {units}]" in javascript
    assert all('"step.onnx"' in code for code in (cpp, javascript))


def test_the_shapes_are_those_of_the_model_not_of_mnist(small_bundle: Bundle) -> None:
    text = (small_bundle.path / "README.md").read_text()
    assert "`(batch, 12, 2)`" in text
    assert "`(batch, 3)`, the probability of each class: falls, flat, rises." in text
    assert "28" not in "".join(
        code for kind in ("python", "cpp", "javascript") for code in blocks(small_bundle, kind)
    )


def test_the_scale_is_said_to_be_inside(bundle: Bundle) -> None:
    text = (bundle.path / "README.md").read_text()
    assert (
        "Raw values as the data has them: the model's own input, raw * 0.00392157, is made" in text
    )
    assert "There is no state between calls." in text


def test_serving_is_told_of_with_its_warm_up(bundle: Bundle) -> None:
    (shell,) = blocks(bundle, "sh")
    assert '-v "$PWD/saved_model:/models/classifier" tensorflow/serving' in shell
    warm_up = "assets.extra/tf_serving_warmup_requests"
    assert warm_up in (bundle.path / "README.md").read_text()
    assert (bundle.path / "saved_model" / "1" / warm_up).is_file()


def test_the_tables_say_how_good_each_format_is(bundle: Bundle, run: Run) -> None:
    text = (bundle.path / "README.md").read_text()
    test = run.metrics["test"]
    assert f"| test | {test['accuracy']:.2%} | {test['loss']:.4f} | 10,000 |" in text
    pattern = r"^\| (\w+) \| ([\d.]+)% \| ([\d.]+)% \| (\S+)(?: \((\S+)\))? \|"
    rows = re.findall(pattern, text, re.MULTILINE)
    found = {name: (accuracy, agreement) for name, accuracy, agreement, *_ in rows}
    assert list(found) == ["keras", *bundle.formats]
    exact = f"{100 * test['accuracy']:.2f}"
    for name in ("keras", "saved_model", "tflite", "onnx"):
        assert found[name] == (exact, "100.00")
    # Beside its difference, the limit of each but the quantized one.
    limits = {name: limit for name, *_, limit in rows}
    assert limits.pop("tflite_int8") == ""
    assert all(
        0 < float(difference) <= float(limits[name])
        for name, *_, difference, _ in rows
        if name in limits
    )


def test_every_file_that_is_linked_or_named_is_there(bundle: Bundle) -> None:
    text = (bundle.path / "README.md").read_text()
    named = re.findall(r"`((?:model|manifest|verification|saved_model)[\w./]*)`", text)
    assert len(set(named)) >= 7
    for name in named:
        assert (bundle.path / name).exists(), name


@pytest.mark.parametrize("language", ["python", "cpp", "javascript"])
def test_no_line_of_code_is_wider_than_a_page(language: str, bundle: Bundle) -> None:
    for code in blocks(bundle, language):
        assert max(map(len, code.splitlines())) <= 100


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_javascript_is_javascript(bundle: Bundle, tmp_path: Path) -> None:
    (code,) = blocks(bundle, "javascript")
    script = tmp_path / "example.mjs"
    script.write_text(code)
    command = [shutil.which("node") or "", "--check", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_cpp_reads_the_example(bundle: Bundle, tmp_path: Path) -> None:
    """All but the calls of ONNX Runtime, whose headers no Python package has."""
    (code,) = blocks(bundle, "cpp")
    before = code.partition("  Ort::Env env")[0].replace("#include <onnxruntime_cxx_api.h>\n", "")
    print_all = (
        '  for (float value : x) std::printf("%.9g ", value);\n'
        '  for (float value : expected) std::printf("%.9g ", value);\n'
        '  std::printf("%.9g", tolerance);\n}\n'
    )
    (tmp_path / "example.cpp").write_text(before + print_all)
    program = tmp_path / "example"
    compiler = [shutil.which("g++") or "", "-std=c++17", "-Wall", "-Werror"]
    built = subprocess.run(
        [*compiler, str(tmp_path / "example.cpp"), "-o", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [str(program)], cwd=bundle.path, capture_output=True, text=True, check=True
    )
    values = example(bundle)
    expected = [np.ravel(values[key]) for key in ("sequence", "probabilities", "tolerance")]
    np.testing.assert_array_equal(
        np.array(done.stdout.split(), np.float32), np.concatenate(expected).astype(np.float32)
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_cpp_of_a_step_is_cpp(small_bundle: Bundle, tmp_path: Path) -> None:
    """Against a header that has of ONNX Runtime's what is called."""
    (code,) = blocks(small_bundle, "cpp")
    assert "step.Run" in code
    (tmp_path / "onnxruntime_cxx_api.h").write_text(HEADER)
    (tmp_path / "example.cpp").write_text(code)
    compiler = [shutil.which("g++") or "", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}"]
    built = subprocess.run(
        [*compiler, str(tmp_path / "example.cpp"), "-o", str(tmp_path / "example")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr


def test_microcontrollers_are_told_of(bundle: Bundle) -> None:
    text = (bundle.path / "README.md").read_text()
    assert "On a microcontroller: not with TFLite Micro." in text
    for name, file in (("tflite", "model.tflite"), ("tflite_int8", "model.int8.tflite")):
        reason = bundle.manifest["formats"][name]["not_for"]["TFLite Micro"]
        assert f"- `{file}`: {reason}." in text
