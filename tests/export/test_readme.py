"""What a bundle's README says works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from export.network import read_model
from export.runtimes import OracleRuntime, load_keras
from rnn_tf import Run

# The formats in the order in which their Python blocks stand.
PYTHON = ("saved_model", "tflite", "onnx")


def blocks(bundle: Bundle, language: str) -> list[str]:
    text = (bundle.path / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def of_zeros(bundle: Bundle) -> np.ndarray:
    """What the formulas say of the input of every example: `(classes,)`."""
    network = read_model(load_keras(bundle.artefact("keras")), bundle.spec)
    x = np.zeros((1, bundle.spec.timesteps, bundle.spec.features), np.float32)
    row: np.ndarray = OracleRuntime(network).predict(x)[0]
    return row


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON)
def test_the_python_of_each_format_runs_as_it_stands(name: str, bundle: Bundle) -> None:
    code = dict(zip(PYTHON, blocks(bundle, "python"), strict=True))[name]
    # As a user has it: in the bundle, without this package to fall back on.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=bundle.path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rnn_tf" not in code
    label, probability = done.stdout.split()
    expected = of_zeros(bundle)
    assert label == bundle.spec.labels[int(expected.argmax())]
    # float32 rounding, as everywhere.
    assert float(probability) == pytest.approx(expected.max(), abs=1e-5)


def test_a_format_is_called_by_the_names_and_shapes_of_the_manifest(bundle: Bundle) -> None:
    (signature,) = bundle.manifest["signatures"]
    (given,), (answer,) = signature["inputs"], signature["outputs"]
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
    rows = re.findall(r"^\| (\w+) \| ([\d.]+)% \| ([\d.]+)% \| (\S+) \|", text, re.MULTILINE)
    found = {name: (accuracy, agreement) for name, accuracy, agreement, _ in rows}
    assert list(found) == ["keras", *bundle.formats]
    exact = f"{100 * test['accuracy']:.2f}"
    for name in ("keras", "saved_model", "tflite", "onnx"):
        assert found[name] == (exact, "100.00")


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
