"""Run: the directory of one training run, its files by name, written so that none is ever half."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import UNREADABLE, read_arrays
from rnn_tf.files.locking import LOCK, check_unlocked, locked
from rnn_tf.files.writing import TEMPORARY, as_input_errors, make_folder, write_text, writing

if TYPE_CHECKING:
    import keras

    from rnn_tf.data.profile import DataProfile

# What the training data look like. A bundle has a copy of it under the same name.
PROFILE = "data_profile.npz"

# The files of a run, in the order in which they are removed: first what makes it a whole one.
FILES = (
    "config.json", "metrics.json", "failure.json", "spec.json", "model.keras", "history.jsonl",
    "curves.png", "confusion.png", "compiled.json", PROFILE, "stream.json", "stream.png",
    "early.json", "early.png",
)  # fmt: skip

# What `config.json` says about the layout of the directory. Raised when it changes. A run of format
# 1 has no `normalize` in its configuration: what it does is in its specification, as in every run.
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: `Run.open(path)` for an existing one; `train` makes new ones.

    `metrics.json` is written last: a directory that has it holds a finished run. Until then
    `checkpoint/state.npz` holds all that training needs to go on from its last whole epoch.
    """

    path: Path
    config: TrainConfig
    spec: SequenceSpec

    # --- files, by name ---
    @property
    def model_file(self) -> Path:
        return self.path / "model.keras"

    @property
    def history_file(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    @property
    def failure_file(self) -> Path:
        return self.path / "failure.json"

    @property
    def curves_file(self) -> Path:
        return self.path / "curves.png"

    @property
    def confusion_file(self) -> Path:
        return self.path / "confusion.png"

    @property
    def profile_file(self) -> Path:
        return self.path / PROFILE

    @property
    def compiled_file(self) -> Path:
        return self.path / "compiled.json"

    @property
    def stream_file(self) -> Path:
        return self.path / "stream.json"

    @property
    def stream_picture(self) -> Path:
        return self.path / "stream.png"

    @property
    def early_file(self) -> Path:
        return self.path / "early.json"

    @property
    def early_picture(self) -> Path:
        return self.path / "early.png"

    @property
    def tensorboard_folder(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint" / "state.npz"

    # --- what they hold ---
    @property
    def finished(self) -> bool:
        return self.metrics_file.exists()

    @property
    def complete(self) -> bool:
        """Whether it is finished and its model is still there."""
        return self.finished and self.model_file.exists()

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record an epoch, as `history.jsonl` has them; empty before the first has ended."""
        if not self.history_file.exists():
            return []
        with readable(self.history_file):
            return [json.loads(line) for line in self.history_file.read_text().splitlines()]

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds. Raises `InputError` when the run is not finished."""
        self.require_finished()
        with readable(self.metrics_file):
            metrics: dict[str, Any] = json.loads(self.metrics_file.read_text())
        return metrics

    @property
    def profile(self) -> DataProfile | None:
        """What the training data look like; None for a run of a version that did not keep it."""
        from rnn_tf.data.profile import DataProfile  # brings Pillow, which few commands need

        return DataProfile.open(self.profile_file, self.spec)

    def load_model(self) -> keras.Sequential:
        """The model of the best epoch. Raises `InputError` when it is missing or damaged."""
        self.require_finished()
        if not self.complete:
            raise InputError(
                f"cannot read {self.model_file}",
                got="no such file",
                fix=f"Train it again with: python -m rnn_tf.train --run-dir {self.path} --resume",
            )
        import keras

        with readable(self.model_file):
            return keras.saving.load_model(self.model_file, compile=False, safe_mode=True)

    def require_finished(self) -> None:
        """Raise `InputError` when there is no model yet, or none to come."""
        self.require_no_failure()
        if not self.finished:
            raise InputError(
                f"the run is not finished: {self.path}",
                fix=f"Go on with: python -m rnn_tf.train --run-dir {self.path} --resume",
            )

    @property
    def failed(self) -> bool:
        """Whether training ended without a model. To go on would only repeat it."""
        return self.failure_file.exists()

    def require_no_failure(self) -> None:
        """Raise `InputError` when training ended without a model: why, and what to change."""
        if not self.failed:
            return
        with readable(self.failure_file):
            failure = json.loads(self.failure_file.read_text())
            reason, advice = failure["reason"], failure["advice"]
        raise InputError(
            f"training ended without a model in {self.path}: {reason}",
            fix=f"Train it again with --overwrite, and {advice}.",
        )

    # --- life cycle ---
    @classmethod
    def create(cls, path: Path, config: TrainConfig, spec: SequenceSpec) -> Run:
        """Begin a run in `path`, in place of any run that was there.

        Raises `InputError` when `path` holds something other than a run, or cannot be written.
        """
        check_place(path)
        run = cls(path, config, spec)
        with as_input_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        run._clear()
        settings = {"format": FORMAT, **json.loads(config.to_json())}
        write_text(path / "spec.json", spec.to_json())
        # Last: this file makes the directory a run.
        write_text(path / "config.json", json.dumps(settings, indent=2) + "\n")
        return run

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """The run in `path`. Raises `InputError` when there is none, or one that is unreadable."""
        path = Path(path)
        if not holds_run(path):
            raise InputError(
                f"not a run: {path}",
                expected="a folder with config.json, made by python -m rnn_tf.train",
                got="a folder without it" if path.is_dir() else "no folder",
            )
        config_file, spec_file = path / "config.json", path / "spec.json"
        with readable(config_file):
            settings = dict(json.loads(config_file.read_text()))
            settings.setdefault("noise", 0.0)  # runs had none before they had the setting
            written_as = settings.pop("format")
        if not isinstance(written_as, int) or written_as > FORMAT:
            raise InputError(
                f"the run was made by a newer version: {path}",
                expected=f"format {FORMAT} or older",
                got=written_as,
                fix="Upgrade this package.",
            )
        with readable(config_file):
            config = TrainConfig.from_dict(settings)
        with readable(spec_file):
            return cls(path, config, SequenceSpec.from_json(spec_file.read_text()))

    def save_state(self, state: dict[str, np.ndarray]) -> None:
        """Write the checkpoint: one file, so that all of it is of the same epoch."""
        with writing(self.checkpoint_file) as temporary, temporary.open("wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]

    def receive_checkpoint(self, content: bytes) -> None:
        """Write a checkpoint that another process has read."""
        with writing(self.checkpoint_file) as temporary:
            temporary.write_bytes(content)

    def load_state(self) -> dict[str, np.ndarray] | None:
        """The checkpoint, or None before the first epoch has ended."""
        if not self.checkpoint_file.exists():
            return None
        try:
            return read_arrays(self.checkpoint_file)
        except InputError as error:
            raise InputError(
                f"the checkpoint is damaged: {self.checkpoint_file}",
                fix="Start again with --overwrite.",
            ) from error

    def save_model(self, model: keras.Sequential) -> None:
        with writing(self.model_file) as temporary:
            model.save(temporary)

    def save_history(self, history: list[dict[str, Any]]) -> None:
        write_text(self.history_file, "".join(json.dumps(record) + "\n" for record in history))

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Mark the run as finished, and delete the checkpoint."""
        write_text(self.metrics_file, json.dumps(metrics, indent=2) + "\n")
        self.drop_checkpoint()

    def copy_training(self, to: Run) -> None:
        """Copy what training has written, all but what says that it is finished, to another run."""
        with as_input_errors(to.path):
            for file in (self.model_file, self.history_file, self.profile_file, self.compiled_file):
                if file.exists():
                    with writing(to.path / file.name) as temporary:
                        shutil.copyfile(file, temporary)
            if self.tensorboard_folder.is_dir():
                shutil.copytree(self.tensorboard_folder, to.tensorboard_folder)

    def save_failure(self, reason: str, advice: str) -> None:
        """Mark the run as one that ended without a model: why, and which setting to change."""
        failure = {"reason": reason, "advice": advice}
        write_text(self.failure_file, json.dumps(failure, indent=2) + "\n")

    def drop_checkpoint(self) -> None:
        shutil.rmtree(self.checkpoint_file.parent, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a kill in the middle of writing has left."""
        for entry in self.path.iterdir():
            if TEMPORARY.fullmatch(entry.name):
                entry.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove the files of an earlier run, and no others."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        self.tidy()
        self.drop_checkpoint()
        shutil.rmtree(self.tensorboard_folder, ignore_errors=True)


def holds_run(path: Path) -> bool:
    return (path / "config.json").is_file()


def check_place(path: Path) -> None:
    """Raise `InputError` when `path` holds something other than a run or the beginning of one."""
    if path.exists() and not path.is_dir():
        raise InputError(f"not a folder: {path}", fix="Choose another --run-dir.")
    if path.is_dir() and not holds_run(path) and not _holds_beginning(path):
        raise InputError(
            f"the folder is not empty and not a run: {path}", fix="Choose another --run-dir."
        )


def _holds_beginning(path: Path) -> bool:
    """Whether `path` is empty, or a run was killed there before it had its `config.json`."""
    with as_input_errors(path):
        names = [entry.name for entry in path.iterdir()]
    return all(name in ("spec.json", LOCK) or TEMPORARY.fullmatch(name) for name in names)


def lock_run(path: Path, wait: float = 0.0) -> contextlib.AbstractContextManager[bool]:
    """Keep other processes from training in `path`, which is made if it is not there.

    Raises `InputError` when another one does, for longer than `wait` seconds.
    """
    return locked(path / LOCK, f"is training in {path}", fix=_BUSY, wait=wait)


def check_not_training(path: Path) -> None:
    """Raise `InputError` when another process is training in `path` now."""
    check_unlocked(path / LOCK, f"is training in {path}", fix=_BUSY)


_BUSY = "Wait until it has ended, or choose another --run-dir."


def new_folder(config: TrainConfig, now: datetime | None = None) -> Path:
    """Make a folder that nobody has used: `runs/<dataset>-<cell><units>-<date>-<time>`.

    A number is added when there is one of this name already: several commands may start in the
    same second. Raises `InputError` when it cannot be made.
    """
    dataset = Path(config.dataset.removeprefix("tfds:")).resolve().stem
    return make_folder(Path("runs") / f"{dataset}-{config.cell}{config.units}", now)


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """Name the file of a run that is missing, damaged, or edited into something else."""
    try:
        yield
    except (*UNREADABLE, RecursionError, AttributeError) as error:
        what = str(error) or type(error).__name__
        raise InputError(f"cannot read {file}", got=what[:300]) from error
