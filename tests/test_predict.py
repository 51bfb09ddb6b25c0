"""The command: answers from files, and what is said beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, refusal
from inputs_read import save
from PIL import Image

from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.predict import main, predict
from rnn_tf.run import PROFILE


def test_predictions_are_those_of_the_model(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    files = [
        save(Image.fromarray(x), tmp_path / f"{i}.png") for i, x in enumerate(mnist.test.x[:20])
    ]
    assert main([str(run.path), *map(str, files), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["name"] for answer in answers] == list(map(str, files))
    scaled = mnist.test.x[:20].astype(np.float32) / np.float32(255)
    expected = run.load_model().predict(scaled, verbose=0)
    rows = [[answer["probabilities"][label] for label in "0123456789"] for answer in answers]
    # x * (1/255) and x / 255 differ in the last bit; 28 steps make 1e-6 of that.
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    for answer, row in zip(answers, rows, strict=True):
        assert answer["label"] == str(int(np.argmax(row)))
        assert answer["probability"] == max(row)


def test_a_sequence_is_read_to_its_own_end_whatever_follows(
    varying: SequenceData, varying_run: Run
) -> None:
    x, lengths, valid = varying.test.x, varying.test.lengths, varying.test.valid
    assert lengths is not None
    assert valid is not None
    expected = predict(varying_run, x, lengths)
    noise = np.random.default_rng(0).normal(0, 100, x.shape).astype(np.float32)
    for padding in (noise, np.inf, np.nan):
        given = np.where(valid[..., None], x, padding)
        np.testing.assert_array_equal(predict(varying_run, given, lengths), expected)
    for i in range(5):
        # float32 rounding in another company: 1e-7 seen.
        alone = predict(varying_run, x[[i]], lengths[[i]])
        np.testing.assert_allclose(alone[0], expected[i], atol=2e-6)


def test_lengths_are_for_models_of_different_lengths_and_for_those_only(
    run: Run, varying: SequenceData, varying_run: Run
) -> None:
    with pytest.raises(InputError, match="bad lengths of the input; expected the length of each"):
        predict(varying_run, varying.test.x)
    with pytest.raises(InputError, match="bad lengths of the input; expected 1 to 9, got 10"):
        predict(varying_run, varying.test.x[:1], np.array([10]))
    with pytest.raises(InputError, match="bad lengths of the input; expected none"):
        predict(run, np.zeros((1, 28, 28)), np.array([3]))


def test_an_answer_at_every_step(
    labelled_steps: SequenceData, every_step_run: Run, tmp_path: Path, capsys: Capture
) -> None:
    test = labelled_steps.test
    assert test.lengths is not None
    said = predict(every_step_run, test.x, test.lengths)
    assert said.shape == (50, 9, 3)
    files = []
    for i, length in enumerate(test.lengths[:5]):
        files.append(tmp_path / f"{i}.npy")
        np.save(files[-1], test.x[i, :length])
    found = answers([every_step_run.path, *files], capsys)
    labels = np.array(labelled_steps.spec.labels)
    for answer, row, length in zip(found, said, test.lengths, strict=False):
        expected = labels[row[:length].argmax(axis=1)].tolist()
        assert [step["label"] for step in answer["steps"]] == expected
        assert answer["label"] == expected[-1]
        # float32 rounding in another company.
        assert answer["steps"][-1]["probability"] == answer["probability"]
        assert answer["probability"] == pytest.approx(row[length - 1].max(), abs=2e-6)
    assert (
        main([str(every_step_run.path), str(files[0]), "--picture", str(tmp_path / "a.png")]) == 0
    )
    name, label, _ = capsys.readouterr().out.split("  ", 2)
    assert (name, label) == (str(files[0]), found[0]["label"])
    assert (tmp_path / "a.png").stat().st_size


def test_text_is_a_line_for_each_sequence(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    one = save(Image.fromarray(mnist.test.x[0]), tmp_path / "one.png")
    np.save(tmp_path / "two.npy", mnist.test.x[1:3])
    assert main([str(run.path), str(one), str(tmp_path / "two.npy")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = [line.rsplit("  ", 3) for line in out.splitlines()]
    rows = run.load_model().predict(mnist.test.x[:3].astype(np.float32) / 255, verbose=0)
    names = [str(one), f"{tmp_path / 'two.npy'}[0]", f"{tmp_path / 'two.npy'}[1]"]
    assert [name for name, _, _, _ in found] == names
    assert [label for _, label, _, _ in found] == [str(row.argmax()) for row in rows]
    unusual = run.profile.novelty.unusual(mnist.test.x[:3])  # type: ignore[union-attr]
    for (_, _, share, novelty), row, beyond in zip(found, rows, unusual, strict=True):
        assert float(share.rstrip("%")) == pytest.approx(100 * row.max(), abs=0.01)
        assert novelty == f"more unusual than {beyond:.1%} of the validation examples"


def test_what_was_done_to_a_picture_is_said_beside_the_answer(
    run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    picture = Image.fromarray(255 - digit).convert("RGB").resize((56, 56))
    path = save(picture, tmp_path / "7.png")
    assert main([str(run.path), str(path)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    first, second = err.splitlines()
    assert first == f"{path}: read as dark ink on light paper"
    assert second == (
        f"{path}: the drawing, 32x40 of 56x56 pixels, "
        "scaled to a side of 20 and centred by its mass"
    )


def answers(argv: list[object], capsys: Capture) -> list[dict[str, Any]]:
    """What the command prints with `--json`."""
    assert main([*map(str, argv), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_as_is_leaves_a_picture_as_it_is_but_for_its_size(
    run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    shifted = np.roll(255 - digit, 5, axis=0)
    path = save(Image.fromarray(shifted), tmp_path / "7.png")
    np.save(tmp_path / "raw.npy", shifted)
    (as_array,) = answers([run.path, tmp_path / "raw.npy"], capsys)
    (as_is,) = answers([run.path, path, "--as-is"], capsys)
    assert as_is["probabilities"] == as_array["probabilities"]
    (inverted,) = answers([run.path, path, "--as-is", "--invert"], capsys)
    np.save(tmp_path / "raw.npy", 255 - shifted)
    (as_array,) = answers([run.path, tmp_path / "raw.npy"], capsys)
    assert inverted["probabilities"] == as_array["probabilities"]


@pytest.mark.parametrize("invert", [(), ("--invert",)])
def test_paper_may_be_light_or_dark(
    invert: tuple[str, ...], run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    plain = save(Image.fromarray(digit), tmp_path / "plain.png")
    paper = save(Image.fromarray(255 - digit), tmp_path / "paper.png")
    (expected,) = answers([run.path, plain], capsys)
    (answer,) = answers([run.path, paper, *invert], capsys)
    assert answer["label"] == expected["label"] == "7"


def test_values_in_another_unit_are_warned_of_and_unusual(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "scaled.npy", mnist.test.x[:3] / 255)
    assert main([str(run.path), str(tmp_path / "scaled.npy"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == (
        f"{tmp_path / 'scaled.npy'}: values from 0 to 1, in the training data from 0 to 255: "
        "give them in the same unit\n"
    )
    for line in out.splitlines():
        assert json.loads(line)["unusual"] > 0.99


def test_a_run_without_a_profile_still_answers(
    run: Run, digit: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    old = Path(shutil.copytree(run.path, tmp_path / "old"))
    (old / PROFILE).unlink()
    path = save(Image.fromarray(digit), tmp_path / "7.png")
    (with_profile,) = answers([run.path, path], capsys)
    (without,) = answers([old, path], capsys)
    assert without == {key: value for key, value in with_profile.items() if key != "unusual"}
    assert main([str(old), str(path)]) == 0
    assert len(capsys.readouterr().out.rsplit("  ")) == 3


def test_a_damaged_profile_is_named(run: Run, tmp_path: Path, capsys: Capture) -> None:
    damaged = Path(shutil.copytree(run.path, tmp_path / "damaged"))
    data = bytearray((damaged / PROFILE).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / PROFILE).write_bytes(data)
    assert PROFILE in refusal(main, [damaged, "7.png"], capsys)


def test_one_bad_file_of_many_is_named_and_the_others_are_answered(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    for i in range(40):
        save(Image.fromarray(mnist.test.x[i]), tmp_path / f"{i:02}.png")
    (tmp_path / "17.png").write_bytes(b"text")
    paths = sorted(tmp_path.glob("*.png"))
    assert main([str(run.path), *map(str, paths)]) == 1
    out, err = capsys.readouterr()
    assert err == f"error: not a whole picture: {paths[17]}; expected a PNG or JPEG\n"
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        str(path) for path in paths if path.name != "17.png"
    ]


def test_when_no_file_can_be_read_nothing_is_answered(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    assert main([str(run.path), "a.png", "b.png"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: no such file: a.png\nerror: no such file: b.png\n")


def test_a_folder_stands_for_what_is_in_it(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "digits.png"  # a folder, whatever it is called
    folder.mkdir()
    for name, x in zip("cab", mnist.test.x, strict=False):
        save(Image.fromarray(x), folder / f"{name}.png")
    np.save(folder / "d.npy", mnist.test.x[3:5])
    assert main([str(run.path), str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = [json.loads(line) for line in out.splitlines()]
    names = ["a.png", "b.png", "c.png", "d.npy[0]", "d.npy[1]"]
    assert [answer["name"] for answer in found] == [str(folder / name) for name in names]
    # c holds the first digit, a the second, b the third.
    np.save(tmp_path / "same.npy", mnist.test.x[[1, 2, 0, 3, 4]])
    same = answers([run.path, tmp_path / "same.npy"], capsys)
    assert [answer["label"] for answer in found] == [answer["label"] for answer in same]


def test_the_first_sequence_is_drawn(
    run: Run, mnist: SequenceData, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "some.npy", mnist.test.x[:3])
    picture = tmp_path / "reading.png"
    assert main([str(run.path), str(tmp_path / "some.npy"), "--picture", str(picture)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    with Image.open(picture) as drawn:
        assert drawn.width > 1000


def test_a_bundle_is_not_a_run_and_the_right_command_is_said(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    line = refusal(main, [tmp_path, "a.png"], capsys)
    assert f"a bundle, not a run: {tmp_path}. Ask it with: rnn-tf predict {tmp_path}" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "PATH"),
        (["RUN"], "no file to classify"),
        (["nowhere", "a.png"], "not a run: nowhere"),
        (["RUN", "nowhere.png"], "no such file: nowhere.png"),
        (["RUN", "folder.png"], "nothing to classify in the folder folder.png; expected files of"),
        (["RUN", "nowhere.png", "--inver"], "similar: --invert"),
    ],
)
def test_bad_arguments_are_one_line(
    argv: list[str], message: str, run: Run, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    given: list[object] = [run.path if argument == "RUN" else argument for argument in argv]
    assert message in refusal(main, given, capsys)


def test_an_unfinished_run_is_refused(spec: SequenceSpec, tmp_path: Path, capsys: Capture) -> None:
    Run.create(tmp_path / "run", TrainConfig(), spec)
    line = refusal(main, [tmp_path / "run", "a.png"], capsys)
    assert line.startswith("error: the run is not finished: ")
