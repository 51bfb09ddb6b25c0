"""What tests of searches share.

A search that is killed at fifty moments, or whose fourth trial runs out of memory, cannot wait for
real training: such tests search for the best of a known function, and all else in them is real.
That the same holds with real training is shown by `test_a_real_kill`, by the searches "in
earnest", and by those of test_workers.py.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from rnn_tf import Run, TrainConfig, load
from rnn_tf.data import SequenceData
from rnn_tf.errors import CheckFailed
from tuning import trial


@pytest.fixture
def known_scores(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Searches whose scores are a formula; how often each trial ran, by the name of its folder."""
    trained: Counter[str] = Counter()

    def by_formula(run: Run, data: SequenceData, began: float, kept: object) -> None:
        assert len(data.test.y) == 0
        config = run.config
        if config.learning_rate > 0.018:
            raise CheckFailed("the loss became NaN or infinite in epoch 1")
        score = round(1 - abs(math.log(config.learning_rate / 5e-3)) / 4 - 0.1 / config.epochs, 2)
        run.save_history([{"epoch": 1, "val_accuracy": score}])
        (run.path / "model.keras").write_bytes(b"a model")
        told = {"parameters": 1, "seconds": 0.5, "best_epoch": 1, "val_accuracy": score}
        try:
            run.save_metrics(told)
        finally:  # also when a test kills it there
            trained[run.path.name] += run.finished
        trial.drop_models(run.path.parent)

    def winner(config: TrainConfig, path: Path, **_: object) -> Run:
        run = Run.create(path, config, load(config.dataset).spec)
        run.save_metrics({})
        return run

    monkeypatch.setattr(trial, "_train", by_formula)
    monkeypatch.setattr("tuning.search.train", winner)
    monkeypatch.setattr("tuning.report.write_report", lambda *_: None)
    return trained
