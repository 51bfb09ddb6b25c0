"""How data are read is a setting like others: it travels with the run, and others read them so."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnn_tf.config import Source, ToScore, TrainConfig
from rnn_tf.data import elsewhere, load
from rnn_tf.errors import InputError
from rnn_tf.evaluate import evaluate
from rnn_tf.run import Run
from rnn_tf.train import main as train_main
from rnn_tf.train import train
from tuning.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"


def write_table(path: Path) -> str:
    """Sixty recordings of 25 steps that rise or fall, in a table whose columns nobody can guess."""
    rng = np.random.default_rng(0)
    lines = ["patient;tick;diagnosis;part;ax;noise"]
    for i in range(60):
        part = ("train", "train", "train", "valid", "test", "test")[i % 6]
        for t in range(25):
            value = f"{(i // 6 % 2 - 0.5) * t + rng.normal():.3f}".replace(".", ",")
            lines.append(f"p{i};{t};{('falls', 'rises')[i // 6 % 2]};{part};{value};0")
    path.write_text("\n".join(lines).replace(";part;", ";split;"))
    return str(path)


OPTIONS = ["--id", "patient", "--time", "tick", "--label", "diagnosis", "--features", "ax",
           "--window", "10", "--stride", "5"]  # fmt: skip


def test_a_training_keeps_how_the_data_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.csv")
    argv = ["--dataset", table, *OPTIONS, "--epochs", "2", "--units", "4"]
    assert train_main([*argv, "--run-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[:3] == [
        "160 sequences of 10 steps, 1 feature, 2 classes: falls (80), rises (80); 80 to test",
        "sequence: patient, class: diagnosis, split: split, time: tick; values: ax; left out: "
        "noise",
        "semicolons between columns, decimal commas",
    ]
    assert said[3].startswith(f"training on {table} (")
    run = Run.open(tmp_path / "run")
    assert (run.config.id, run.config.features, run.config.window) == ("patient", ("ax",), 10)
    # Whoever loads the data again: evaluation, export, a run that goes on.
    assert evaluate(run).examples == 80
    assert train_main(["--run-dir", str(run.path), "--resume"]) == 0
    other = dataclasses.replace(run.config, window=12)
    with pytest.raises(InputError, match="with another window; expected 10, got 12"):
        train(other, run.path, resume=True)


def test_another_data_set_is_read_alike_as_far_as_it_can_be() -> None:
    source = Source("mine.csv", id="patient", window=4, stride=2, missing="zero", test_share=0.2)
    labels = ("no", "yes")
    windows: dict[str, Any] = {"window": 4, "stride": 2, "missing": "zero", "labels": labels}
    assert elsewhere(source, "other.csv", labels) == ToScore("other.csv", id="patient", **windows)
    assert elsewhere(source, "other.npz", labels) == ToScore("other.npz", **windows)
    assert elsewhere(source, "mnist", labels) == ToScore("mnist", labels=labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dataset": "mnist", "window": 3},
            "--window means nothing in mnist; got 3. Leave it out.",
        ),
        (
            {"dataset": "a.npz", "id": "patient"},
            "--id means nothing in a.npz; got patient. Leave it out.",
        ),
        (
            {"dataset": "a.ts", "features": ("x",)},
            "--features means nothing in a.ts; got ('x',). Leave it out.",
        ),
        (
            {"dataset": "no/where"},
            "unknown dataset 'no/where'; expected mnist, tfds:<name>, tfrecord:<glob>, a file "
            "(.npz, .ts, .csv, .tsv, .txt, .parquet) or a folder, got no file or folder of this "
            "name. For your own arrays, save them with numpy.savez and give the path of the .npz.",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(Source(**settings))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "bad window; expected a whole number >= 1, got 0"),
        ({"window": 2, "stride": 0}, "bad stride; expected a whole number >= 1, got 0"),
        ({"stride": 2}, "--stride means nothing without windows. Add --window."),
        ({"window": 2.0}, "bad window; expected int, got 2.0"),
        ({"id": 3}, "bad id; expected str, got 3"),
        ({"features": "x"}, "bad features; expected texts, got 'x'"),
        ({"missing": "drop"}, "unknown missing 'drop'; expected one of refuse, interpolate, zero"),
        ({"test_share": 1}, "bad test_share; expected 0 <= value < 1, got 1"),
    ],
)
@pytest.mark.parametrize("kind", [Source, TrainConfig, Settings])
def test_bad_settings(kind: type[Source], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        kind(**settings)
    assert str(caught.value) == message


def test_a_search_reads_as_a_training_does() -> None:
    settings = Settings("mine.csv", id="patient", features=("x", "y"), window=4)
    assert settings.base().source() == settings.source()
    assert Settings.from_dict(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_the_examples_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed: a reader will paste them."""
    text = DOCUMENT.read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    (ts,) = re.findall(r"```\n(@classLabel.*?)```", text, re.DOTALL)
    header, _, lines = ts.partition("@data\n")
    for split in ("TRAIN", "TEST"):
        (tmp_path / f"Vowels_{split}.ts").write_text(f"{header}@data\n{lines * 4}")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^rnn-tf train --dataset (\S+)(.*)", text, re.MULTILINE)
    assert len(commands) == 7
    for dataset, options in commands:
        if "patient" in options:  # columns that somebody else has
            continue
        said = re.findall(r"--(window|stride|test-share) (\S+)", options)
        settings: dict[str, Any] = {
            name.replace("-", "_"): float(value) if "." in value else int(value)
            for name, value in said
        }
        by_step = "--answer every_step" in options
        settings |= {"answer": "every_step"} if by_step else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* has no test split: 12 of its 60 training")
            data = load(Source(dataset, **settings))
        assert set(data.spec.labels) == ({"idle", "busy"} if by_step else {"fall", "rise"})
        assert data.train.labelled_by_step == by_step
    with pytest.warns(UserWarning, match="are rounded to float32"):
        assert load("padded.npz").spec.longest == 29
