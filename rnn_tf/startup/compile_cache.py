"""The compile cache: what XLA has compiled, kept between runs, and only ever used whole.

XLA can write what it compiles to a folder and read it back in the next process. It trusts what it
finds: a file torn by a kill or a full disk makes training fail. So a run that ends well records the
SHA-256 of each file, and a run that begins drops every file that is not as recorded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from pathlib import Path

from rnn_tf.errors import InputError
from rnn_tf.files.cache import cache_folder
from rnn_tf.files.writing import write_text
from rnn_tf.startup import xla_flags

# A file that nobody has compiled again in this long is dropped. Days.
LIFETIME = 30
# XLA fails the run when it cannot write a file: with less free disk than this, no cache. Bytes.
LEAST_FREE = 256 * 2**20
# TensorFlow's flag for the folder, and the variable that it reads it from.
FLAG = "--tf_xla_persistent_cache_directory"
VARIABLE = "TF_XLA_FLAGS"

_enabled: Path | None = None  # the folder that this process uses
# Of the files recorded in this process: what tells that one is another, and its SHA-256.
_digests: dict[Path, tuple[tuple[int, int, int], str]] = {}


def enable() -> None:
    """Have XLA use our folder. Before it compiles anything, and with `XLA_FLAGS` as it reads them.

    Does nothing where the user's own `TF_XLA_FLAGS` name a folder, or where ours cannot be
    written: compiling again is slower, not wrong.
    """
    global _enabled
    # What a parent process has set is chosen anew: its XLA may have had other flags.
    inherited = f"{FLAG}={cache_folder('xla')}"
    given = os.environ.get(VARIABLE, "").split()
    flags = " ".join(flag for flag in given if not flag.startswith(inherited))
    if FLAG in flags:
        return
    folder = _folder()
    if len(str(folder).split()) != 1:
        return  # The variable is split at white space, and knows no quotes.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < LEAST_FREE:
            return
        _drop_unrecorded(folder)
    except OSError:
        return
    os.environ[VARIABLE] = f"{flags} {FLAG}={folder}".strip()
    _enabled = folder


def record() -> None:
    """Record what is in the folder as whole, after a run that has used it."""
    if _enabled is None:
        return
    # Another process may be tidying, or the disk be full: then these are compiled again.
    with contextlib.suppress(OSError, InputError):
        checksums = {file.name: _recorded_digest(file) for file in _files(_enabled)}
        write_text(_record(_enabled), json.dumps(checksums))


def _drop_unrecorded(folder: Path) -> None:
    try:
        recorded = json.loads(_record(folder).read_text())
    except (OSError, ValueError):
        recorded = {}
    oldest = time.time() - LIFETIME * 24 * 3600
    for file in _files(folder):
        # Another process may be tidying too.
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime < oldest or recorded.get(file.name) != _digest(file):
                file.unlink()


def _folder() -> Path:
    # One for each TensorFlow and processor: the files are machine code, and a home directory may
    # be shared by machines that differ. And one for each set of flags, which XLA leaves out of the
    # name of a file: code made with others would round otherwise.
    flags = os.environ.get(xla_flags.VARIABLE, "")
    made_by = f"{importlib.metadata.version('tensorflow')} {flags} {_processor()}"
    return cache_folder("xla") / hashlib.sha256(made_by.encode()).hexdigest()[:16]


def _processor() -> str:
    """What identifies the instruction set: the processor's feature flags where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pb"))


def _record(folder: Path) -> Path:
    return folder / "recorded.json"


def _recorded_digest(file: Path) -> str:
    """The SHA-256 of a file, read again only if it is another since the last record."""
    status = file.stat()
    state = (status.st_ino, status.st_mtime_ns, status.st_size)
    known = _digests.get(file)
    if known is None or known[0] != state:
        known = _digests[file] = (state, _digest(file))
    return known[1]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
