"""A second process beside a command: what it does, how it fails, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.beside import Beside
from export.bundle import Bundle
from rnn_tf import Run

# A command's process; the functions that it leaves to the other one are importable.
COMMAND = """
import os, signal, sys, time
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.startup import ownership
from export.beside import beside
ownership.claim()
os.sched_getaffinity = lambda pid: {0, 1}  # whatever machine this is
"""
LEAVES = """
with beside() as other:
    left, failing = other.leave(os.getpid), other.leave(int, "no number")
    slow = other.leave(time.sleep, 0.5)
    shared = other.share(os.getpid)  # its turn has not come when it is wanted
    print(left() != os.getpid(), shared() == os.getpid(), shared() == os.getpid())
    try:
        failing()
    except ValueError as error:
        print(error)
"""
KILLED = """
try:
    with beside() as other:
        other.leave(os.kill, other.leave(os.getpid)(), signal.SIGKILL)()
except CheckFailed as error:
    print(error)
"""
FAILS = """
began = time.monotonic()
try:
    with beside() as other:
        other.leave(time.sleep, 60)
        raise InputError("bad")
except InputError as error:
    print(error, time.monotonic() - began < 30)
"""
PLAIN = """
os.environ[ownership.PLAIN_START] = "1"
with beside() as other:
    print(other.leave(os.getpid)() == os.getpid(), other.share(os.getpid)() == os.getpid())
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux")


def test_another_process_does_what_it_is_left_with() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND + LEAVES + KILLED + FAILS + PLAIN],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, number, killed, failed, plain = done.stdout.splitlines()
    assert first == "True True True"
    assert number == "invalid literal for int() with base 10: 'no number'"
    assert killed.startswith("the process that does half of the work was killed")
    assert failed == "bad True"
    assert plain == "True True"
    assert done.stderr == ""


def test_without_another_process_work_is_done_here() -> None:
    done: list[int] = []
    here = Beside()
    result = here.share(done.append, 2)
    here.leave(done.append, 1)
    assert done == [1]  # what is left at once, what is shared when it is wanted
    result()
    result()
    assert done == [1, 2]
    with pytest.raises(ValueError, match="no number"):
        here.leave(int, "no number")


def test_two_processes_make_the_bundle_that_one_makes(
    small_run: Run, small_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "export", str(small_run.path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if ":" not in line] == [
        "writing tflite", "writing tflite_int8", "writing onnx", "writing saved_model",
    ]  # fmt: skip
    # What TensorFlow and Keras write has counters and times in it.
    for file in ("model.tflite", "step.tflite", "model.int8.tflite", "model.onnx", "step.onnx"):
        assert (out / file).read_bytes() == (small_bundle.path / file).read_bytes()
    two, one = (
        json.loads(bundle.verification_file.read_text())
        for bundle in (Bundle.open(out), small_bundle)
    )
    for key in ("format", "family", "examples", "limit", "accuracy"):
        assert [row[key] for row in two["rows"]] == [row[key] for row in one["rows"]]


def test_ctrl_c_ends_both_processes_and_publishes_nothing(small_run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", str(small_run.path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell has its background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("verifying"):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "stopped; nothing was exported"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):  # nobody is left of its session
        os.killpg(process.pid, 0)
