"""Links in folders that people bring: none is followed out of the folder."""

from __future__ import annotations

from pathlib import Path

from rnn_tf.errors import InputError


def refuse_link_out(file: Path, folder: Path) -> None:
    """Raise `InputError` unless `file`, whatever links lead to it, lies in `folder`."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{file}: a link out of the folder",
            expected=f"a file in {folder}",
            fix="Put a copy of the file there.",
        )
