"""The commands as a user meets them: what they import, what they answer, how they refuse."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rnn_tf
from rnn_tf import Run, cli
from rnn_tf.train import main as train_main

Capture = pytest.CaptureFixture[str]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
MODULES = (
    "rnn_tf.train", "rnn_tf.evaluate", "rnn_tf.predict", "rnn_tf.cli", "export", "export.verify",
    "export.benchmark", "export.predict", "tuning.search", "rnn_tf.data.convert",
)  # fmt: skip


def python(code: str) -> str:
    """What a fresh interpreter prints; it must succeed, and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# The process of a command in which TensorFlow has been started.
COMMAND = "from rnn_tf.startup import ownership, process\nownership.claim()\nprocess.start()\n"
HEAVY = "sorted({'tensorflow', 'keras', 'torch', 'jax', 'matplotlib'} & set(sys.modules))"


# --- imports ---
def test_importing_does_not_import_tensorflow() -> None:
    statements = (
        "import rnn_tf",
        "from rnn_tf import TrainConfig, load, Run",
        "from rnn_tf import train",
        "import rnn_tf.train, rnn_tf.evaluate, rnn_tf.predict, rnn_tf.cli",
        "import export, export.__main__, export.publish, export.verify, export.predict",
        "import export.bundle, export.benchmark, export.runtimes, export.oracle, export.readme",
        "from rnn_tf import load; load('mnist')",
    )
    each = "".join(f"{statement}; print({HEAVY})\n" for statement in statements)
    assert python(f"import sys\n{each}") == len(statements) * "[]\n"


@pytest.mark.parametrize("module", MODULES)
def test_help_does_not_import_tensorflow(module: str) -> None:
    out = python(
        "import runpy, sys\n"
        "sys.argv = ['program', '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    print('exit', stop.code or 0)\n"
        f"print({HEAVY})\n"
    )
    assert out.startswith("usage: ")
    assert out.endswith("exit 0\n[]\n")


def test_what_keras_seldom_needs_is_imported_when_it_is_used() -> None:
    slow = "sorted({'sklearn', 'matplotlib.pyplot'} & set(sys.modules))"
    # TensorFlow asks each module for its file.
    started = (
        f"import gc, sys\n{COMMAND}import keras\n"
        "[getattr(module, '__file__', None) for module in list(sys.modules.values())]\n"
    )
    used = "keras.wrappers.SKLearnClassifier, keras.visualization.plot_image_gallery"
    said = python(f"{started}print({slow}, gc.isenabled())\n{used}\nprint({slow})")
    assert said == "[] True\n['matplotlib.pyplot', 'sklearn']\n"


def test_the_interfaces_of_tensorflow_1_and_2_are_imported_when_they_are_used() -> None:
    started = f"import sys\n{COMMAND}import tensorflow as tf\n"
    count = "print(sum(name.startswith('tensorflow._api.v2.compat.v') for name in sys.modules))\n"
    v1 = (
        "import tensorflow.compat.v1 as tf1\nprint(tf1 is tf.compat.v1, tf1.placeholder.__name__)\n"
    )
    used = "tf.compat.v2.constant, tf.compat.v1.lite.TFLiteConverter\n"
    before, same, name, after = python(f"{started}{count}{v1}{used}{count}").split()
    assert int(before) == 0
    assert (same, name) == ("True", "placeholder")
    assert int(after) > 100


def test_jax_is_not_imported_beside_tensorflow_and_can_be_afterwards(tmp_path: Path) -> None:
    (tmp_path / "jax.py").write_text("here = True")
    out = python(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        f"{COMMAND}print('jax' in sys.modules)\n"
        "import jax\nprint(jax.here)"
    )
    assert out == "False\nTrue\n"


def test_train_is_the_function_whatever_was_imported_before() -> None:
    assert python(
        "import rnn_tf\n"
        "from rnn_tf import train\n"
        "print(callable(train), train.__name__)\n"
        "import rnn_tf.train\n"
        "print(rnn_tf.train is train)\n"
        "from rnn_tf.train import main, train as again\n"
        "print(again is train, rnn_tf.train is train)\n"
        "import importlib\n"
        "print(importlib.import_module('rnn_tf.train').main is main)\n"
    ).splitlines() == ["True train", "True", "True True", "True"]


def test_the_package_names_what_it_offers() -> None:
    assert set(rnn_tf.__all__) <= set(dir(rnn_tf))
    for name in rnn_tf.__all__:
        assert callable(getattr(rnn_tf, name))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = rnn_tf.nothing


# --- rnn-tf ---
@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_usage_names_every_command(argv: list[str], capsys: Capture) -> None:
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: rnn-tf COMMAND")
    for name in cli.COMMANDS:
        assert f"\n  {name} " in out


def test_version(capsys: Capture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rnn-tf {rnn_tf.__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help_under_its_own_name(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: rnn-tf {name} ")
    assert err == ""


def test_the_help_of_a_flag_says_what_giving_it_does(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "--no-fused Run a whole epoch as one compiled program" not in out


def refused(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", ["trian", "", "--units", "TRAIN"])
def test_an_unknown_command_is_one_line(name: str, capsys: Capture) -> None:
    assert cli.main([name]) == 2
    line = refused(capsys)
    assert f"unknown command {name!r}; expected one of train, evaluate, predict" in line


def test_a_command_hands_its_exit_code_and_message_on(capsys: Capture) -> None:
    assert cli.main(["evaluate", "nowhere"]) == 2
    assert "not a run: nowhere" in refused(capsys)
    assert cli.main(["evaluate", "nowhere", "--jsn"]) == 2
    assert "See rnn-tf evaluate --help." in refused(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["export", "nowhere"], "not a run: nowhere"),
        (["verify", "nowhere"], "not a bundle: nowhere"),
        (["benchmark", "nowhere"], "not a bundle: nowhere"),
        (["export", "nowhere", "--formatt", "onnx"], "See rnn-tf export --help."),
        (["verify", "nowhere", "--jsn"], "See rnn-tf verify --help."),
        (["benchmark", "nowhere", "--rounds", "0"], "bad rounds; expected more than 0, got 0"),
    ],
)
def test_what_ships_a_run_refuses_in_one_line(
    argv: list[str], message: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    assert message in refused(capsys)
    assert list(tmp_path.iterdir()) == []


def test_predict_is_that_of_a_bundle_when_it_is_given_one(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert cli.main(["predict", str(tmp_path), "a.png"]) == 2
    assert f"bad manifest: {tmp_path / 'manifest.json'}" in refused(capsys)
    (tmp_path / "manifest.json").unlink()
    assert cli.main(["predict", str(tmp_path), "a.png"]) == 2
    assert f"not a run: {tmp_path}" in refused(capsys)


# --- what train refuses ---
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--dataset", "mnst"],
            "unknown dataset 'mnst'; expected mnist, tfds:<name>, tfrecord:<glob>, a file (.npz,",
        ),
        (["--dataset", "nowhere.npz"], "nowhere.npz: cannot be read"),
        (["--preset", "fast"], "unknown preset 'fast'; expected one of best, tutorial"),
        (["--cell", "rnn"], "'rnn'"),
        (["--precision", "float64"], "'float64'"),
        (["--optimizer", "sgd"], "'sgd'"),
        (["--nothing", "1"], "--nothing"),
        (["--unit", "3"], "similar: --units"),
        (["--units", "0"], "bad units; expected a whole number >= 1, got 0"),
        (["--units", "many"], "--units: invalid literal for int() with base 10: 'many'"),
        (["--units"], "--units"),
        (
            ["--learning-rate", "-1"],
            "bad learning_rate; expected a positive number or auto, got -1.0",
        ),
        (["--learning-rate", "nan"], "bad learning_rate"),
        (["--warmup", "1"], "bad warmup; expected 0 <= value < 1, got 1.0"),
        (["--activation", "rely"], "unknown activation 'rely'"),
        (["--recurrent-initializer", "eye"], "unknown recurrent_initializer 'eye'"),
        (["--backend", "jax"], "'jax'"),
        (["--layers", "0"], "bad layers; expected a whole number >= 1, got 0"),
        (["--layers", "two"], "--layers: invalid literal for int() with base 10: 'two'"),
        (["--bidirectional", "yes"], "yes"),
        (
            ["--backend", "torch", "--recurrent-dropout", "0.1"],
            "--backend torch cannot have this recurrent_dropout",
        ),
        (
            ["--backend", "torch", "--optimizer", "muon"],
            "--backend torch cannot have this optimizer; expected adam, adamw or soap, got muon",
        ),
        (
            ["--backend", "torch", "--strategy", "mirrored", "--optimizer", "adam"],
            "--backend torch cannot have this strategy; expected auto or none, got mirrored",
        ),
        (["--resume"], "--resume needs the folder of a run. Add --run-dir."),
        (["--resume", "--run-dir", "other"], "not empty and not a run: other"),
        (["--run-dir", "file"], "not a folder: file"),
        (["--run-dir", "file/run"], "cannot write file/run"),
        (["--run-dir", "other"], "not empty and not a run: other"),
        (["--run-dir", "/proc/nowhere"], "cannot write /proc/nowhere"),
    ],
)
def test_train_refuses_in_one_line_and_leaves_nothing_behind(
    argv: list[str], message: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("other").mkdir()
    Path("other", "file").write_text("mine")
    assert train_main(argv) == 2
    assert message in refused(capsys)
    assert sorted(map(str, Path().rglob("*"))) == ["file", "other", "other/file"]


def test_without_pytorch_train_says_how_to_install_it_and_leaves_nothing_behind(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_main(["--unknown"])  # tyro asks for torch when it first reads a command line
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in (
        "rnn_tf.training.torch.backend",
        "rnn_tf.training.torch.fit",
        "rnn_tf.training.torch.module",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
        # A package still has what was once imported from it.
        package, _, module = name.rpartition(".")
        monkeypatch.delattr(f"{package}.{module}", raising=False)
    assert train_main(["--backend", "torch", "--run-dir", str(tmp_path / "run")]) == 2
    line = refused(capsys)
    assert line == 'error: PyTorch is not installed. pip install "rnn-tf[torch]"\n'
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_replaced_unasked(run: Run, capsys: Capture) -> None:
    before = run.model_file.read_bytes()
    assert train_main(["--run-dir", str(run.path)]) == 2
    line = refused(capsys)
    assert "already holds a finished run" in line
    assert "--overwrite" in line
    assert run.model_file.read_bytes() == before


@pytest.mark.parametrize("wrong", [["--activation", "rely"], ["--dataset", "mnst"]])
def test_a_run_is_not_replaced_by_one_that_cannot_begin(
    wrong: list[str], run: Run, tmp_path: Path, capsys: Capture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    assert train_main(["--run-dir", str(copy), "--overwrite", *wrong]) == 2
    refused(capsys)
    assert Run.open(copy).metrics == run.metrics
    assert (copy / "model.keras").read_bytes() == run.model_file.read_bytes()


@pytest.mark.parametrize("option", ["--run-dir", "--run_dir"])
def test_resuming_a_finished_run_gives_it_back(option: str, run: Run, capsys: Capture) -> None:
    before = run.model_file.stat().st_mtime_ns
    assert train_main([option, str(run.path), "--resume"]) == 0
    out, err = capsys.readouterr()
    assert f"run         {run.path}" in out
    assert err == ""
    assert run.model_file.stat().st_mtime_ns == before


def test_resuming_with_other_settings_is_refused(run: Run, capsys: Capture) -> None:
    assert train_main(["--run-dir", str(run.path), "--resume", "--units", "64"]) == 2
    assert "the run was begun with another units; expected 32, got 64" in refused(capsys)


# --- as separate processes ---
@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("rnn_tf.train", ["--units", "0"], "bad units"),
        ("rnn_tf.evaluate", ["nowhere"], "not a run: nowhere"),
        ("rnn_tf.predict", ["nowhere", "a.png"], "not a run: nowhere"),
        ("rnn_tf.cli", ["trian"], "unknown command 'trian'"),
        ("export", ["nowhere"], "not a run: nowhere"),
        ("export.verify", ["nowhere"], "not a bundle: nowhere"),
        ("export.benchmark", ["nowhere"], "not a bundle: nowhere"),
        ("export.predict", ["nowhere", "a.png"], "not a bundle: nowhere"),
    ],
)
def test_a_process_refuses_in_one_line(
    module: str, arguments: list[str], message: str, command: Command
) -> None:
    """Also on a terminal without Unicode."""
    done = command(module, *arguments, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.slow
def test_train_evaluate_and_predict_from_the_command_line(
    small_npz: Path, tmp_path: Path, command: Command
) -> None:
    trained = command(
        "rnn_tf.cli", "train", "--dataset", small_npz, "--run-dir", "run", "--epochs", 2
    )
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1] == "run         run"
    assert "Traceback" not in trained.stderr
    accuracy = f"{Run.open(tmp_path / 'run').metrics['test']['accuracy']:.2%}"
    evaluated = command("rnn_tf.evaluate", "run")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    assert evaluated.stdout.startswith(f"accuracy  {accuracy} of 50 examples\n")


@pytest.mark.parametrize(
    ("name", "module"), [("export", "export.py"), ("tune", "tuning/__init__.py")]
)
def test_a_module_of_the_users_own_that_hides_ours_is_named(
    name: str, module: str, tmp_path: Path, command: Command
) -> None:
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text("raise SystemExit('theirs was run')")
    done = command("rnn_tf.cli", name, "run")
    assert (done.returncode, done.stdout) == (2, "")
    package = module[: module.index(".")].partition("/")[0]
    assert done.stderr.startswith(f"error: another module hides the package {package!r} of rnn-tf")
    assert f"got {tmp_path / module}. Rename that one" in done.stderr
    assert done.stderr.count("\n") == 1
