"""Every format runs by the same call, which says what is wrong with its input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extras import WITH_TORCH
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from networks import SPEC, in_keras, random_network, raw_input
from oracle_runtime import OracleRuntime

from export import oracle
from export.bundle import Bundle
from export.formats.format import Options, as_inputs
from export.formats.registry import FORMATS, file_of
from export.formats.tflite import LiteRuntime
from export.runtimes import open_file, open_runtime
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

NETWORK = random_network("gru")
SHAPE = (2, SPEC.longest, SPEC.features)
# float32 rounding, 8 bits and 11 bits a weight: as in test_tflite.py.
LIMITS = dict.fromkeys(("keras", *FORMATS), 1e-6) | {"tflite_int8": 3e-3, "tflite_float16": 5e-4}
NAMES = [
    pytest.param(name, marks=pytest.mark.torch) if name == "torch" else name for name in LIMITS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in every format."""
    folder = tmp_path_factory.mktemp("runtimes")
    in_keras(NETWORK).save(folder / file_of("keras"))
    options = Options(raw_input(200))
    for name in FORMATS:
        if name != "torch" or WITH_TORCH:
            FORMATS[name].write(NETWORK, folder / file_of(name), options)
    return folder


# --- the same call for all ---
@pytest.mark.parametrize("name", NAMES)
def test_every_runtime_answers_as_the_oracle_does(name: str, folder: Path) -> None:
    runtime = open_file(name, folder / file_of(name), SPEC)
    x = raw_input(64)
    exact = OracleRuntime(NETWORK).predict(x)
    for batch in (1, 7, 64, 2):
        got = runtime.predict(x[:batch])
        assert (got.shape, got.dtype) == ((batch, SPEC.classes), np.float32)
        np.testing.assert_allclose(got, exact[:batch], rtol=0, atol=LIMITS[name])


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_not_overwritten_by_the_next(name: str, folder: Path) -> None:
    runtime = open_file(name, folder / file_of(name), SPEC)
    first = runtime.predict(raw_input(2)[:1])
    kept = first.copy()
    runtime.predict(raw_input(2)[1:])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", NAMES)
def test_every_runtime_refuses_what_is_not_a_sequence(name: str, folder: Path) -> None:
    runtime = open_file(name, folder / file_of(name), SPEC)
    with pytest.raises(InputError, match=r"^the input does not fit the model"):
        runtime.predict(np.zeros((2, SPEC.longest + 1, SPEC.features), np.float32))
    with pytest.raises(InputError, match=r"^the input is not finite"):
        runtime.predict(np.full(SHAPE, np.nan, np.float32))


def test_the_oracle_runtime_is_the_oracle() -> None:
    x = raw_input(3)
    np.testing.assert_array_equal(
        OracleRuntime(NETWORK).predict(x), oracle.probabilities(NETWORK, x)
    )


# --- input ---
def as_input(x: Any, spec: SequenceSpec) -> np.ndarray:
    """The only input of a model whose sequences are all as long."""
    (taken,) = as_inputs(x, None, spec).values()
    return taken


@pytest.mark.parametrize(
    "shape",
    [(7, 3), (1, 1, 7, 3), (), (2, 8, 3), (2, 3, 7), (2, 7, 2), (2, 7, 0), (0, 7, 3)],
    ids=str,
)
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    message = r"^the input does not fit the model; expected shape \(batch, 7, 3\), got \("
    with pytest.raises(InputError, match=message):
        as_input(np.zeros(shape, np.float32), SPEC)


@pytest.mark.parametrize("dtype", ["U3", "S3", "complex64", "object", "datetime64[s]", "V4"])
def test_what_is_not_numbers_is_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=r"^the input is not numbers; expected float32, got "):
        as_input(np.zeros(SHAPE, dtype), SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_in_float32_is_refused(value: float, dtype: type) -> None:
    x = np.zeros(SHAPE, np.float64)
    x[1, 3, 2] = value
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    with pytest.raises(InputError, match=r"^the input is not finite; got NaN or infinity$"):
        as_input(x, SPEC)


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_large_values_are_finite_though_their_squares_are_not(value: float) -> None:
    x = np.full(SHAPE, value, np.float32)
    assert as_input(x, SPEC) is x


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64", "longdouble"])
def test_any_number_type_is_taken(dtype: str) -> None:
    x = np.arange(42).reshape(SHAPE).astype(dtype)
    taken = as_input(x, SPEC)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, x)
    np.testing.assert_array_equal(as_input(x.tolist(), SPEC), x)


def test_float32_is_not_copied_and_a_view_is_made_contiguous() -> None:
    x = np.arange(84, dtype=np.float32).reshape(4, *SHAPE[1:])
    assert as_input(x, SPEC) is x
    taken = as_input(x[::2], SPEC)
    assert taken.flags.c_contiguous
    np.testing.assert_array_equal(taken, x[::2])


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(hnp.arrays(np.float32, SHAPE, elements=ANY_FLOAT))
def test_exactly_what_is_finite_is_taken(x: np.ndarray) -> None:
    if np.isfinite(x).all():
        assert as_input(x, SPEC) is x
    else:
        with pytest.raises(InputError, match="not finite"):
            as_input(x, SPEC)


# --- libraries ---
RUN_WITHOUT_TENSORFLOW = """
import json, sys
import numpy
from export.bundle import Bundle
from export.runtimes import open_runtime
bundle = Bundle.open(sys.argv[1])
shape = (2, bundle.spec.longest, bundle.spec.features)
for name in ("tflite", "tflite_int8", "tflite_float16", "onnx"):
    if name in bundle.formats:
        answer = open_runtime(bundle, name).predict(numpy.zeros(shape))
        assert answer.shape == (2, bundle.spec.classes)
heavy = {"tensorflow", "keras", "tf2onnx", "torch"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


def test_tflite_and_onnx_run_without_tensorflow(small_bundle: Bundle) -> None:
    assert {"tflite", "onnx"} <= set(small_bundle.formats)
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_TENSORFLOW, str(small_bundle.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    # LiteRT talks about its kernels when it starts, which is nothing to the user.
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "modules", "package"),
    [
        ("tflite", ["ai_edge_litert", "ai_edge_litert.interpreter"], "ai-edge-litert"),
        ("onnx", ["onnxruntime"], "onnxruntime"),
        ("saved_model", ["tensorflow"], "tensorflow"),
        ("keras", ["keras"], "keras"),
    ],
)
def test_a_runtime_that_is_not_installed_is_named(
    name: str,
    modules: list[str],
    package: str,
    small_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    file = file_of(name).replace(".", r"\.")
    message = rf"^running {file} needs {package}\. Install it: pip install {package}$"
    with pytest.raises(InputError, match=message):
        open_runtime(small_bundle, name)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_reaches_the_runtime(threads: int, folder: Path) -> None:
    runtime: Any = open_file("onnx", folder / file_of("onnx"), SPEC, threads)
    options = runtime.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    x = raw_input(64)
    lite = LiteRuntime(folder / file_of("tflite"), SPEC, threads)
    np.testing.assert_allclose(
        lite.predict(x), oracle.probabilities(NETWORK, x), rtol=0, atol=LIMITS["tflite"]
    )


@pytest.mark.parametrize("name", ["keras", "saved_model"])
def test_threads_that_tensorflow_cannot_have_any_more_are_refused(name: str, folder: Path) -> None:
    """They belong to the process, which has computed by now."""
    open_file(name, folder / file_of(name), SPEC).predict(raw_input(1))
    message = r"^TensorFlow already computes in this process with other threads; expected 7, got "
    with pytest.raises(InputError, match=message):
        open_file(name, folder / file_of(name), SPEC, 7)
