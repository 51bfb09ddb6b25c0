"""Tables of figures in the documents: each stands between two markers, and a command writes it."""

from __future__ import annotations

import re
from pathlib import Path

from rnn_tf.errors import InputError
from rnn_tf.files.writing import write_text

ROOT = Path(__file__).parents[1]
END = "<!-- end -->"


def put(document: str, name: str, text: str) -> None:
    """Write `text` into a document of this checkout, between the marker of `name` and its end.

    Raises `InputError` when the document has no such place.
    """
    path = ROOT / document
    start = f"<!-- {name} -->"
    place = re.compile(f"(?<={re.escape(start)}\n).*?(?={re.escape(END)})", re.DOTALL)
    old = path.read_text(encoding="utf-8")
    if len(place.findall(old)) != 1:
        raise InputError(
            f"{document} has no single place for {name}", expected=f"{start} and {END}"
        )
    write_text(path, place.sub(lambda _: text.strip("\n") + "\n", old))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
