"""A bundle answers as the run that it was made from, and needs no TensorFlow for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, refusal

from export.bundle import Bundle
from export.predict import main
from export.sealed import sealed
from rnn_tf import Run, cli
from rnn_tf.data import SequenceData
from rnn_tf.run import PROFILE

DIGIT = Path(__file__).parents[2] / "docs" / "digit.png"
FORMATS = ("onnx", "tflite", "tflite_int8", "saved_model")


def answers(argv: list[object], capsys: Capture) -> list[dict[str, Any]]:
    """What `rnn-tf predict` says, with `--json`."""
    assert cli.main(["predict", *map(str, argv), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_bundle_answers_as_its_run_does(bundle: Bundle, run: Run, capsys: Capture) -> None:
    (of_run,) = answers([run.path, DIGIT], capsys)
    (of_bundle,) = answers([bundle.path, DIGIT], capsys)
    assert of_bundle["label"] == of_run["label"]
    assert of_bundle["name"] == of_run["name"] == str(DIGIT)
    assert list(of_bundle["probabilities"]) == list(of_run["probabilities"])
    for label, probability in of_run["probabilities"].items():
        # float32 rounding, as everywhere.
        assert of_bundle["probabilities"][label] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_any_format_can_be_asked(name: str, bundle: Bundle, run: Run, capsys: Capture) -> None:
    (of_run,) = answers([run.path, DIGIT], capsys)
    (found,) = answers([bundle.path, DIGIT, "--format", name], capsys)
    assert found["label"] == of_run["label"]
    # int8 may be off by some hundredths where the model is not sure.
    tolerance = 0.1 if name == "tflite_int8" else 1e-5
    assert found["probability"] == pytest.approx(of_run["probability"], abs=tolerance)


def test_the_line_is_that_of_a_run(bundle: Bundle, run: Run, capsys: Capture) -> None:
    assert cli.main(["predict", str(run.path), str(DIGIT)]) == 0
    of_run = capsys.readouterr()
    assert cli.main(["predict", str(bundle.path), str(DIGIT)]) == 0
    assert capsys.readouterr() == of_run


def test_sequences_of_an_npz_are_answered_one_by_one(
    bundle: Bundle, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.savez(tmp_path / "digits.npz", x=mnist.test.x[:200])
    found = answers([bundle.path, tmp_path / "digits.npz"], capsys)
    assert [answer["name"] for answer in found[:2]] == [
        f"{tmp_path / 'digits.npz'}[0]",
        f"{tmp_path / 'digits.npz'}[1]",
    ]
    right = np.equal([int(answer["label"]) for answer in found], mnist.test.y[:200])
    # After one epoch the model is at 96 %; chance is 10 %.
    assert right.mean() > 0.9
    for answer in found:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def test_light_pictures_can_be_turned_dark(bundle: Bundle, tmp_path: Path, capsys: Capture) -> None:
    from PIL import Image, ImageOps

    ImageOps.invert(Image.open(DIGIT).convert("L")).save(tmp_path / "light.png")
    (dark,) = answers([bundle.path, DIGIT], capsys)
    (light,) = answers([bundle.path, tmp_path / "light.png", "--invert"], capsys)
    assert light["probabilities"] == dark["probabilities"]


def modules_after(argv: list[object]) -> set[str]:
    """Every module that a fresh process has imported once `rnn-tf predict` has answered."""
    code = (
        "import sys\n"
        f"sys.argv = {['rnn-tf', 'predict', *map(str, argv)]!r}\n"
        "from rnn_tf import cli\n"
        "assert cli.main() == 0\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", ["auto", "onnx", "tflite", "tflite_int8"])
def test_no_tensorflow_is_needed(name: str, bundle: Bundle) -> None:
    modules = modules_after([bundle.path, DIGIT, "--format", name])
    assert not modules & {"tensorflow", "keras", "torch", "jax", "matplotlib"}
    assert ("onnxruntime" in modules) == (name in ("auto", "onnx"))
    assert ("ai_edge_litert" in modules) == name.startswith("tflite")


def test_the_first_format_that_a_bundle_has_answers(
    small_run: Run, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    from export.publish import export_run

    np.save(tmp_path / "x.npy", small.test.x[:1])
    bundle = export_run(small_run, tmp_path / "out", formats=("tflite",), quantize="none")
    (found,) = answers([bundle.path, tmp_path / "x.npy"], capsys)
    assert found["label"] in bundle.spec.labels


def test_the_run_of_a_bundle_stands_for_it(small_run: Run, tmp_path: Path, capsys: Capture) -> None:
    assert "the run has no bundle: " in refusal(main, [small_run.path, "x.npy"], capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["BUNDLE"], "no file to classify"),
        (["BUNDLE", "nowhere.npy"], "no such file: nowhere.npy"),
        (["BUNDLE", "notes.md"], "cannot tell what notes.md is"),
        (["BUNDLE", "bad.npy"], "bad.npy: cannot read the array; got "),
        (["BUNDLE", "short.npy"], "short.npy does not fit the model; expected (12, 2)"),
        (["BUNDLE", "good.npy", "--format", "coreml"], "the bundle has no format 'coreml'"),
        (["BUNDLE", "good.npy", "--format", "tflite_float16"], "expected one of saved_model, tfl"),
        (["BUNDLE", "good.npy", "--picture", "a.png"], "--picture"),
        (["BUNDLE", "digit.png"], "the model was not trained on pictures"),
    ],
)
def test_bad_arguments_are_one_line(
    argv: list[str], message: str, small_bundle: Bundle, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", np.zeros((12, 2), np.float32))
    np.save("short.npy", np.zeros((11, 2), np.float32))
    Path("bad.npy").write_bytes(b"\x93NUMPY")
    Path("notes.md").write_text("mine")
    Path("digit.png").write_bytes(DIGIT.read_bytes())
    given: list[object] = [small_bundle.path if part == "BUNDLE" else part for part in argv]
    assert message in refusal(cli.main, ["predict", *given], capsys)


def test_a_damaged_format_is_refused_before_it_answers(
    copy: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((12, 2), np.float32))
    data = bytearray((copy.path / "model.onnx").read_bytes())
    data[-1] ^= 1
    (copy.path / "model.onnx").write_bytes(data)
    assert "model.onnx is not the file that was verified" in refusal(
        main, [copy.path, tmp_path / "x.npy"], capsys
    )
    assert main([str(copy.path), str(tmp_path / "x.npy"), "--format", "tflite"]) == 0


def test_how_unusual_an_input_is_comes_with_the_bundle(
    bundle: Bundle, run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "x.npy", np.concatenate([mnist.test.x[:3], 255 - mnist.test.x[:3]]))
    of_bundle = answers([bundle.path, tmp_path / "x.npy"], capsys)
    of_run = answers([run.path, tmp_path / "x.npy"], capsys)
    shares = [answer["unusual"] for answer in of_bundle]
    assert shares == [answer["unusual"] for answer in of_run]
    assert all(share > 0.99 for share in shares[3:])
    assert (bundle.path / PROFILE).read_bytes() == run.profile_file.read_bytes()


def test_an_altered_profile_is_refused(copy: Bundle, tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "x.npy", np.zeros((12, 2), np.float32))
    data = bytearray((copy.path / PROFILE).read_bytes())
    data[-1] ^= 1
    (copy.path / PROFILE).write_bytes(data)
    line = refusal(main, [copy.path, tmp_path / "x.npy"], capsys)
    assert f"{PROFILE} is not the file that was verified" in line


def test_a_bundle_of_an_older_version_answers_without_it(
    copy: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "x.npy", small.test.x[:2])
    expected = answers([copy.path, tmp_path / "x.npy"], capsys)
    (copy.path / PROFILE).unlink()
    manifest = json.loads((copy.path / "manifest.json").read_text())
    del manifest["files"][PROFILE]
    (copy.path / "manifest.json").write_text(sealed(manifest))
    for answer in expected:
        del answer["unusual"]
    assert answers([copy.path, tmp_path / "x.npy"], capsys) == expected


def test_twenty_bad_files_do_not_keep_a_bundle_from_answering(
    small_bundle: Bundle, small: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    for i in range(21):
        (tmp_path / f"{i:02}.npy").write_bytes(b"text")
    np.save(tmp_path / "07.npy", small.test.x[0])
    assert main([str(small_bundle.path), str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / '07.npy'}  ")
    assert len(out.splitlines()) == 1
    assert [line.split(": ")[2][:21] for line in err.splitlines()] == ["cannot read the array"] * 20
