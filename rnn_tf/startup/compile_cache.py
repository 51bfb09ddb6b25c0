"""Compiled programs kept between runs, and only ever used whole.

XLA can write what it compiles to a folder and read it back in the next process. It trusts what it
finds: a file torn by a kill or a full disk makes training fail. So a run that ends well seals the
folder, an index of names and SHA-256, and a run that begins drops whatever is not as sealed.
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

# A program that nobody has compiled again in this long is dropped. Days.
LIFETIME = 30
# XLA fails the run when it cannot write a program: with less free disk than this, no cache. Bytes.
LEAST_FREE = 256 * 2**20
# TensorFlow's flag for the folder.
FLAG = "--tf_xla_persistent_cache_directory"


def reuse() -> None:
    """Have XLA read and write compiled programs in our folder. Before TensorFlow is imported.

    Does nothing where the user has said otherwise in `TF_XLA_FLAGS`, or where the folder cannot
    be written: compiling again is slower, not wrong.
    """
    # What a parent process has set is chosen anew: its programs may be made with other flags.
    inherited = f"{FLAG}={cache_folder('xla')}"
    said = os.environ.get("TF_XLA_FLAGS", "").split()
    flags = " ".join(flag for flag in said if not flag.startswith(inherited))
    if FLAG in flags:
        return
    folder = _folder()
    if len(str(folder).split()) != 1:
        return  # The variable is split at white space, and knows no quotes.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < LEAST_FREE:
            return
        _drop_unsealed(folder)
    except OSError:
        return
    os.environ["TF_XLA_FLAGS"] = f"{flags} {FLAG}={folder}".strip()


def seal() -> None:
    """Vouch for the programs that are in the folder now, after a run that has used them."""
    folder = _folder()
    if f"{FLAG}={folder}" not in os.environ.get("TF_XLA_FLAGS", ""):
        return
    # Another process may be tidying, or the disk be full: then these are compiled again.
    with contextlib.suppress(OSError, InputError):
        write_text(_index(folder), json.dumps({p.name: _digest(p) for p in _programs(folder)}))


def _drop_unsealed(folder: Path) -> None:
    try:
        sealed = json.loads(_index(folder).read_text())
    except (OSError, ValueError):
        sealed = {}
    oldest = time.time() - LIFETIME * 24 * 3600
    for program in _programs(folder):
        # Another process may be tidying too.
        with contextlib.suppress(FileNotFoundError):
            if program.stat().st_mtime < oldest or sealed.get(program.name) != _digest(program):
                program.unlink()


def _folder() -> Path:
    # One for each TensorFlow and processor: a program is machine code, and a home directory may
    # be shared by machines that differ. And for each set of flags, which XLA leaves out of the
    # name of a program: another's would round otherwise.
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


def _programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pb"))


def _index(folder: Path) -> Path:
    return folder / "sealed.json"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
