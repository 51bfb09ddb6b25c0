"""Documents: links lead somewhere, and every table of figures has its place and its command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import documents
from rnn_tf.errors import InputError

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = {
    "benchmarks.accuracy": "README.md",
    "benchmarks.training": "docs/training-speed.md",
    "benchmarks.training, gated": "docs/pytorch.md",
    "benchmarks.export_time": "docs/bundle.md",
    "benchmarks.shapes": "docs/training-speed.md",
    "benchmarks.shapes, GPU": "docs/pytorch.md",
    "benchmarks.shapes, forms": "docs/training-speed.md",
    "benchmarks.tuning": "docs/search.md",
    "benchmarks.tuning, full": "docs/search.md",
    "benchmarks.inference": "docs/inference.md",
    "benchmarks.small_data": "docs/small-data.md",
    "benchmarks.scaling": "docs/scaling.md",
    "benchmarks.streams resets": "docs/streams.md",
    "benchmarks.streams early": "docs/streams.md",
    "benchmarks.inference, stacks": "docs/inference.md",
    "benchmarks.larger_than_memory": "docs/large-data.md",
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith(("http", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = r"`((?:rnn_tf|tuning|export|benchmarks|tests|docs)/[\w./-]*\w\.\w+)`"
    for path in re.findall(named, document.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_merge_was_left_half_done(document: Path) -> None:
    assert not re.findall(r"^(?:<{7}|={7}|>{7})(?: |$)", document.read_text(), re.MULTILINE)


def test_each_table_has_one_place() -> None:
    for name, document in PLACES.items():
        text = (ROOT / document).read_text()
        assert text.count(f"<!-- {name} -->") == 1
        assert text.count("<!-- end -->") == list(PLACES.values()).count(document)


def test_a_table_is_written_between_its_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("before\n<!-- a -->\nold\n<!-- end -->\nafter\n")
    new = documents.table(["", "x"], [["one", r"\1 of 2"]])
    for _ in range(2):  # again gives the same
        documents.put("page.md", "a", new)
    expected = (
        "before\n<!-- a -->\n|  | x |\n| --- | --- |\n| one | \\1 of 2 |\n<!-- end -->\nafter\n"
    )
    assert (tmp_path / "page.md").read_text() == expected
    with pytest.raises(InputError, match=r"page\.md has no single place for b"):
        documents.put("page.md", "b", new)
