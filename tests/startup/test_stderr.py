"""Native messages are held back in a command; what Python writes is never lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SETUP = """
import logging, os, sys, threading, warnings
from rnn_tf.startup import ownership
from rnn_tf.startup.stderr import muted
def native(text): os.write(2, text.encode() + b"\\n")
"""
CLAIM = "ownership.claim()\n"


def shown(code: str, **environment: str) -> str:
    """What a process shows on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


CROSSED = """
first_in, second_in, first_out = (threading.Event() for _ in range(3))
def first():
    with muted():
        native("noise 1")
        first_in.set()
        second_in.wait()
    first_out.set()
def second():
    first_in.wait()
    with muted():
        second_in.set()
        first_out.wait()
        native("noise 2")
        print("from the second", file=sys.stderr)
        warnings.warn("a warning")
threads = [threading.Thread(target=run) for run in (first, second)]
[thread.start() for thread in threads]
first_out.wait()
print("meanwhile", file=sys.stderr)
[thread.join() for thread in threads]
print("afterwards", file=sys.stderr)
native("native afterwards")
"""


def test_two_threads_that_mute_crosswise_lose_nothing() -> None:
    text = shown(CLAIM + CROSSED)
    for line in ("from the second", "a warning", "meanwhile", "afterwards", "native afterwards"):
        assert line in text
    assert "noise" not in text


def test_nothing_is_lost_however_many_threads_mute() -> None:
    text = shown(
        CLAIM
        + """
def work(number):
    for i in range(50):
        with muted():
            native("noise")
            print(f"<{number}-{i}>", file=sys.stderr)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("open", len(os.listdir("/proc/self/fd")), file=sys.stderr)
with muted(): pass
print("open", len(os.listdir("/proc/self/fd")), file=sys.stderr)
"""
    )
    assert all(f"<{number}-{i}>" in text for number in range(8) for i in range(50))
    assert "noise" not in text
    before, after = [line for line in text.splitlines() if line.startswith("open")]
    assert before == after


def test_what_was_held_is_shown_once_when_something_fails() -> None:
    text = shown(
        CLAIM
        + """
try:
    with muted():
        native("the reason")
        with muted():
            raise RuntimeError
except RuntimeError:
    print("failed", file=sys.stderr)
"""
    )
    assert text == "the reason\nfailed\n"


def test_a_logger_made_meanwhile_writes_on_afterwards() -> None:
    text = shown(
        CLAIM
        + """
for i in range(2):
    with muted():
        logging.basicConfig()
        logging.warning("during %d", i)
    logging.warning("after %d", i)
"""
    )
    assert text.splitlines() == [
        f"WARNING:root:{when} {i}" for i in range(2) for when in ("during", "after")
    ]


@pytest.mark.parametrize(
    ("claim", "plain"), [("", "0"), (CLAIM, "1")], ids=["a program", "a plain start"]
)
def test_nothing_is_held_back_elsewhere(claim: str, plain: str) -> None:
    code = (
        "before = sys.stderr\nwith muted():\n    native('shown')\n    assert sys.stderr is before"
    )
    assert shown(claim + code, RNN_TF_PLAIN_START=plain) == "shown\n"
