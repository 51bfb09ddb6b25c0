"""A stream keeps the state of its sessions, and `rnn-tf stream` answers line by line."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Capture, refusal

import export
from export import oracle
from export.bundle import Bundle, write_manifest
from export.formats.onnx import write_step
from export.network import Network, read_model
from export.publish import export_run
from export.runtimes import load_keras, open_runtime
from export.stream import State, Stream, main, open_stream
from rnn_tf import Run, cli
from rnn_tf.data import SequenceData
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.streams.early import EarlyRule

# That of the small model and its waves: 4e-7 seen.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def network(small_bundle: Bundle) -> Network:
    return read_model(load_keras(small_bundle.artefact("keras")), small_bundle.spec)


@pytest.fixture(scope="module")
def x(small: SequenceData) -> np.ndarray:
    """Raw sequences (50, 12, 2)."""
    return small.test.x


@pytest.fixture(scope="module")
def exact(network: Network, x: np.ndarray) -> np.ndarray:
    """What the formulas say after each step: (50, 12, 3)."""
    return oracle.probabilities_by_step(network, x)


@pytest.fixture
def stream(small_bundle: Bundle) -> Stream:
    return open_stream(small_bundle, "onnx")


def close(got: np.ndarray, exact: np.ndarray) -> None:
    np.testing.assert_allclose(got, exact, rtol=0, atol=ROUNDING)


# --- pushing ---
@pytest.mark.parametrize("name", ["onnx", "tflite", "saved_model"])
def test_a_stream_says_what_the_formulas_say(
    name: str, small_bundle: Bundle, x: np.ndarray, exact: np.ndarray
) -> None:
    stream = export.open_stream(small_bundle.path, name)
    assert isinstance(stream, export.Stream)
    close(stream.push(x[0, :5]), exact[0, :5])
    close(stream.push(x[:1, 5:6]), exact[:1, 5:6])
    close(stream.push(x[0, 6:]), exact[0, 6:])
    stream.reset()
    close(stream.push(x[1]), exact[1])


def test_some_sessions_are_pushed_and_no_other_is_touched(
    stream: Stream, x: np.ndarray, exact: np.ndarray
) -> None:
    many = stream.another(4)
    close(many.push(x[:4, :3]), exact[:4, :3])
    close(many.push(x[[3, 1], 3:5], sessions=[3, 1]), exact[[3, 1], 3:5])
    close(many.push(x[[0], 3:4], sessions=np.array([0])), exact[[0], 3:4])
    many.reset([1])
    starts = np.array([4, 0, 3, 5])
    got = many.push(np.stack([x[i, start : start + 2] for i, start in enumerate(starts)]))
    for i, start in enumerate(starts):
        close(got[i], exact[i, start : start + 2])


def test_streams_over_one_file_know_nothing_of_each_other(
    stream: Stream, x: np.ndarray, exact: np.ndarray
) -> None:
    other = stream.another()
    assert other.runtime is stream.runtime
    for t in range(12):
        close(stream.push(x[0, t : t + 1]), exact[0, t : t + 1])
        close(other.push(x[1, t : t + 1]), exact[1, t : t + 1])


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_frames_one_by_one_and_in_chunks_and_of_some_sessions_mix(
    name: str, small_bundle: Bundle, x: np.ndarray, exact: np.ndarray
) -> None:
    stream = open_stream(small_bundle, name, sessions=2)
    for t in range(4):
        close(stream.push(x[:2, t : t + 1]), exact[:2, t : t + 1])
    close(stream.push(x[:2, 4:6]), exact[:2, 4:6])
    for t in (6, 7):
        close(stream.push(x[:2, t : t + 1]), exact[:2, t : t + 1])
    close(stream.push(x[1:2, 8:9], sessions=[1]), exact[1:2, 8:9])
    close(stream.push(x[:1, 8:9], sessions=[0]), exact[:1, 8:9])
    for t in (9, 10, 11):
        close(stream.push(x[:2, t : t + 1]), exact[:2, t : t + 1])


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_answers_and_states_that_were_given_stay_as_they_are(
    name: str, small_bundle: Bundle, x: np.ndarray
) -> None:
    stream = open_stream(small_bundle, name)
    answers = [stream.push(x[0, t : t + 1]) for t in range(5)]
    state = stream.state
    kept = [array.copy() for array in (*answers, *state.arrays)]
    for t in range(5, 9):
        stream.push(x[0, t : t + 1])
    for array, before in zip((*answers, *state.arrays), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_auto_is_the_fastest_that_there_is(small_bundle: Bundle) -> None:
    assert type(open_stream(small_bundle).runtime).__name__ == "OnnxStep"


# --- saved and restored ---
@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_session_survives_a_restart(
    name: str, small_bundle: Bundle, x: np.ndarray, exact: np.ndarray, tmp_path: Path
) -> None:
    stream = open_stream(small_bundle, name, sessions=3)
    stream.push(x[:3, :5])
    stream.state.save(tmp_path / "state.npz")
    stream.push(x[3:6, :5])  # what comes after does not matter
    again = open_stream(small_bundle, name, sessions=3)
    again.state = State.load(tmp_path / "state.npz")
    close(again.push(x[:3, 5:]), exact[:3, 5:])


def test_a_state_that_was_read_is_not_that_of_the_stream_any_more(
    stream: Stream, x: np.ndarray, exact: np.ndarray
) -> None:
    stream.push(x[0, :5])
    state = stream.state
    kept = [array.copy() for array in state.arrays]
    stream.push(x[0, 5:8])
    stream.reset([0])
    for array, before in zip(state.arrays, kept, strict=True):
        np.testing.assert_array_equal(array, before)
    stream.state = state
    for array in state.arrays:
        array[:] = 0
    close(stream.push(x[0, 5:]), exact[0, 5:])


def test_a_saved_state_holds_no_pickle(stream: Stream, tmp_path: Path) -> None:
    stream.state.save(tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz", allow_pickle=False) as saved:
        assert set(saved.files) == {"model", "state_0", "final"}
        assert saved["state_0"].shape == (1, 8)
        assert str(saved["model"]) == stream.model


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"state_0": np.zeros((1, 8), np.float32)}, "not the state of a stream"),
        ({"model": np.array("x"), "h": np.zeros(1)}, "not the state of a stream"),
        ({"model": np.array(["x"])}, "not the state of a stream"),
        ({"model": np.array({}, object)}, "Python objects"),
    ],
)
def test_another_file_is_no_state(arrays: dict[str, np.ndarray], what: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "state.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=what):
        State.load(tmp_path / "state.npz")
    (tmp_path / "state.npz").write_text("no zip")
    with pytest.raises(InputError, match=r"not a whole \.npz file"):
        State.load(tmp_path / "state.npz")


@pytest.mark.parametrize(
    ("shape", "dtype", "count", "what"),
    [
        ((1, 7), "float32", 1, r"state_0 does not fit the model; expected shape \(1, 8\)"),
        ((2, 8), "float32", 1, r"got shape \(2, 8\)"),
        ((1, 8), "float64", 1, "expected a float32 array, got float64"),
        ((1, 8), "float32", 2, "the states do not fit the model; expected 1 of them, got 2"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    shape: tuple[int, ...], dtype: str, count: int, what: str, stream: Stream, x: np.ndarray
) -> None:
    stream.push(x[0, :3])
    before = stream.state
    with pytest.raises(InputError, match=what):
        stream.state = State(stream.model, (np.zeros(shape, dtype),) * count)
    np.testing.assert_array_equal(stream.state.arrays[0], before.arrays[0])


def test_the_state_of_another_model_is_refused(stream: Stream) -> None:
    with pytest.raises(InputError, match=r"the state is of another model; expected .*…, got abc"):
        stream.state = State("abc", stream.state.arrays)


def test_the_state_of_one_format_is_that_of_another(
    small_bundle: Bundle, stream: Stream, x: np.ndarray, exact: np.ndarray
) -> None:
    stream.push(x[0, :5])
    lite = open_stream(small_bundle, "tflite")
    lite.state = stream.state
    close(lite.push(x[0, 5:]), exact[0, 5:])


# --- when an answer is final ---
def test_the_first_sure_answer_is_final_until_a_reset(
    small_bundle: Bundle, x: np.ndarray, exact: np.ndarray, tmp_path: Path
) -> None:
    confidence = float(np.median(exact[:5].max(axis=2)))
    rule = EarlyRule(confidence, promise=0.5)
    stream = Stream(open_stream(small_bundle).runtime, 5, rule)
    labels, expected = small_bundle.spec.labels, [None] * 5
    assert stream.final == expected
    for t in range(12):
        stream.push(x[:5, t : t + 1])
        for i, row in enumerate(exact[:5, t]):
            if expected[i] is None and row.max() >= confidence:
                expected[i] = labels[row.argmax()]
        assert stream.final == expected
    assert sum(each is not None for each in expected) > 0
    whole = stream.another(5)
    whole.push(x[:5])
    assert whole.final == expected
    whole.state.save(tmp_path / "state.npz")
    again = stream.another(5)
    again.state = State.load(tmp_path / "state.npz")
    assert again.final == expected
    again.reset([1])
    assert again.final == [None if i == 1 else each for i, each in enumerate(expected)]
    again.reset()
    assert again.final == [None] * 5


@pytest.mark.parametrize(
    "final", [np.zeros(2, np.int32), np.array([3]), np.array([-2]), np.zeros(1)]
)
def test_final_answers_that_there_are_not_are_refused(final: np.ndarray, stream: Stream) -> None:
    with pytest.raises(
        InputError, match="bad final answers in the state; expected 1 whole numbers"
    ):
        stream.state = State(stream.model, stream.state.arrays, final)
    assert stream.final == [None]


# --- bad input ---
@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (np.full((1, 2), np.nan), "a frame is not finite; got NaN or infinity"),
        (np.array([[0, np.inf], [0, 0]]), "a frame is not finite; got NaN or infinity"),
        (np.zeros((1, 3)), r"the frames do not fit the model; expected shape \(batch, steps, 2\)"),
        (np.zeros(2), r"the frames do not fit the model; expected shape .*got shape \(2,\)"),
        (np.zeros((2, 1, 2)), r"the frames do not fit the stream; .*got shape \(2, 1, 2\)"),
        (np.zeros((0, 2)), "one step at least"),
        (np.array([["a", "b"]]), "the frames are not numbers"),
    ],
)
def test_a_frame_that_is_refused_changes_nothing(
    frames: np.ndarray, what: str, stream: Stream, x: np.ndarray, exact: np.ndarray
) -> None:
    stream.push(x[0, :5])
    with pytest.raises(InputError, match=what):
        stream.push(frames)
    close(stream.push(x[0, 5:]), exact[0, 5:])


@pytest.mark.parametrize("sessions", [[4], [-1], [0, 0], [], [0.5], [True], 1, [[0]]])
def test_a_session_that_is_not_there_is_refused(sessions: object, stream: Stream) -> None:
    many = stream.another(4)
    with pytest.raises(InputError, match=r"bad sessions|asked twice"):
        many.push(np.zeros((1, 1, 2)), sessions=sessions)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"bad sessions|asked twice"):
        many.reset(sessions)  # type: ignore[arg-type]


@pytest.mark.parametrize("sessions", [0, -1, 1.5, True, "1"])
def test_a_stream_has_a_session_at_least(sessions: object, stream: Stream) -> None:
    with pytest.raises(InputError, match="bad number of sessions"):
        stream.another(sessions)  # type: ignore[arg-type]


def test_a_state_that_outgrows_float32_is_said(
    stream: Stream, x: np.ndarray, exact: np.ndarray
) -> None:
    state = stream.state
    stream.state = State(stream.model, tuple(array + 3e38 for array in state.arrays))
    with pytest.raises(CheckFailed, match=r"its state has grown beyond float32.*reset it"):
        stream.push(np.full((9, 2), 3e38, np.float32))
    stream.reset()
    close(stream.push(x[0]), exact[0])


def test_a_format_without_a_step_is_named(small_bundle: Bundle, small_run: Run) -> None:
    with pytest.raises(InputError, match="the bundle has no format 'torch'"):
        open_stream(small_bundle, "torch")


def test_a_bundle_made_before_there_were_steps_says_so(copy: Bundle, x: np.ndarray) -> None:
    manifest = {**copy.manifest, "signatures": copy.manifest["signatures"][:1]}
    manifest["model"].pop("fingerprint")
    for details in manifest["formats"].values():
        del details["answers"]
    for file in ("step.onnx", "step.tflite"):
        (copy.path / file).unlink()
    write_manifest(copy.path, manifest)
    old = Bundle.open(copy.path)
    with pytest.raises(InputError, match=r"was made before there were steps\. Make it again"):
        open_stream(old)


def test_an_altered_file_is_not_run(copy: Bundle) -> None:
    path = copy.path / "step.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"step\.onnx is not the file that was verified"):
        open_stream(copy, "onnx")
    with pytest.raises(InputError, match=r"step\.onnx is not the file that was verified"):
        copy.check()


def test_the_step_of_another_model_is_not_run(copy: Bundle, network: Network) -> None:
    other = replace(network, dense_bias=network.dense_bias + np.float32(1))
    write_step(other, copy.path / "step.onnx")
    write_manifest(copy.path, copy.manifest)
    with pytest.raises(InputError, match=r"manifest\.json and step\.onnx differ"):
        open_stream(Bundle.open(copy.path), "onnx")


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_stream_needs_no_tensorflow(name: str, small_bundle: Bundle) -> None:
    code = (
        "import sys; from export import open_stream\n"
        f"stream = open_stream({str(small_bundle.path)!r}, {name!r})\n"
        "stream.push([[0.5, 0.5]])\n"
        "print(sorted({'tensorflow', 'keras', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# --- what a bundle says ---
def test_the_manifest_names_the_file_of_each_signature(small_bundle: Bundle) -> None:
    formats = small_bundle.manifest["formats"]
    assert formats["onnx"]["answers"] == {"classify": "model.onnx", "step": "step.onnx"}
    assert formats["saved_model"]["answers"] == dict.fromkeys(("classify", "step"), "saved_model")
    names = [each["name"] for each in small_bundle.manifest["signatures"]]
    assert names == ["classify", "step"]
    files = {file for each in formats.values() for file in each["answers"].values()}
    assert {"step.onnx", "step.tflite"} <= files
    assert all((small_bundle.path / file).exists() for file in files)
    text = (small_bundle.path / "README.md").read_text()
    assert "`state_0` `(batch, 8)`: float32, the state. Zeros when a sequence begins" in text
    assert "`state_0` from `next_state_0`" in text


@pytest.mark.parametrize(
    "settings",
    [{"answer": "every_step"}, {"cell": "lstm"}],
    ids=["every step", "lstm"],
)
def test_other_models_are_exported_with_a_step(
    settings: dict[str, object], put_model: Callable[..., Run], small: SequenceData
) -> None:
    """The last frame's answer is that of the whole, in a model of either kind."""
    bundle = export_run(put_model(units=4, **settings), formats=("onnx",))
    said = open_stream(bundle).push(small.test.x[0])
    whole = open_runtime(bundle, "onnx").predict(small.test.x[:1])[0]
    np.testing.assert_allclose(said if whole.ndim == 2 else said[-1], whole, rtol=0, atol=ROUNDING)


# --- the command ---
def lines_of(x: np.ndarray) -> str:
    return "".join(",".join(map(repr, frame)) + "\n" for frame in x.tolist())


def streamed(
    argv: list[object], text: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> list[str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert cli.main(["stream", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_each_line_is_a_frame(
    small_bundle: Bundle, x: np.ndarray, exact: np.ndarray,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    lines = streamed([small_bundle.path, "--json"], lines_of(x[0]), monkeypatch, capsys)
    found = [json.loads(line) for line in lines]
    assert [each["frame"] for each in found] == list(range(12))
    close(np.array([list(each["probabilities"].values()) for each in found]), exact[0])
    for each, row in zip(found, exact[0], strict=True):
        assert each["label"] == small_bundle.spec.labels[row.argmax()]
        assert each["probability"] == each["probabilities"][each["label"]]


def test_a_file_of_json_and_an_empty_line_between_sequences(
    small_bundle: Bundle, x: np.ndarray, exact: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    text = "\n".join(json.dumps(frame) for frame in x[0].tolist())
    (tmp_path / "two.jsonl").write_text(f"{text}\n\n{text}\n")
    assert main([str(small_bundle.path), str(tmp_path / "two.jsonl"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["frame"] for each in found] == list(range(24))
    first, second = found[:12], found[12:]
    assert [each["probabilities"] for each in first] == [each["probabilities"] for each in second]
    close(np.array([each["probability"] for each in first]), exact[0].max(axis=1))


def test_a_line_is_printed_when_the_answer_changes(
    small_bundle: Bundle, x: np.ndarray, exact: np.ndarray,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    lines = streamed([small_bundle.path], lines_of(x[0]), monkeypatch, capsys)
    said = [
        f"{small_bundle.spec.labels[row.argmax()]}  {row.max():.0%}"
        for row in exact[0].astype(np.float32)
    ]
    changes = [0, *(t for t in range(1, 12) if said[t] != said[t - 1])]
    assert lines == [f"{t}  {said[t]}" for t in changes]
    assert len(lines) > 1


def test_the_last_answer_is_that_of_the_whole(
    small_bundle: Bundle, x: np.ndarray, tmp_path: Path, capsys: Capture
) -> None:
    np.savetxt(tmp_path / "wave.csv", x[0], delimiter=",")
    np.save(tmp_path / "wave.npy", x[0])
    assert cli.main(["stream", str(small_bundle.path), str(tmp_path / "wave.csv"), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert cli.main(["predict", str(small_bundle.path), str(tmp_path / "wave.npy"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert last["label"] == whole["label"]
    assert last["probability"] == pytest.approx(whole["probability"], abs=ROUNDING)


def test_a_session_goes_on_from_its_file(
    small_bundle: Bundle, x: np.ndarray, exact: np.ndarray, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    argv = [small_bundle.path, "--json", "--state", tmp_path / "state.npz"]
    streamed(argv, lines_of(x[0, :5]), monkeypatch, capsys)
    lines = streamed(argv, lines_of(x[0, 5:]), monkeypatch, capsys)
    close(np.array([json.loads(line)["probability"] for line in lines]), exact[0, 5:].max(axis=1))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1,2,3", "line 2 of standard input: expected 2 numbers, got 3"),
        ("1", "expected 2 numbers, got 1"),
        ("1,x", "line 2 of standard input is not numbers; expected CSV or JSON, got 'x'"),
        ("1,nan", "line 2 of standard input is not finite; got NaN"),
        (
            "1,1e39",
            "line 2 of standard input is not finite; got NaN, or more than float32 can hold",
        ),
        ("[1, 2", "line 2 of standard input is not JSON"),
        ('[1, "2"]', "line 2 of standard input is not numbers; expected a list of them"),
        (
            '{"a": 1}',
            "line 2 of standard input has other features; expected a list: they have no names",
        ),
    ],
)
def test_a_bad_line_is_named_by_its_number(
    line: str, what: str, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"0,0\n{line}\n0,0\n"))
    assert main([str(small_bundle.path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out.count("\n") == 1  # what came before is answered
    assert err.startswith("error: ")
    assert what.removeprefix("line 2 of standard input: ") in err
    assert "line 2 of standard input" in err


def test_a_file_or_a_state_that_is_not_there(
    small_bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    assert "no such file" in refusal(main, [small_bundle.path, tmp_path / "no.csv"], capsys)
    (tmp_path / "state.npz").write_text("no state")
    argv = [small_bundle.path, "--state", tmp_path / "state.npz"]
    assert "not a whole .npz file" in refusal(main, argv, capsys)
    assert (tmp_path / "state.npz").read_text() == "no state"


def started(bundle: Bundle) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rnn_tf.cli", "stream", str(bundle.path), "--json"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ),
        # A shell has its background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_each_answer_comes_at_once_and_ctrl_c_ends_it(small_bundle: Bundle) -> None:
    with started(small_bundle) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for frame in range(3):  # the next line is written when this one is answered
            process.stdin.write("0.5,0.5\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["frame"] == frame
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""


def test_it_ends_when_nobody_reads_any_more(small_bundle: Bundle) -> None:
    with started(small_bundle) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("0.5,0.5\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("0.5,0.5\n" * 3)
        process.stdin.flush()
        assert process.wait(30) == 141
        assert process.stderr.read() == ""
