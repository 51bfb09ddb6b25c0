"""One process at a time: whoever comes second is refused, and no kill leaves a lock behind."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from rnn_tf.errors import InputError
from rnn_tf.files import locking
from rnn_tf.files.locking import LOCK, check_unlocked, locked

HOLD = """
import sys
from pathlib import Path
from rnn_tf.files.locking import locked
with locked(Path(sys.argv[1]), "holds it", fix="Wait."):
    print("held", flush=True)
    input()
"""


def hold(file: Path) -> AbstractContextManager[bool]:
    return locked(file, "is at work", fix="Wait.")


@contextmanager
def held_by_another(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is killed or given a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_second_is_refused_by_process_and_host(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    with held_by_another(file) as other:
        who = f"process {other.pid} on {socket.gethostname()}"
        message = f"^another process is at work; got {re.escape(who)}. Wait.$"
        with pytest.raises(InputError, match=message):
            hold(file).__enter__()
        with pytest.raises(InputError, match=message):
            check_unlocked(file, "is at work", fix="Wait.")
        other.communicate("\n")
    assert list(tmp_path.iterdir()) == []
    check_unlocked(file, "is at work", fix="Wait.")
    with hold(file) as alone:
        assert alone
        assert file.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    with held_by_another(file) as other:
        other.kill()
        other.wait()
    assert file.exists()
    check_unlocked(file, "is at work", fix="Wait.")
    with hold(file):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_of_a_process_keep_each_other_out(tmp_path: Path) -> None:
    """Also while the file is removed and made again by one after the other."""
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked(tmp_path / LOCK, "is at work", fix="", wait=60):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_it_waits_as_long_as_it_may(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    with held_by_another(file) as other:
        threading.Timer(0.3, other.kill).start()
        with locked(file, "is at work", fix="Wait.", wait=30) as alone:
            assert alone


def test_a_folder_made_for_a_lock_alone_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new"):
        with hold(tmp_path / name / LOCK):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_work_goes_on_and_says_so_once(
    error: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    locking._say_without_locks.cache_clear()
    for _ in range(2):
        with hold(tmp_path / LOCK) as alone:
            assert not alone
            assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == (
        "this file system has no locks: do not use a folder from two commands at once\n"
    )


def test_a_lock_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (Path("/proc"), Path("/proc/nowhere"), tmp_path / "file"):
        with pytest.raises(InputError, match=f"^cannot write {folder}: "):
            locked(folder / LOCK, "is at work", fix="Wait.", wait=30).__enter__()
