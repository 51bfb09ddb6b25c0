"""Raw values: what float32 cannot hold is said exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.data.values import raw_values


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_the_rounding_of_whole_numbers_is_said_exactly(values: list[int]) -> None:
    worst = max(abs(value - int(np.float32(value))) for value in values)
    x = np.array(values, np.int64)
    if worst:
        with pytest.warns(UserWarning, match=f"by up to {worst:.2g}".replace("+", r"\+")):
            raw_values({"x": x}, "set", "")
    else:
        np.testing.assert_array_equal(raw_values({"x": x}, "set", "")["x"].astype(np.float64), x)
