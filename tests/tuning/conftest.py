"""What tests of searches share.

A search that is killed at fifty moments, or whose fourth trial runs out of memory, cannot wait for
real training: such tests search for the best of a known function, and all else in them is real.
That the same holds with real training is shown by `test_a_real_kill`, by the searches "in
earnest", and by those of test_workers.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from formula import FormulaBackend

from rnn_tf import Run


@pytest.fixture
def formula(monkeypatch: pytest.MonkeyPatch) -> FormulaBackend:
    """The backend of a search whose scores are a formula; its pictures are not drawn."""
    backend = FormulaBackend()
    save_metrics = Run.save_metrics

    def counted(run: Run, metrics: dict[str, Any]) -> None:
        try:
            save_metrics(run, metrics)
        finally:  # also when a test kills it there
            if run.path.name.startswith("trial_"):
                backend.finished[run.path.name] += run.finished

    monkeypatch.setattr(Run, "save_metrics", counted)
    for picture in ("rnn_tf.plots.plot_curves", "rnn_tf.plots.plot_confusion"):
        monkeypatch.setattr(picture, lambda *_: None)
    monkeypatch.setattr("tuning.report.write_report", lambda *_: None)
    return backend
