"""The embedded default: the four official MNIST files, checked and read directly.

No network, no TensorFlow. The files are in the IDX format, described at the foot of
<https://web.archive.org/web/2024/http://yann.lecun.com/exdb/mnist/>.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split
from rnn_tf.errors import InputError


class OfficialFile(NamedTuple):
    """One file as it was published."""

    name: str
    sha256: str


# The folder that ships with the package.
FILES = Path(__file__).parent / "files" / "mnist"

OFFICIAL: Mapping[str, OfficialFile] = MappingProxyType(
    {
        "x_train": OfficialFile(
            "train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "y_train": OfficialFile(
            "train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "x_test": OfficialFile(
            "t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "y_test": OfficialFile(
            "t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    }
)

SPEC = SequenceSpec(
    timesteps=28,
    features=28,
    labels=tuple(str(digit) for digit in range(10)),
    normalize=Normalize((1 / 255,)),
    channels=1,
)

# Examples at the end of train that choose the model.
VALID_EXAMPLES = 5_000

GZIP_MAGIC = b"\x1f\x8b"

IDX_DTYPES: Mapping[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def load(folder: Path = FILES) -> SequenceData:
    """MNIST, each digit a sequence of its 28 rows from the top, each row 28 grey levels.

    `x` is uint8 `(n, 28, 28)`, 0 (paper) to 255 (ink), not scaled; `y` is int32 `(n,)`. Train
    has 55,000 examples and valid 5,000, the last of the official 60,000; test has the official
    10,000. The order is that of the files.

    Raises `InputError` when a file in `folder` is missing or is not the official one.
    """
    with ThreadPoolExecutor(len(OFFICIAL)) as pool:  # hashing and inflating release the GIL
        arrays = dict(
            zip(OFFICIAL, pool.map(lambda f: _read(folder, f), OFFICIAL.values()), strict=True)
        )
    x, y = arrays["x_train"], arrays["y_train"].astype(np.int32)
    train = Split(x[:-VALID_EXAMPLES], y[:-VALID_EXAMPLES])
    valid = Split(x[-VALID_EXAMPLES:], y[-VALID_EXAMPLES:])
    test = Split(arrays["x_test"], arrays["y_test"].astype(np.int32))
    return SequenceData(SPEC, train, valid, test)


def read_idx(data: bytes) -> np.ndarray:
    """The array in an IDX file, in native byte order; gzip-compressed files are inflated.

    The format: two zero bytes, a dtype code, the rank, one big-endian uint32 for each size, then
    the values, big-endian, the last index changing fastest. The length must be exact.

    Raises `InputError` for anything else.
    """
    if data[:2] == GZIP_MAGIC:
        data = _inflate(data)
    if len(data) < 4 or data[:2] != b"\0\0":
        raise InputError(
            "not an IDX file",
            expected="two zero bytes, a dtype code and a rank, or the same in gzip",
            got=data[:4].hex(" ") or "an empty file",
        )
    dtype, rank = IDX_DTYPES.get(data[2]), data[3]
    if dtype is None:
        raise InputError(
            "unknown IDX dtype",
            expected=", ".join(f"0x{code:02x}" for code in IDX_DTYPES),
            got=f"0x{data[2]:02x}",
        )
    start = 4 + 4 * rank
    if rank < 1 or len(data) < start:
        raise InputError(
            "bad IDX header", expected="one size or more", got=f"rank {rank} in {len(data)} bytes"
        )
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    size = start + math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise InputError(
            "an IDX file of the wrong length", expected=f"{size} bytes for {shape}", got=len(data)
        )
    return _array(data, dtype, start, shape)


def _array(data: bytes, dtype: np.dtype[Any], start: int, shape: tuple[int, ...]) -> np.ndarray:
    values = np.frombuffer(data, dtype, offset=start)
    try:
        # A copy, so that it can be written to: `bytes` cannot, and PyTorch warns about that.
        return values.astype(dtype.newbyteorder("=")).reshape(shape)
    except ValueError as error:  # more axes, or (beside a 0) larger ones, than NumPy can have
        raise InputError("an IDX array of an impossible shape", got=str(error)) from error


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: a gzip header and checksum
    try:
        inflated = stream.decompress(data)
    except zlib.error as error:
        raise InputError("damaged gzip data", got=str(error)) from error
    if not stream.eof or stream.unused_data:
        raise InputError(
            "damaged gzip data",
            expected="one whole gzip stream",
            got="more after its end" if stream.eof else "its end missing",
        )
    return inflated


def _read(folder: Path, file: OfficialFile) -> np.ndarray:
    path = folder / file.name
    fix = "Reinstall the package: its data files are damaged."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}", got=error.strerror, fix=fix) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != file.sha256:
        raise InputError(
            f"{path} is not the official MNIST file",
            expected=f"SHA-256 {file.sha256[:12]}…",
            got=f"{sha256[:12]}… ({len(data)} bytes)",
            fix=fix,
        )
    return read_idx(data)
