"""What the version before this one wrote, runs of format 1 and bundles of layout 1, still works.

`format_1/` was made by it: a run on 303 noisy waves of small whole numbers, and its bundle.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Capture, refusal
from oracle_runtime import OracleRuntime

from export import __main__ as export_command
from export import predict as bundle_predict
from export import verify as verify_command
from export.bundle import LAYOUT, Bundle
from export.network import read_model
from export.publish import export_run
from export.runtimes import load_keras, open_runtime
from export.signatures import classify
from export.verify import QUANTIZED, verify_bundle
from rnn_tf import Run, load
from rnn_tf import evaluate as evaluate_command
from rnn_tf import predict as run_predict
from rnn_tf.data import SequenceSpec
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import VERSION
from rnn_tf.evaluate import evaluate
from rnn_tf.run import FORMAT

LABELS = ("falls", "flat", "rises")
SPEC = SequenceSpec(timesteps=12, features=2, labels=LABELS, normalize=Normalize((0.02,)))
FORMATS = ["saved_model", "tflite", "tflite_int8", "onnx"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the run, where the path of its data set leads to them."""
    copy = shutil.copytree(Path(__file__).parent / "format_1", tmp_path / "format_1")
    monkeypatch.chdir(copy)
    return Run.open("run")


@pytest.fixture
def bundle(run: Run) -> Bundle:
    return Bundle.open(run.path / "bundle")


# --- the run ---
def test_the_run_opens(run: Run) -> None:
    assert json.loads((run.path / "config.json").read_text())["format"] == 1 < FORMAT
    assert "version" not in json.loads((run.path / "spec.json").read_text())
    assert run.spec == SPEC
    assert (run.config.cell, run.config.units) == ("simple_rnn", 4)
    assert run.finished
    assert len(run.history) == run.config.epochs


def test_the_run_evaluates_as_it_did(run: Run, capsys: Capture) -> None:
    found, before = evaluate(run), run.metrics["test"]
    assert (found.accuracy, found.examples) == (before["accuracy"], before["examples"])
    # float32 rounding in another batch.
    assert found.loss == pytest.approx(before["loss"], rel=1e-5)
    assert evaluate_command.main([str(run.path)]) == 0
    assert f"{before['accuracy']:.2%}" in capsys.readouterr().out


def test_the_run_predicts(run: Run, capsys: Capture) -> None:
    test = load("waves.npz").test
    np.save("x.npy", test.x[:5])
    assert run_predict.main([str(run.path), "x.npy", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [LABELS.index(each["label"]) for each in found] == test.y[:5].tolist()


def test_the_run_exports_and_verifies(run: Run, tmp_path: Path, capsys: Capture) -> None:
    assert export_command.main([str(run.path), "--out", str(tmp_path / "out")]) == 0
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.formats == FORMATS
    assert bundle.manifest["layout"] == LAYOUT
    assert bundle.manifest["spec"] == SPEC.to_dict()
    assert bundle.manifest["metrics"] == run.metrics
    assert verify_bundle(bundle).failures() == []


# --- the bundle ---
def test_the_bundle_opens_and_its_manifest_is_that_of_today(bundle: Bundle) -> None:
    assert json.loads((bundle.path / "manifest.json").read_text())["layout"] == 1
    assert bundle.spec == SPEC
    assert bundle.formats == [*FORMATS, "torch"]
    bundle.check()
    made = export_run(Run.open("run"), Path("again"), formats=("tflite", "onnx"))
    # What covers all of a bundle came later.
    assert set(bundle.manifest) == set(made.manifest) - {"checksum", "source"}
    for name in ("layout", "spec", "dataset", "metrics"):
        assert bundle.manifest[name] == made.manifest[name]
    # So did the step.
    model = {key: value for key, value in made.manifest["model"].items() if key != "fingerprint"}
    assert bundle.manifest["model"] == model
    assert bundle.manifest["signatures"] == made.manifest["signatures"][:1]
    assert bundle.manifest["signatures"] == [classify(SPEC).to_dict()]
    assert [each["name"] for each in made.manifest["signatures"]] == ["classify", "step"]


@pytest.mark.parametrize(
    "name",
    [
        "keras",
        *FORMATS,
        pytest.param("torch", marks=pytest.mark.torch),
    ],
)
def test_the_bundle_predicts_in_every_format(name: str, bundle: Bundle, capsys: Capture) -> None:
    test = load("waves.npz").test
    exact = OracleRuntime(read_model(load_keras(bundle.artefact("keras")), bundle.spec))
    found = open_runtime(bundle, name).predict(test.x)
    # float32 rounding; 8 bits a weight.
    limit = 0.05 if name in QUANTIZED else 1e-5
    np.testing.assert_allclose(found, exact.predict(test.x), rtol=0, atol=limit)
    np.testing.assert_array_equal(found.argmax(axis=1), test.y)
    if name != "keras":
        np.save("x.npy", test.x[0])
        argv = [str(bundle.path), "x.npy", "--format", name, "--json"]
        assert bundle_predict.main(argv) == 0
        assert json.loads(capsys.readouterr().out)["label"] == LABELS[test.y[0]]


@pytest.mark.torch  # it has a file for PyTorch
@pytest.mark.parametrize("path", ["run/bundle", "run"])
def test_the_bundle_verifies(path: str, bundle: Bundle, capsys: Capture) -> None:
    assert verify_command.main([path]) == 0
    assert json.loads(bundle.verification_file.read_text())["passed"] is True
    assert "FAILED" not in capsys.readouterr().out


# --- what a newer version wrote ---
def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_run_of_a_newer_format_is_refused(run: Run, capsys: Capture) -> None:
    rewrite(run.path / "config.json", format=FORMAT + 1, something_new=True)
    line = refusal(evaluate_command.main, [run.path], capsys)
    assert "the run was made by a newer version: run; expected format 2 or older, got 3. " in line


def test_a_specification_of_a_newer_version_is_refused(run: Run, capsys: Capture) -> None:
    rewrite(run.path / "spec.json", version=VERSION + 1)
    line = refusal(evaluate_command.main, [run.path], capsys)
    assert "run/spec.json" in line
    assert "newer version of this package; expected version 3 or older, got 4" in line


def test_a_manifest_of_a_newer_layout_is_refused(bundle: Bundle, capsys: Capture) -> None:
    rewrite(bundle.path / "manifest.json", layout=LAYOUT + 1)
    line = refusal(verify_command.main, [bundle.path], capsys)
    assert "the bundle was made by a newer version: run/bundle/manifest.json; expected " in line
    assert "layout 2 or older, got 3. Upgrade" in line


def test_a_manifest_with_a_newer_specification_is_refused(bundle: Bundle, capsys: Capture) -> None:
    spec = {**SPEC.to_dict(), "version": VERSION + 1}
    rewrite(bundle.path / "manifest.json", spec=spec)
    line = refusal(verify_command.main, [bundle.path], capsys)
    assert line.startswith("error: bad manifest: run/bundle/manifest.json: the specification was ")
