"""The directory of a run: written whole or not at all, opened only when all of it makes sense."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceSpec
from rnn_tf.data.normalize import Normalize
from rnn_tf.errors import InputError
from rnn_tf.files.writing import write_text, writing
from rnn_tf.run import FORMAT, holds_run, new_folder

SPEC = SequenceSpec(timesteps=5, features=2, labels=("a", "b", "c"), normalize=Normalize((0.5,)))
CONFIG = TrainConfig(units=4, seed=9)

Damage = Callable[[Path], object]


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder: path and content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(255 - byte for byte in data[middle : middle + 64])
    path.write_bytes(data)


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """A run before its first epoch."""
    return Run.create(tmp_path / "run", CONFIG, SPEC)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A finished run that may be damaged."""
    shutil.copytree(run.path, tmp_path / "copy")
    return Run.open(tmp_path / "copy")


# --- create and open ---
def test_what_is_created_can_be_opened(begun: Run) -> None:
    assert Run.open(begun.path) == begun
    assert Run.open(str(begun.path)) == begun
    assert not begun.finished
    assert begun.history == []
    assert begun.load_state() is None


def test_a_run_may_lie_in_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert Run.open(Run.create(path, CONFIG, SPEC).path).path == path


def test_config_json_can_be_read_by_a_person(begun: Run) -> None:
    settings = json.loads((begun.path / "config.json").read_text())
    assert settings["format"] == FORMAT
    assert (settings["units"], settings["seed"]) == (4, 9)


def test_metrics_finish_a_run_and_drop_its_checkpoint(begun: Run) -> None:
    begun.save_state({"x": np.ones(3)})
    begun.save_metrics({"parameters": 7})
    assert begun.finished
    assert begun.metrics == {"parameters": 7}
    assert begun.load_state() is None
    assert not begun.checkpoint_file.parent.exists()


def test_state_and_history_come_back(begun: Run) -> None:
    state = {"model/0": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7)}
    begun.save_state(state)
    loaded = begun.load_state()
    assert loaded is not None
    assert loaded.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    history = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}]
    begun.save_history(history)
    assert begun.history == history


def test_the_trained_run_is_complete(run: Run) -> None:
    assert run.finished
    assert set(files(run.path)) >= {
        "config.json",
        "spec.json",
        "model.keras",
        "history.jsonl",
        "metrics.json",
        "curves.png",
        "confusion.png",
    }
    assert not run.checkpoint_file.exists()
    assert run.load_model().count_params() == run.metrics["parameters"] == 2_282


def test_a_new_run_takes_the_place_of_the_old_one(copy: Run) -> None:
    (copy.path / "notes.txt").write_text("mine")
    again = Run.create(copy.path, CONFIG, SPEC)
    assert Run.open(copy.path) == again
    assert set(files(copy.path)) == {"config.json", "spec.json", "notes.txt"}
    assert (copy.path / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run"):
        Run.create(tmp_path, CONFIG, SPEC)
    assert files(tmp_path) == {"model.keras": b"mine"}


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="not a folder"):
        Run.create(tmp_path / "file", CONFIG, SPEC)
    with pytest.raises(InputError, match=r"cannot write .*file/run: Not a directory"):
        Run.create(tmp_path / "file" / "run", CONFIG, SPEC)
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("place", ["/proc/rnn_tf/run", "/sys/rnn_tf"])
def test_a_read_only_place_is_named(place: str) -> None:
    with pytest.raises(InputError, match=rf"^cannot write {place}: .*Choose another folder"):
        Run.create(Path(place), CONFIG, SPEC)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda path: None, "no folder"),
        (lambda path: path.mkdir(), "a folder without it"),
        (lambda path: path.write_text("{}"), "no folder"),
        (lambda path: (path / "config.json").mkdir(parents=True), "a folder without it"),
    ],
)
def test_what_is_not_a_run_is_not_opened(make: Damage, got: str, tmp_path: Path) -> None:
    make(tmp_path / "run")
    assert not holds_run(tmp_path / "run")
    with pytest.raises(InputError, match=rf"^not a run: .*/run; expected .*, got {got}$"):
        Run.open(tmp_path / "run")


def test_a_newer_format_asks_for_an_upgrade(begun: Run) -> None:
    settings = json.loads((begun.path / "config.json").read_text())
    settings |= {"format": FORMAT + 1, "something_new": True}
    (begun.path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=rf"newer version: .*/run; .*got {FORMAT + 1}\. Upgrade"):
        Run.open(begun.path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b"null", b"{}", b"\xff\xfe", b"[" * 10**5]
)
def test_a_damaged_configuration_is_named(content: bytes, begun: Run) -> None:
    (begun.path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        Run.open(begun.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": 3}, "unknown setting 'unit'"),
        ({"units": "many"}, "bad units"),
        ({"cell": "rnn"}, "unknown cell 'rnn'"),
        ({"format": "one"}, "got one"),
    ],
)
def test_a_setting_that_was_edited_wrongly_is_named(
    change: dict[str, Any], message: str, begun: Run
) -> None:
    settings = json.loads((begun.path / "config.json").read_text())
    (begun.path / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(InputError, match=message):
        Run.open(begun.path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"cannot read .*spec\.json"),
        (lambda path: path.write_text("{"), "specification is not JSON"),
        (lambda path: path.write_text("{}"), "specification has other keys"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "specification"),
        (truncate, "specification is not JSON"),
    ],
)
def test_a_damaged_specification_is_named(damage: Damage, message: str, begun: Run) -> None:
    damage(begun.path / "spec.json")
    with pytest.raises(InputError, match=message):
        Run.open(begun.path)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_the_middle,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\3\4"),
        lambda path: path.write_text("not an archive"),
        lambda path: np.savez(path, x=np.array([{}], object)),
    ],
)
def test_a_damaged_checkpoint_is_named(damage: Damage, begun: Run) -> None:
    begun.save_state({"x": np.random.default_rng(0).normal(size=1000)})
    damage(begun.checkpoint_file)
    with pytest.raises(InputError, match=r"^the checkpoint is damaged: .*state\.npz.*--overwrite"):
        begun.load_state()


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        truncate,
        flip_the_middle,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a model"),
    ],
)
def test_a_damaged_model_is_named(damage: Damage, copy: Run) -> None:
    damage(copy.model_file)
    with pytest.raises(InputError, match=r"^cannot read .*model\.keras"):
        copy.load_model()


def test_an_archive_that_is_not_a_model_is_named(copy: Run) -> None:
    with zipfile.ZipFile(copy.model_file, "w") as archive:
        archive.writestr("readme.txt", "not a model")
    with pytest.raises(InputError, match=r"^cannot read .*model\.keras"):
        copy.load_model()


def test_code_in_a_model_is_not_run(copy: Run) -> None:
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Lambda(lambda x: x)])
    model.save(copy.model_file)
    with pytest.raises(InputError, match=r"cannot read .*model"):
        copy.load_model()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_damaged_metrics_are_named(content: bytes, begun: Run) -> None:
    begun.metrics_file.write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.json"):
        _ = begun.metrics


@pytest.mark.parametrize("content", [b'{"epoch": 1}\n{"epo', b"\xff"])
def test_a_damaged_history_is_named(content: bytes, begun: Run) -> None:
    begun.history_file.write_bytes(content)
    with pytest.raises(InputError, match=r"history\.jsonl"):
        _ = begun.history


def test_an_unfinished_run_says_how_to_go_on(begun: Run) -> None:
    message = r"^the run is not finished: .*/run\. Go on with: .* --run-dir .*/run --resume$"
    for ask in (begun.require_finished, begun.load_model, lambda: begun.metrics):
        with pytest.raises(InputError, match=message):
            ask()


# --- writing ---
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), writing(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        assert files(tmp_path)["file.txt"] == b"old"
        raise error
    assert files(tmp_path) == {"file.txt": b"old"}


def test_a_finished_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    write_text(path, "neu: ä\n")
    assert files(tmp_path) == {"deep/file.txt": "neu: ä\n".encode()}


def test_a_write_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"^cannot write .*/file/below: "):
        write_text(tmp_path / "file" / "below", "text")
    assert files(tmp_path) == {"file": b"mine"}


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from rnn_tf import Run
from rnn_tf.errors import InputError

run = Run.open(sys.argv[1])
# No file may grow beyond this, as on a disk that is full. Python ignores SIGXFSZ.
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (
    lambda: run.save_state({"x": np.ones(5000)}),
    lambda: run.save_history([{"epoch": i} for i in range(1000)]),
    lambda: run.save_metrics({"text": "x" * 5000}),
):
    try:
        write()
    except InputError as error:
        print(error)
"""


def test_a_full_disk_costs_nothing_that_was_there(begun: Run) -> None:
    begun.save_state({"x": np.arange(3)})
    begun.save_history([{"epoch": 1}])
    before = files(begun.path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, begun.path], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("state.npz", "history.jsonl", "metrics.json"), strict=True):
        assert line.startswith("cannot write ")
        assert f"{name}: File too large. Free some space" in line
    assert files(begun.path) == before


TRAINING_ON_A_FULL_DISK = """
import resource, sys
from rnn_tf.startup import ownership, process
from rnn_tf.train import main

ownership.claim()
process.start(whole_loops=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["full too", "off"])
def test_training_on_a_full_disk_ends_with_one_line(
    cache: str, small_npz: Path, tmp_path: Path
) -> None:
    flags = "--tf_xla_persistent_cache_directory=" if cache == "off" else ""
    arguments = ["--dataset", str(small_npz), "--run-dir", str(tmp_path / "run"), "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", TRAINING_ON_A_FULL_DISK, *arguments, "--no-fused"],
        env={**os.environ, "TF_XLA_FLAGS": flags, "RNN_TF_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    said = "the disk of the cache full" if cache == "full too" else "error: cannot write"
    assert said in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob(".*"))


# --- names ---
@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("mnist", "mnist-gru8-20260102-030405"),
        ("tfds:fashion_mnist", "fashion_mnist-gru8-20260102-030405"),
        ("/data/my waves.npz", "my waves-gru8-20260102-030405"),
    ],
)
def test_a_new_run_is_named_after_what_it_is(
    dataset: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, now = TrainConfig(dataset=dataset, cell="gru", units=8), datetime(2026, 1, 2, 3, 4, 5)
    assert [new_folder(config, now) for _ in range(3)] == [
        Path("runs", each) for each in (name, f"{name}-2", f"{name}-3")
    ]


def test_runs_of_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 1, 2, 3, 4, 5)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: new_folder(CONFIG, now), range(40)))
    assert len(set(made)) == 40
    assert all(path.is_dir() for path in made)
