"""Many runs in one process: neither memory nor open files grow with their number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import dataclasses, gc, os, sys
from rnn_tf import train
from rnn_tf.config import preset
import psutil
process = psutil.Process()
for i in range(8):
    config = dataclasses.replace(preset("best"), dataset=sys.argv[1], epochs=1, seed=i, units=4)
    train(config, f"run{i}", progress=False)
    gc.collect()
    print(process.memory_info().rss, process.num_fds(), len(gc.get_objects()))
"""


@pytest.mark.slow
def test_what_a_process_holds_does_not_grow_with_its_runs(small_npz: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, small_npz], cwd=tmp_path, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "retracing" not in done.stderr
    held = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    resident, files, objects = (last - early for last, early in zip(held[-1], held[2], strict=True))
    assert files == 0
    assert objects < 500 * 5  # a graph is 8,000 of them
    # 25 MB a run when each compiles a program of its own; allocators are not exact.
    assert resident < 60 * 2**20
