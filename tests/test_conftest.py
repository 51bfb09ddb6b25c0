"""What conftest.py promises: TensorFlow is started where it is needed, and only there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rnn_tf.startup import xla_flags

ROOT = Path(__file__).parents[1]
WITHOUT_TENSORFLOW = (
    "test_command.py", "test_config.py", "test_documents.py", "test_imports.py", "test_scores.py",
    "files", "data/test_normalize.py", "data/test_npz.py", "data/test_spec.py",
    "data/test_splits.py", "startup/test_stderr.py",
)  # fmt: skip
CODE = """
import sys, pytest
code = pytest.main(["-n", "0", "-q", "-p", "no:cacheprovider", *sys.argv[1:]])
started = {"keras", "tensorflow", "torch"} & sys.modules.keys()
sys.exit(f"imported: {started}" if started else code)
"""


@pytest.mark.slow
def test_tests_that_need_no_tensorflow_start_none() -> None:
    paths = [f"tests/{name}" for name in WITHOUT_TENSORFLOW]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *paths],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_importing_keras_starts_it_as_the_command_does() -> None:
    import keras

    assert keras.backend.backend() == "tensorflow"
    assert xla_flags.are_in_effect()
