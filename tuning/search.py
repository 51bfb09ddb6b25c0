"""`python -m tuning.search`: KerasTuner looks for better settings; every trial is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from rnn_tf.command import arguments, parse
from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData, SequenceSpec, load, needs_tensorflow
from rnn_tf.errors import CheckFailed, InputError, one_line_errors
from rnn_tf.files.locking import LOCK, check_unlocked, locked
from rnn_tf.files.writing import TEMPORARY, as_input_errors, make_folder, write_text
from rnn_tf.run import Run, holds_run
from rnn_tf.startup import compile_cache, forms, process
from rnn_tf.training.backend import Backend, choose_backend
from rnn_tf.training.job import Interrupted, evaluated, train
from rnn_tf.training.keras import compilation
from tuning import report
from tuning.settings import Settings
from tuning.space import Choice, Space, hyperparameters, largest, models, read_space
from tuning.trial import finished
from tuning.workers import served, supervise

if TYPE_CHECKING:
    from tuning.oracles import Durable

# What `search.json` says about the layout of the directory. Raised when it changes.
FORMAT = 1
BUSY = "Wait until it has ended, or choose another --dir."


def search(
    settings: Settings,
    directory: Path | None = None,
    *,
    workers: int | None = None,
    listen: str | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    data: SequenceData | None = None,
    verbose: bool = False,
    backend: Backend | None = None,
) -> Run:
    """Search, keep everything in `directory`, and evaluate the winner; its run, `directory/best`.

    Without `directory`, everything is in a new folder under `searches/`. `workers` processes train
    at once, a worker that dies or has grown is started again; without it, trials train in this
    process, by `backend` if it is given. With `listen`, `HOST:PORT`, others may join from other
    machines. `resume` goes on with an interrupted search, which ends as an unbroken one does, and
    begins one where there is none. After `max_minutes` no trial begins. Raises `InputError` for
    bad input and when another process searches in the same folder, `CheckFailed` when every trial
    has failed, `Interrupted` after Ctrl-C.
    """
    if workers is not None and workers < 1:
        raise InputError("bad workers", expected="a whole number >= 1", got=workers)
    if max_minutes is not None and not max_minutes > 0:
        raise InputError("bad max_minutes", expected="more than 0", got=max_minutes)
    if resume and directory is None:
        raise InputError("--resume needs the folder of a search", fix="Add --dir.")
    space = read_space(settings.space)
    described = describe(settings, space)
    if directory is not None:
        check_unlocked(directory / LOCK, f"is searching in {directory}", fix=BUSY)
        is_begun(directory, described, resume=resume)
    if data is None:
        if needs_tensorflow(settings):
            process.start(verbose=verbose)
        data = load(settings, to_train=True)
    data = data.answering(settings.answer)
    # What cannot be searched is refused before anything is written.
    most = largest(space, settings.base(), data.spec, settings.max_parameters)
    # One process compiles all its trials in the same way, and all workers as this process does.
    process.start(whole_loops=forms.whole_loops(most), verbose=verbose)
    compilation.warn_if_unusual(most)
    check_choices(space, settings.base(), data.spec)
    directory = directory or make_folder(_stem(settings))
    try:
        with locked(directory / LOCK, f"is searching in {directory}", fix=BUSY):
            begun = is_begun(directory, described, resume=resume)
            if resume and not begun:
                print(f"nothing to resume in {directory}: a new search begins", file=sys.stderr)
            oracle = build(settings, space, data, directory)
            if max_minutes is not None:
                oracle.until = time.monotonic() + 60 * max_minutes
            oracle.on_change = Progress(oracle, settings, directory)
            with served(oracle, listen) if workers else contextlib.nullcontext() as address:
                if not begun:
                    write_text(directory / "search.json", json.dumps(described, indent=2) + "\n")
                _train_trials(oracle, settings, data, directory, workers, address, backend)
            return finish(oracle, settings, data, directory, backend)
    except KeyboardInterrupt:
        raise Interrupted(directory) from None


def _train_trials(
    oracle: Durable,
    settings: Settings,
    data: SequenceData,
    directory: Path,
    workers: int | None,
    address: str | None,
    backend: Backend | None,
) -> None:
    """Until the oracle has no more: in this process, or by workers that ask it at `address`."""
    found = models(oracle.hyperparameters, grid=settings.tuner == "grid")
    if found is not None and found < settings.trials:
        print(
            f"the space holds {found:,} model{'s' if found > 1 else ''}; "
            f"{settings.trials:,} trials were asked for",
            file=sys.stderr,
        )
    if address is None or workers is None:
        from tuning.tuner import TrialTuner

        TrialTuner(oracle, settings.base(), data, directory, backend).search()
    else:
        supervise(oracle, directory, workers, address)
    ended = len(oracle.end_order)
    if ended < settings.trials and time.monotonic() < oracle.until:
        print(
            f"{ended:,} of {settings.trials:,} trials were run: "
            f"the {settings.tuner} tuner found no other model to try",
            file=sys.stderr,
        )


def is_begun(directory: Path, described: dict[str, Any], *, resume: bool) -> bool:
    """Whether the search that `described` says was begun in `directory`. Writes nothing.

    Raises `InputError` when it was and is not to be resumed, when the directory holds another
    search or anything else, and when it cannot be read.
    """
    if (directory / "search.json").exists():
        _refuse_another(read_search(directory), described, directory)
        if not resume:
            raise InputError(
                f"the folder already holds a search: {directory}",
                fix="Add --resume to go on with it, or choose another --dir.",
            )
        return True
    with as_input_errors(directory):
        names = [entry.name for entry in directory.iterdir()] if directory.exists() else []
    if not all(name == LOCK or TEMPORARY.fullmatch(name) for name in names):
        raise InputError(
            f"the folder is not empty and not a search: {directory}", fix="Choose another --dir."
        )
    return False


def describe(settings: Settings, space: Space) -> dict[str, Any]:
    """What `search.json` holds: every setting, and what the space meant."""
    bounds = {name: dataclasses.asdict(bounds) for name, bounds in space.items()}
    described = {"format": FORMAT, **dataclasses.asdict(settings), "bounds": bounds}
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def read_search(directory: Path) -> dict[str, Any]:
    """What `search.json` holds. Raises `InputError` when it is missing or damaged."""
    file = directory / "search.json"
    try:
        found = json.loads(file.read_text())
        if not isinstance(found, dict):
            raise ValueError("not an object")
        if found["format"] > FORMAT:
            raise InputError(f"the search was made by a newer version: {directory}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot read {file}", got=str(error) or type(error).__name__,
            fix="Its trials are in leaderboard.csv; begin again in another --dir.",
        ) from error  # fmt: skip
    return found


def _refuse_another(found: dict[str, Any], wanted: dict[str, Any], directory: Path) -> None:
    # A setting that a search of an older version does not have was what its default is now.
    found = json.loads(json.dumps(dataclasses.asdict(Settings()))) | found
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise InputError(
                f"the folder holds a search with another {name}: {directory}",
                expected=repr(found.get(name))[:200],
                got=repr(wanted[name])[:200],
                fix="Leave the setting out, or choose another --dir.",
            )


def check_choices(space: Space, base: TrainConfig, spec: SequenceSpec) -> None:
    """Raise `InputError` for a choice of which no model can be built: now, not in the night."""
    from rnn_tf.model.classifier import build_model

    for name, bounds in space.items():
        if isinstance(bounds, Choice):
            for value in bounds.values:
                build_model(dataclasses.replace(base, **{name: value}), spec)


def build(settings: Settings, space: Space, data: SequenceData, directory: Path) -> Durable:
    """The oracle of a search, as it was left if it was interrupted.

    Raises `InputError` for a space without a model in it, and for damaged files.
    """
    from tuning.oracles import build_oracle
    from tuning.trial import check_trials

    file = directory / "oracle.json"
    oracle = build_oracle(
        settings.tuner,
        hyperparameters(space, settings.base(), data.spec, settings.max_parameters),
        data.spec,
        trials=settings.trials,
        epochs=settings.base().epochs_for(len(data.train.y)),
        objective=settings.objective,
        seed=settings.seed,
        file=file,
    )
    if file.exists():
        oracle.reload()
    check_trials(directory, set(oracle.end_order))
    oracle.settings = json.dumps(dataclasses.asdict(settings))
    return oracle


class Progress:
    """Called at every change: keeps the leaderboard on disk, and says how far the search is."""

    def __init__(self, oracle: Durable, settings: Settings, directory: Path) -> None:
        self.oracle, self.settings, self.directory = oracle, settings, directory
        self.before = self.ended = len(oracle.end_order)
        self.began = time.monotonic()
        found = models(oracle.hyperparameters, grid=settings.tuner == "grid")
        if found is None or settings.tuner == "hyperband":  # which trains a model several times
            found = settings.trials
        self.expected = min(settings.trials, found)

    def __call__(self) -> None:
        rows = report.leaderboard(self.oracle, self.settings.base())
        report.write_leaderboard(rows, self.directory)
        if len(self.oracle.end_order) == self.ended:
            return
        self.ended = len(self.oracle.end_order)
        last = next(row for row in rows if row["trial"] == self.oracle.end_order[-1])
        print(self.line(last, rows[0]), file=sys.stderr, flush=True)

    def line(self, last: dict[str, Any], best: dict[str, Any]) -> str:
        """`3 of 20 trials, the last (02) 97.20%, best (00) 98.44%, about 4 min left`."""
        objective = self.settings.objective
        score = last["status"] if last["score"] is None else report.said(last["score"], objective)
        line = f"{self.ended} of {self.expected} trials, the last ({last['trial']}) {score}"
        if best["score"] is not None:
            line += f", best ({best['trial']}) {report.said(best['score'], objective)}"
        each = (time.monotonic() - self.began) / (self.ended - self.before)
        left = each * (self.expected - self.ended)
        left = min(left, max(0.0, self.oracle.until - time.monotonic()))
        return (
            f"{line}, about {left / 60:.0f} min left" if left > 90 else f"{line}, {left:.0f} s left"
        )


def finish(
    oracle: Durable,
    settings: Settings,
    data: SequenceData,
    directory: Path,
    backend: Backend | None = None,
) -> Run:
    """Write the tables and pictures, and evaluate the winner. Raises `CheckFailed` without one."""
    rows = report.leaderboard(oracle, settings.base())
    report.write_leaderboard(rows, directory)
    if not rows or rows[0]["score"] is None:
        reasons = sorted({row["status"] for row in rows})
        raise CheckFailed(f"no trial gave a model: {'; '.join(reasons) or 'none was begun'}")
    compile_cache.record()
    report.write_report(rows, oracle, directory, settings.objective)
    config = report.config_of(oracle, rows[0]["trial"], settings.base())
    path = directory / "best"
    same = holds_run(path) and Run.open(path).config == config
    trial = finished(config, data, directory / f"trial_{rows[0]['trial']}")
    if trial is not None and not (same and Run.open(path).complete):
        print(f"evaluating the winner, trial {rows[0]['trial']}", file=sys.stderr)
        return evaluated(trial, path, data, backend or choose_backend(config.backend))
    # It was trained on a machine that shares no folder with this one, or its files are gone.
    return train(config, path, data=data, resume=same, overwrite=True, backend=backend)


def _stem(settings: Settings) -> Path:
    """The beginning of a new folder's name: `searches/<dataset>-<tuner>`."""
    dataset = Path(settings.dataset.removeprefix("tfds:")).resolve().stem
    return Path("searches") / f"{dataset}-{settings.tuner}"


@dataclass(frozen=True)
class Command:
    """Search for better settings of the classifier by its validation scores; keep every trial.

    The test split is read once, when the winner is known.
    """

    dir: Path | None = None
    """The folder for everything about this search. Default: a new one under searches/."""
    resume: bool = False
    """Go on with the search in --dir, with the settings it was begun with, or begin one if there
    is none."""
    workers: int = 1
    """Processes that train at once. One that dies is started again, and its trial with it."""
    max_minutes: float | None = None
    """Begin no trial after so many minutes. --resume goes on."""
    listen: str | None = None
    """HOST:PORT on which workers of other machines may join. Anyone who reaches it can: use it
    on a network that you trust."""
    chief: str | None = None
    """HOST:PORT of a search that listens: work for that one. Its settings come from there."""
    verbose: bool = False
    """Let TensorFlow's own messages through."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)
    """What determines the trials. All of it is kept in search.json."""


@one_line_errors
def main(argv: Sequence[str] | None = None, prog: str = "python -m tuning.search") -> int:
    argv = arguments(argv)
    command = parse(Command, argv, prog, default=_defaults(argv))
    if command.chief is not None:
        from tuning.workers import join

        where = command.dir or Path("searches") / f"joined-{command.chief.replace(':', '-')}"
        join(command.chief, command.workers, where)
        return 0
    try:
        best = search(
            command.settings,
            command.dir,
            workers=command.workers,
            listen=command.listen,
            resume=command.resume,
            max_minutes=command.max_minutes,
            verbose=command.verbose,
        )
    except KeyboardInterrupt as stop:
        path = stop.path if isinstance(stop, Interrupted) else command.dir
        go_on = f"; go on with: {prog} --dir {path} --resume" if path else ""
        print(f"\nstopped{go_on}", file=sys.stderr)
        return 130
    print(report.summary(best.path.parent, best))
    return 0


def _defaults(argv: Sequence[str]) -> Command:
    """What the options left out mean: the settings of the search to resume."""
    from rnn_tf.command import option

    directory = option(argv, "--dir")
    if "--resume" in argv and directory and (Path(directory) / "search.json").exists():
        found = read_search(Path(directory))
        known = {field.name for field in dataclasses.fields(Settings)}
        return Command(settings=Settings.from_dict({k: v for k, v in found.items() if k in known}))
    return Command()


if __name__ == "__main__":
    raise SystemExit(main())
