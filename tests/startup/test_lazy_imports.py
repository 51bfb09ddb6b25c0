"""TensorFlow's public names in a command: the same as elsewhere, but loaded when they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from rnn_tf.startup import lazy_imports

# What TensorFlow gives: its public names, what each of them is, and whose gradients it knows.
SHOWN = """
import json, sys
from rnn_tf.startup import ownership, process
{before}
process.start()
import tensorflow as tf
from tensorflow.python.framework import ops
loaded = [name for name in ("tensorflow.python.keras", "jax") if name in sys.modules]
gradients = sorted(ops.gradient_registry.list())
seen, found = set(), {{}}
def look(module, path):
    if id(module) in seen:
        return
    seen.add(id(module))
    for name in dir(module):
        value = getattr(module, name)
        if name in ("compat", "keras") or name.startswith("__") or name.startswith("_tf"):
            continue
        if type(value).__name__ in ("module", "_List"):
            if getattr(value, "__name__", "").startswith("tensorflow._api"):
                look(value, f"{{path}}.{{name}}")
        elif not name.startswith("_"):
            found[f"{{path}}.{{name}}"] = getattr(value, "__qualname__", type(value).__qualname__)
look(tf, "tf")
once = dict(found)
seen.clear()
look(tf, "tf")  # what was loaded since has taken no name
assert found == once
tf.lite.TFLiteConverter
print(json.dumps(dict(loaded=loaded, gradients=gradients, found=found, names=dir(tf.nn))))
"""


def shown(before: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SHOWN.format(before=before)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    of_tensorflow: dict[str, Any] = json.loads(done.stdout)
    return of_tensorflow


@pytest.mark.slow
def test_a_command_has_all_of_tensorflow_and_loads_what_it_uses() -> None:
    plain, command = shown(""), shown("ownership.claim()")
    assert len(plain["found"]) > 3000
    assert command["found"] == plain["found"]
    assert set(command["names"]) >= {name for name in plain["names"] if not name.startswith("_")}
    assert "tensorflow.python.keras" in plain["loaded"]
    assert command["loaded"] == []
    # Of operations that no model has.
    without = {
        "AudioMicrofrontend", "DebugGradientIdentity", "DebugGradientRefIdentity",
        "DebugIdentityV2",
    }  # fmt: skip
    assert set(plain["gradients"]) - set(command["gradients"]) <= without


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('"""Public API\n"""\n\nimport sys as _sys\n\nfrom a.b import c # line: 3\n', {"c": "c"}),
        ("# Generated\nfrom a.b import c as d\nfrom a import e\n", {"d": "c", "e": "e"}),
        ("from a.b import c\nc.register()\n", None),
        ("from a.b import c\nif c:\n  from a.b import d\n", None),
        ("from a.b import (\n    c,\n)\n", None),
    ],
)
def test_a_list_of_names_is_told_from_a_module_that_does_more(
    source: str, names: dict[str, str] | None
) -> None:
    listed = lazy_imports._listed(source)
    if names is None:
        assert listed is None
    else:
        assert listed is not None
        assert {alias: name for alias, (_, name) in listed.items()} == names
