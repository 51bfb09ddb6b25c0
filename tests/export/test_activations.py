"""Each dialect implements exactly the activations that a cell can have."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from export import oracle
from export.formats import onnx_nodes, tf_function
from rnn_tf.model.activations import ACTIVATIONS, ALIASES


@pytest.mark.parametrize(
    "table", [oracle.ACTIVATIONS, onnx_nodes.ACTIVATIONS], ids=["formulas", "ONNX"]
)
def test_a_table_has_every_activation_and_no_other(table: dict[str, object]) -> None:
    assert set(table) == set(ACTIVATIONS)


@pytest.mark.torch
def test_so_has_that_of_pytorch() -> None:
    from rnn_tf.training.torch import module

    assert set(module.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_that_of_tensorflow_is_the_formula(name: str) -> None:
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    exact = oracle.ACTIVATIONS[name](x.astype(np.float64))
    # float32 rounding, and of values up to 8 what is left of them: 5e-7 seen.
    found = tf_function.activation(name)(keras.ops.convert_to_tensor(x))
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_activation_that_it_stands_for(alias: str) -> None:
    assert ALIASES[alias] in ACTIVATIONS
    assert keras.activations.get(alias) is keras.activations.get(ALIASES[alias])
