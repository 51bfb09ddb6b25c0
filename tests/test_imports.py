"""Imports go one way: no circle between modules, and each room only reads the rooms below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rnn_tf", "tuning", "export", "benchmarks")

# The rooms of each package from the ground up. A room is a folder, or a module beside it; it
# imports from rooms below its own, and of what stands beside it in a line nothing.
FLOORS = {
    "rnn_tf": [
        ["errors"],
        ["config"],
        ["files"],
        ["startup"],
        ["command"],
        ["data"],
        ["model"],
        ["run", "scores"],
        ["plots"],
        ["training", "streams"],
        ["evaluate", "predict", "train"],
        ["estimator"],
        ["cli"],
    ],
}
# Tables of facts, which import nothing: every room may read them.
FACTS = ("rnn_tf.model.cells", "rnn_tf.model.activations")
# Which package may import which.
BELOW = {
    "rnn_tf": {"rnn_tf"},
    "tuning": {"rnn_tf", "tuning"},
    "export": {"rnn_tf", "export"},
    "benchmarks": {"rnn_tf", "tuning", "export", "benchmarks"},
}
# The one way up: `SequenceClassifier.export` makes a bundle, when it is called. Nothing in rnn_tf
# imports this module.
UP = {"rnn_tf.estimator": {"export.publish"}}


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Our modules that a file imports, at its top or in a function; not those for types only."""
    for node in _run(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from package import module`, or a name out of a module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree but for what stands under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from _run(node)


ARROWS = {name: sorted(set(imported(path)) - {name}) for name, path in MODULES.items()}


def test_the_arrows_are_read() -> None:
    assert len(MODULES) > 60
    assert "rnn_tf.run" in ARROWS["rnn_tf.train"] or "rnn_tf.training.job" in ARROWS["rnn_tf.train"]
    assert "export.network" in ARROWS["export.oracle"]


def test_there_is_no_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in ARROWS[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in ARROWS:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_a_package_imports_what_is_below_it(name: str) -> None:
    # Where the commands meet: each is imported by name when it is called.
    package = name.partition(".")[0]
    others = set(ARROWS[name]) - UP.get(name, set())
    assert {other.partition(".")[0] for other in others} <= BELOW[package], ARROWS[name]


@pytest.mark.parametrize("name", UP)
def test_what_leads_up_is_imported_late_and_by_nobody(name: str) -> None:
    top = {alias for node in ast.parse(MODULES[name].read_text()).body for alias in _names(node)}
    assert not any(other.partition(".")[0] == "export" for other in top)
    assert not [other for other, arrows in ARROWS.items() if name in arrows]


def _names(node: ast.stmt) -> list[str]:
    """The modules that a statement imports, not what stands inside of it."""
    if isinstance(node, ast.ImportFrom):
        return [str(node.module)]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.parametrize("package", FLOORS)
def test_each_room_imports_from_the_rooms_below_it(package: str) -> None:
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}

    def room(name: str) -> str:
        return [*name.split("."), ""][1]

    assert not any(ARROWS[name] for name in FACTS)
    inside = [name for name in MODULES if name.startswith(f"{package}.")]
    assert {room(name) for name in inside} == set(floor)
    for name in inside:
        for other in ARROWS[name]:
            if other in inside and room(other) != room(name) and other not in FACTS:
                assert floor[room(other)] < floor[room(name)], f"{name} -> {other}"
