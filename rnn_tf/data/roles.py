"""What each column of a table is: the sequence, the time, the class, or a value of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnn_tf.config import Source
from rnn_tf.errors import InputError

_THINGS = ("sample", "sequence", "seq", "series", "recording", "instance", "example", "trial")
# The usual names, in any case. Who means another column says so.
USUAL = {
    "id": ("id", *_THINGS, *(f"{name}_id" for name in _THINGS)),
    "time": ("time", "timestamp", "datetime", "date", "step", "time_step", "timestep", "frame"),
    "label": ("label", "class", "target", "category"),
    "split": ("split",),
}
# Taken where there is none of the above, since they may well be values: an axis, a temperature.
WEAK = {"time": "t", "label": "y"}
# Row numbers that a program has put there.
UNNAMED = ("", "unnamed: 0", "__index_level_0__", "index")
# How a split may be called, in a column or as a folder, in any case.
SPLITS = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid",
    "dev": "valid", "test": "test", "testing": "test",
}  # fmt: skip
# How many columns a message names.
MOST_NAMED = 20


@dataclass(frozen=True)
class Roles:
    """What each column of a long table is."""

    id: str
    time: str | None
    label: str
    groups: str | None
    split: str | None
    features: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def others(self) -> tuple[str, ...]:
        """The columns that are no features, each once."""
        wanted = (self.id, self.time, self.label, self.groups, self.split)
        return tuple(dict.fromkeys(name for name in wanted if name is not None))

    def describe(self) -> str:
        """Which column was taken for what, in a line."""
        said = {
            "sequence": self.id, "class": self.label, "group": self.groups, "split": self.split,
            "time": self.time or "the order of the rows",
        }  # fmt: skip
        columns = ", ".join(f"{what}: {name}" for what, name in said.items() if name)
        left_out = f"; left out: {_listed(self.left_out)}" if self.left_out else ""
        return f"{columns}; values: {_listed(self.features)}{left_out}"


def of_table(columns: Sequence[str], source: Source, path: object) -> Roles:
    """The columns of a long table: as `source` says, else by their usual names.

    Raises `InputError` for a column that is not there, where nothing says which sequence a row
    belongs to or which class it has, and where several columns may.
    """
    id = _required(columns, "id", "which sequence a row belongs to", source, path)
    label = _required(columns, "label", "which class a sequence has", source, path)
    time, split = (_find(columns, role, source, path) for role in ("time", "split"))
    groups = source.groups and _known(columns, "groups", source.groups, path)
    roles = {"id": id, "time": time, "label": label, "groups": groups, "split": split}
    features = _features(columns, roles, source, path)
    left_out = [name for name in columns if name not in {*features, *roles.values()}]
    return Roles(id, time, label, groups, split, features, tuple(left_out))


def of_sequence(
    columns: Sequence[str], source: Source, path: object
) -> tuple[str | None, tuple[str, ...]]:
    """The columns of a file of one sequence: the time, if it is there, and the values.

    Raises `InputError` for a column that is not there, and where several may be the time.
    """
    time = _find(columns, "time", source, path)
    return time, _features(columns, {"time": time}, source, path)


def of_input(
    columns: Sequence[str], features: Sequence[str], source: Source, path: object
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """The columns of a table to be classified: the sequence and the time, if there, and the values.

    The values are `features`, or what is left where nobody has named them; a class may be there or
    not. Raises `InputError` for a column that is not there, and where several may be one thing.
    """
    missing = next((name for name in features if name not in columns), None)
    if missing is not None:
        raise InputError(
            f"{path}: no column {missing!r}, which the model reads", expected=_listed(features),
            got=_listed(columns),
        )  # fmt: skip
    rest = [name for name in columns if name not in features]
    id, time = (_find(rest, role, source, path) for role in ("id", "time"))
    if not features:
        label = _find(rest, "label", source, path)
        roles = {"id": id, "time": time, "label": label, "groups": source.groups or None}
        features = _features(rest, roles, source, path)
    return id, time, tuple(features)


def _required(columns: Sequence[str], role: str, what: str, source: Source, path: object) -> str:
    name = _find(columns, role, source, path)
    if name is None:
        raise InputError(
            f"{path}: no column says {what}",
            expected=f"one called {', '.join(USUAL[role][:4])} or alike", got=_listed(columns),
            fix=f"Say which one does: --{role} COLUMN.",
        )  # fmt: skip
    return name


def _find(columns: Sequence[str], role: str, source: Source, path: object) -> str | None:
    said = getattr(source, role, None)
    if said is not None:
        return _known(columns, role, said, path)
    found = [name for name in columns if name.lower() in USUAL[role]]
    if len(found) > 1:
        raise InputError(
            f"{path}: several columns may be the {role}", got=_listed(found),
            fix=f"Say which one is: --{role} {found[0]}.",
        )  # fmt: skip
    axes = {"x", "z"} <= {name.lower() for name in columns}
    if not found and role in WEAK and not (role == "label" and axes):
        found = [name for name in columns if name.lower() == WEAK[role]]
    return found[0] if found else None


def _features(
    columns: Sequence[str], roles: dict[str, str | None], source: Source, path: object
) -> tuple[str, ...]:
    """The columns that are values of a step."""
    for name in source.features:
        _known(columns, "features", name, path)
        role = next((role for role, column in roles.items() if column == name), None)
        if role is not None:
            raise InputError(
                f"{path}: the column {name!r} is both the {role} and a feature",
                fix=f"Leave it out of --features, or say another --{role}.",
            )
    usual = {*UNNAMED, *(name for names in USUAL.values() for name in names)}
    rest = [name for name in columns if name not in roles.values() and name.lower() not in usual]
    features = source.features or rest
    if not features:
        raise InputError(
            f"{path}: no column has values", expected="one for each value of a step",
            got=_listed(columns),
        )  # fmt: skip
    return tuple(dict.fromkeys(features))


def _known(columns: Sequence[str], role: str, name: str, path: object) -> str:
    if name not in columns:
        raise InputError(
            f"{path}: no column {name!r}, which --{role} names",
            expected=f"one of {_listed(columns)}",
        )
    return name


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(name or "(no name)" for name in names[:MOST_NAMED]) + more
