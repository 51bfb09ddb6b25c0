"""How TensorFlow is started: a run depends on its settings only, and callers see no change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command

from rnn_tf import Run, TrainConfig
from rnn_tf.startup import xla_flags
from rnn_tf.training.keras import compilation

pytestmark = pytest.mark.slow

OPTIONS = ("--epochs", "1", "--preset", "tutorial", "--units", "6", "--seed", "3")
# As `OPTIONS` say it, from Python.
CALL = """
from rnn_tf import TrainConfig, train
from rnn_tf.config import preset
import dataclasses, sys
def call(path, evaluate=False):
    settings = dict(dataset=sys.argv[1], epochs=1, units=6, seed=3)
    config = dataclasses.replace(preset("tutorial"), **settings)
    return train(config, path, progress=False, evaluate=evaluate)
"""
ENVIRONMENT = {"XLA_FLAGS": None, "TF_XLA_FLAGS": None, "TF_CPP_MIN_LOG_LEVEL": None,
               "KERAS_BACKEND": None, "TF_FORCE_GPU_ALLOW_GROWTH": None}  # fmt: skip


def python(
    code: str, folder: Path, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What a program of someone else prints, which is not started with our variables."""
    clean = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
    return subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=folder, check=False,
        env={**clean, **environment},
    )  # fmt: skip


def weights(path: Path) -> list[np.ndarray]:
    result: list[np.ndarray] = Run.open(path).load_model().get_weights()
    return result


@pytest.fixture(scope="module")
def expected(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The weights that the command gives."""
    folder = tmp_path_factory.mktemp("command")
    code = "from rnn_tf import cli\nimport sys\nsys.exit(cli.main())"
    done = python(code, folder, "train", "--dataset", small_npz, "--run-dir", "run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "loops compiled whole, float32, " in done.stderr.splitlines()[1]
    return weights(folder / "run")


def assert_bits(
    done: subprocess.CompletedProcess[str], path: Path, expected: list[np.ndarray]
) -> None:
    """A program ended well and without a warning, and its run has exactly these weights."""
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    for one, other in zip(weights(path), expected, strict=True):
        np.testing.assert_array_equal(one, other)


COMPILED = {
    "a program of someone else": "import tensorflow as tf\n"
    "tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))",
    # What the training of a large layer asks for.
    "a large layer": "from rnn_tf.startup import process\nprocess.start(whole_loops=False)",
}


@pytest.mark.parametrize("before", COMPILED)
def test_a_process_that_has_compiled_otherwise_says_so(
    before: str, small_npz: Path, tmp_path: Path
) -> None:
    done = python(f"{CALL}\n{COMPILED[before]}\ncall('run')", tmp_path, small_npz)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("UserWarning: XLA compiles loops as it does by default") == 1
    kept = json.loads(Run.open(tmp_path / "run").compiled_file.read_text())
    assert kept["whole_loops"] is False


def test_a_plain_start_is_recorded_and_not_warned_of(small_npz: Path, tmp_path: Path) -> None:
    done = python(f"{CALL}\ncall('run')", tmp_path, small_npz, RNN_TF_PLAIN_START="1")
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    assert json.loads((tmp_path / "run" / "compiled.json").read_text())["whole_loops"] is False


STATE = """
import gc, os, sys, threading
def state():
    return (dict(os.environ), list(sys.meta_path), sys.stderr, os.fstat(2)[:3], gc.isenabled(),
            gc.get_freeze_count(), sys.modules.get("jax", "not there"),
            [type(module).__name__ for name, module in sorted(sys.modules.items())
             if name.startswith(("tensorflow._api", "keras.src.vis"))])
"""


def test_a_call_leaves_the_process_as_it_was(
    expected: list[np.ndarray], small_npz: Path, tmp_path: Path
) -> None:
    """One that has used TensorFlow, but not XLA; and the bits are those of the command."""
    done = python(
        "import tensorflow as tf, keras\n"
        "tf.function(lambda x: x + 1)(tf.constant(1.0)); tf.config.list_logical_devices()\n"
        "keras.Sequential([keras.layers.Dense(1)]).predict(tf.zeros((1, 1)), verbose=0)\n"
        f"{STATE}{CALL}\nbefore = state()\nrun = call('run', evaluate=True)\n"
        "assert state() == before\n"
        "from rnn_tf.evaluate import evaluate\nevaluate(run)\n"
        "from rnn_tf.predict import predict\n"
        "predict(run, __import__('numpy').zeros((1, 12, 2), 'float32'))\n"
        "assert state() == before",
        tmp_path, small_npz,
    )  # fmt: skip
    assert_bits(done, tmp_path / "run", expected)


def test_a_call_that_imports_tensorflow_leaves_none_of_our_variables(
    expected: list[np.ndarray], small_npz: Path, tmp_path: Path
) -> None:
    """And the bits are those of the command."""
    done = python(
        f"import os, sys, gc\nnames = {list(ENVIRONMENT)}\n{CALL}\ncall('run')\n"
        "assert not [name for name in names if name in os.environ]\n"
        "assert gc.get_freeze_count() == 0\n"
        # TensorFlow imports it where it is installed.
        "assert sys.modules.get('jax', 'not there') is not None\n"
        "assert not [m for m in sys.meta_path if 'rnn_tf' in getattr(m, '__module__', '')]",
        tmp_path, small_npz,
    )  # fmt: skip
    assert_bits(done, tmp_path / "run", expected)


# --- Keras as the user has it ---
@pytest.fixture
def strange_keras(tmp_path: Path) -> str:
    """A folder with a `keras.json` that asks for another precision."""
    settings = {"floatx": "float16", "epsilon": 1e-3, "backend": "jax",
                "image_data_format": "channels_first"}  # fmt: skip
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    return str(tmp_path)


def test_a_command_forces_tensorflow_and_float32_and_says_so(
    strange_keras: str,
    expected: list[np.ndarray],
    small_npz: Path,
    command: Command,
    tmp_path: Path,
) -> None:
    done = command(
        "rnn_tf.cli", "train", "--dataset", small_npz, "--run-dir", "run", *OPTIONS,
        KERAS_BACKEND="jax", KERAS_HOME=strange_keras,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in (
        "warning: KERAS_BACKEND=jax is not followed: rnn_tf runs Keras on TensorFlow",
        "warning: floatx float16 of keras.json is not followed: rnn_tf uses float32",
        "warning: epsilon 0.001 of keras.json is not followed: rnn_tf uses 1e-07",
    ):
        assert done.stderr.splitlines().count(line) == 1
    for one, other in zip(weights(tmp_path / "run"), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_call_refuses_another_precision_and_its_advice_works(
    strange_keras: str, expected: list[np.ndarray], small_npz: Path, tmp_path: Path
) -> None:
    code = (
        f"{CALL}\nfor _ in range(3):\n"
        "    try:\n        call('run'); break\n"
        "    except ValueError as error:\n"
        "        print(error)\n        import keras\n"
        "        exec(str(error).partition('Call ')[2].partition(' first.')[0])\n"
    )
    done = python(code, tmp_path, small_npz, KERAS_HOME=strange_keras)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Keras has another floatx in this process; expected float32, got float16. "
        "Call keras.config.set_floatx('float32') first.",
        "Keras has another epsilon in this process; expected 1e-07, got 0.001. "
        "Call keras.config.set_epsilon(1e-07) first.",
    ]
    for one, other in zip(weights(tmp_path / "run"), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.torch
def test_keras_on_another_backend_is_refused_in_one_line(small_npz: Path, tmp_path: Path) -> None:
    code = (
        "import keras\nfrom rnn_tf.errors import InputError\n"
        f"{CALL}\ntry:\n    call('run')\nexcept InputError as error:\n    print(error)"
    )
    done = python(code, tmp_path, small_npz, KERAS_BACKEND="torch")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Keras already runs on another backend in this process; expected tensorflow, got torch. "
        "Restart Python, and set the environment variable KERAS_BACKEND=tensorflow before Keras "
        "is imported.\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_broken_keras_json_is_one_line(small_npz: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"floatx": "float8"}')
    done = command("rnn_tf.train", "--dataset", small_npz, KERAS_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: cannot import Keras; got Invalid `floatx`"
    )


# --- messages ---
def test_a_warning_while_tensorflow_is_imported_is_seen(command: Command, tmp_path: Path) -> None:
    x = np.full((20, 3, 1), 1 / 3)
    splits = ("train", "valid", "test")
    arrays: dict[str, Any] = {f"x_{split}": x for split in splits}
    arrays |= {f"y_{split}": np.arange(20) % 2 for split in splits}
    np.savez(tmp_path / "rounded.npz", **arrays)
    # Refused when the data are there and TensorFlow is: that needs no training.
    done = command("rnn_tf.train", "--dataset", "rounded.npz", "--activation", "rely")
    assert done.returncode == 2, done.stderr
    assert "unknown activation 'rely'" in done.stderr.splitlines()[-1]
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert any("float64 values are rounded to float32" in line for line in lines)


def test_an_error_while_tensorflow_is_imported_is_seen(command: Command) -> None:
    done = command("rnn_tf.train", "--dataset", "tfds:no_such_set")
    assert done.returncode == 2
    assert done.stderr.startswith("error: TensorFlow Datasets has no 'no_such_set'")


# --- what a run says of how it was compiled ---
@pytest.fixture
def begun(tensorflow: None, small_npz: Path, tmp_path: Path) -> Run:
    """A run with a checkpoint, as far as this is read here."""
    from rnn_tf import load

    config = TrainConfig(dataset=str(small_npz))
    run = Run.create(tmp_path / "begun", config, load(str(small_npz)).spec)
    compilation.keep(run)
    run.save_state({"history": np.array("[]")})
    return run


def test_a_run_that_goes_on_compiled_otherwise_warns(
    begun: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilation.keep(begun)  # the same: nothing to say
    monkeypatch.setattr(xla_flags, "are_in_effect", lambda: False)
    with pytest.warns(UserWarning, match="compiled otherwise .*whole_loops was True and is"):
        compilation.keep(begun)
    begun.drop_checkpoint()  # it begins anew: what counts is how that is compiled
    compilation.keep(begun)
    assert json.loads(begun.compiled_file.read_text())["whole_loops"] is False


def test_a_damaged_record_is_one_line(begun: Run) -> None:
    begun.compiled_file.write_text("{")
    with pytest.raises(ValueError, match=r"cannot read .*compiled\.json"):
        compilation.keep(begun)


@pytest.mark.usefixtures("tensorflow")
def test_the_first_line_says_when_the_flags_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compilation.describe(TrainConfig()) == ", loops compiled whole"
    monkeypatch.setattr(xla_flags, "are_in_effect", lambda: False)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.22.0")
    assert "not known for TensorFlow 2.22.0" in compilation.describe(TrainConfig())
    assert compilation.describe(TrainConfig(units=600)) == ""
