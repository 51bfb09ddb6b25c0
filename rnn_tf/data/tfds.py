"""Any image or sequence classification set of TensorFlow Datasets, by name.

TFDS downloads, checks and prepares a set once; this module reads it into arrays once and keeps
them, so that every later run starts at once and imports neither TFDS nor TensorFlow.

TFDS shuffles on writing. Examples come in its storage order, the same on every machine; those of
`mnist` are put back in the order of the official files, so that `tfds:mnist` is `mnist`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnn_tf.data import mnist
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split, hold_out_tenth, raw_values
from rnn_tf.errors import InputError
from rnn_tf.files.arrays import read_arrays
from rnn_tf.files.cache import cache_folder

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# <name>, <name>/<config>, either with :<version>; what TFDS itself accepts, less its keyword
# arguments and the namespaces that need a network. Nothing in it can leave a folder.
NAME = re.compile(
    r"(?P<set>[A-Za-z_]\w*)(/(?P<config>[\w\-.]*\w))?(:[\d*]+\.[\d*]+\.[\d*]+)?", re.ASCII
)

# Part of a cached file's name: another number when what is in it changes.
CACHE_FORMAT = 1

# TFDS tries 10 times, and waits 204 s in all before it says that there is no network. 3: 1.2 s.
DOWNLOAD_RETRIES = 3

# Examples decoded at once.
READ_BATCH = 1024


# The splits of `SequenceData`, in its order.
SPLITS = ("train", "valid", "test")


class Columns(NamedTuple):
    """Which features of a set are read, and what they hold."""

    x: str  # name of the input feature
    y: str  # name of the class label feature
    shape: tuple[int, int]  # (timesteps, features) of every example
    dtype: np.dtype[Any]  # of x as TFDS decodes it
    scale: float  # raw value * scale = model input
    channels: int  # of an 8-bit image, else 0
    labels: tuple[str, ...]


def load(name: str) -> SequenceData:
    """A set of TensorFlow Datasets: `<name>`, `<name>/<config>`, either with `:<version>`.

    An image `(height, width, channels)` becomes `height` time steps of `width * channels`, uint8
    with a scale of 1/255; a tensor `(timesteps, features)` or `(timesteps,)` becomes float32
    `(timesteps, features)` or `(timesteps, 1)`; `y` is int32. `train` and `test` are the set's
    own; valid is its `validation`, or else the last tenth, at most 5,000, of train.

    The first call prepares the set in `$TFDS_DATA_DIR` (`~/tensorflow_datasets`), downloading it
    unless it is `mnist`, which ships with this package; it shows TFDS's progress on a terminal.

    Raises `InputError` for a name that TFDS does not know, a set without what is needed here,
    and one that cannot be downloaded.
    """
    _check_name(name)
    data_dir = _data_dir()
    cached = _cache_file(name, data_dir)
    data = _read_cache(cached)
    if data is None:
        with _quiet_tfds():
            builder = _builder(name, data_dir)
            columns = _columns(builder.info.features, builder.info.supervised_keys, name)
            _prepare(builder, name, data_dir)
            data = _read(builder, columns, name)
            _write_cache(cached, data, Path(builder.data_dir))
    return data


def _data_dir() -> Path:
    """Where TFDS prepares sets; its own rule, known here so as not to import it."""
    chosen = os.environ.get("TFDS_DATA_DIR")
    return Path(chosen) if chosen else Path.home() / "tensorflow_datasets"


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Import TFDS; progress bars on a terminal only, no log lines, quick to give up a download."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    # For the process, not for this call: when one download has failed, others go on in their
    # threads, and the process waits for them at its end.
    downloader.MAX_RETRIES = DOWNLOAD_RETRIES
    for name in ("absl", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    terminal = sys.stderr.isatty()
    if not terminal:
        tfds.disable_progress_bar()
    # TFDS prints on stdout, which belongs to the command's result.
    with contextlib.redirect_stdout(sys.stderr if terminal else io.StringIO()):
        yield


def _check_name(name: str) -> re.Match[str]:
    match = NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"bad TensorFlow Datasets name {name!r}",
            expected="tfds:<name>, tfds:<name>/<config>, either with :<version>",
        )
    return match


def _builder(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(_check_name(name)["set"]) from error
    # How TFDS answers an unknown config (ValueError) and an unknown version (AssertionError).
    except (ValueError, AssertionError) as error:
        configs = list(tfds.builder_cls(_check_name(name)["set"]).builder_configs)
        config = _check_name(name)["config"]
        if config is not None and config not in configs:
            raise InputError(
                f"cannot use tfds:{name}",
                expected=f"a config out of {', '.join(configs)}" if configs else "no config",
                got=config,
            ) from error
        reason = str(error).partition('}": ')[2] or str(error)
        raise InputError(f"cannot use tfds:{name}", got=reason) from error


def _not_found(name: str) -> InputError:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(name.lower(), known, n=3)
    catalog = "They are listed at https://www.tensorflow.org/datasets/catalog/overview."
    return InputError(
        f"TensorFlow Datasets has no {name!r}",
        expected=f"one of its {len(known)} sets",
        fix=f"Did you mean {' or '.join(close)}?" if close else catalog,
    )


def _columns(features: Mapping[str, Any], supervised_keys: Any, name: str) -> Columns:
    """Choose the input and the label: what the set says is supervised, else the only candidates."""
    import tensorflow_datasets as tfds

    found = f"{', '.join(f'{key} ({_describe(value)})' for key, value in features.items())}"
    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    inputs = [key for key, value in features.items() if _is_input(value)]
    pair = supervised_keys if supervised_keys and len(supervised_keys) == 2 else (None, None)
    x = pair[0] if pair[0] in inputs else inputs[0] if len(inputs) == 1 else None
    y = pair[1] if pair[1] in labels else labels[0] if len(labels) == 1 else None
    if y is None:
        raise InputError(f"tfds:{name} has no class label", expected="one ClassLabel", got=found)
    if x is None:
        raise InputError(
            f"tfds:{name} has no usable input",
            expected="one image, or one numeric tensor of rank 1 or 2",
            got=found,
        )
    shape, dtype = features[x].shape, np.dtype(features[x].np_dtype)
    if None in shape or 0 in shape:
        raise InputError(
            f"the examples of tfds:{name} differ in shape",
            expected="a fixed shape",
            got=f"{x} of shape {shape}",
            fix="Resize or pad them yourself, and save them as an .npz file.",
        )
    image = isinstance(features[x], tfds.features.Image)
    timesteps, *rest = shape
    scale = 1 / np.iinfo(dtype).max if image and dtype.kind == "u" else 1.0
    return Columns(
        x=x,
        y=y,
        shape=(timesteps, int(np.prod(rest))),
        dtype=dtype,
        scale=scale,
        channels=rest[-1] if image and dtype == np.uint8 else 0,
        labels=tuple(features[y].names or ()),
    )


def _describe(feature: Any) -> str:
    shape = "" if isinstance(feature.shape, dict) else f" {feature.shape}"
    return f"{type(feature).__name__}{shape}"


def _is_input(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return True
    if isinstance(feature.shape, dict) or isinstance(feature.np_dtype, dict):  # nested features
        return False
    return len(feature.shape) in (1, 2) and np.dtype(feature.np_dtype).kind in "buif"


def _prepare(builder: tfds.core.DatasetBuilder, name: str, data_dir: Path) -> None:
    """Let TFDS download and prepare the set, unless it has."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError
    from tensorflow_datasets.core.download.util import DownloadError

    manual_dir = data_dir / "downloads" / "manual"
    config = tfds.download.DownloadConfig(
        manual_dir=mnist.FILES if builder.name == "mnist" else manual_dir, try_download_gcs=False
    )
    try:
        builder.download_and_prepare(download_config=config)
    except (requests.RequestException, DownloadError) as error:
        files = ", ".join(sorted({str(info.filename) for info in builder.url_infos.values()}))
        raise InputError(
            f"cannot download tfds:{name}",
            expected="a connection, on first use",
            got=str(error) if isinstance(error, DownloadError) else type(error).__name__,
            fix=f"Connect once, or put {files or 'its files'} into {manual_dir}.",
        ) from error
    # A missing file that must be fetched by hand is an AssertionError; a missing package that only
    # this set needs, an ImportError; a full or read-only disk, an OSError.
    except (NonMatchingChecksumError, ExtractError, AssertionError, ImportError, OSError) as error:
        raise InputError(f"cannot prepare tfds:{name}", got=str(error)) from error


def _read(builder: tfds.core.DatasetBuilder, columns: Columns, name: str) -> SequenceData:
    """Decode the splits into arrays."""
    found = [key for key, split in builder.info.splits.items() if split.num_examples]
    missing = [key for key in ("train", "test") if key not in found]
    if missing:
        raise InputError(
            f"tfds:{name} has no {' and no '.join(missing)} split",
            expected="train and test",
            got=", ".join(found) or "none",
        )
    names = [key for key in ("train", "validation", "test") if key in found]
    splits = {key: _read_split(builder, columns, key) for key in names}
    x = raw_values({key: split.x for key, split in splits.items()}, f"tfds:{name}")
    splits = {key: Split(x[key], split.y) for key, split in splits.items()}
    if builder.name == "mnist":
        splits = _in_file_order(splits, builder.data_dir)
    for key, split in splits.items():
        if split.y.min() < 0 or split.y.max() >= len(columns.labels):
            raise InputError(
                f"tfds:{name} has unlabelled examples in {key}",
                expected=f"classes 0 to {len(columns.labels) - 1}",
                got=f"{split.y.min()} to {split.y.max()}",
            )
    spec = SequenceSpec(
        *columns.shape, len(columns.labels), columns.labels, columns.scale, columns.channels
    )
    train, valid = splits["train"], splits.get("validation")
    if valid is None:
        train, valid = hold_out_tenth(train)
    return SequenceData(spec, train, valid, splits["test"])


def _read_split(builder: tfds.core.DatasetBuilder, columns: Columns, split: str) -> Split:
    import tensorflow_datasets as tfds

    examples = builder.info.splits[split].num_examples
    x = np.empty((examples, *columns.shape), columns.dtype)
    y = np.empty(examples, np.int32)
    batches = builder.as_dataset(
        split=split,
        batch_size=READ_BATCH,
        shuffle_files=False,
        # The other features, pictures among them, are not decoded.
        decoders=tfds.decode.PartialDecoding({columns.x: True, columns.y: True}),
        # One file after the other: storage order.
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    start = 0
    for batch in tfds.as_numpy(batches):
        end = start + len(batch[columns.y])
        x[start:end] = batch[columns.x].reshape(-1, *columns.shape)
        y[start:end] = batch[columns.y]
        start = end
    return Split(x, y)


def _in_file_order(splits: dict[str, Split], prepared: str) -> dict[str, Split]:
    """Undo TFDS's shuffling of MNIST, by finding each example in the official files.

    TFDS sorts by a hash of the position and keeps neither. Equal examples need no telling apart.
    Raises `InputError` when these are not the official examples.
    """
    data = mnist.load()
    train = (np.concatenate(pair) for pair in zip(data.train, data.valid, strict=True))
    official = {"train": Split(*train), "test": data.test}
    same = splits.keys() == official.keys() and all(
        sorted(_example_bytes(splits[key])) == sorted(_example_bytes(official[key]))
        for key in official
    )
    if not same:
        raise InputError(
            f"{prepared} does not hold the official MNIST",
            fix="Delete it, and it will be made again.",
        )
    return official


def _example_bytes(split: Split) -> Iterator[bytes]:
    return (y.tobytes() + x.tobytes() for x, y in zip(split.x, split.y, strict=True))


def _cache_file(name: str, data_dir: Path) -> Path:
    """Where the arrays of a set are kept: another file for another TFDS, or other data folder."""
    release = importlib.metadata.version("tensorflow-datasets")
    key = "\n".join((str(CACHE_FORMAT), release, str(data_dir.absolute()), name))
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.]+", "-", name, flags=re.ASCII)
    return cache_folder("tfds") / f"{readable}-{digest}.npz"


def _prepared_at(folder: Path) -> int:
    """When TFDS wrote a set, ns since 1970; 0 when it is no longer there."""
    try:
        return (folder / "dataset_info.json").stat().st_mtime_ns
    except OSError:
        return 0


def _read_cache(file: Path) -> SequenceData | None:
    """The arrays kept in `file`; None when there are none, or damaged or outdated ones."""
    try:
        arrays = read_arrays(file)  # checks the CRC-32 of every array
        spec = SequenceSpec.from_json(str(arrays["spec"]))
        splits = [Split(arrays[f"x_{key}"], arrays[f"y_{key}"]) for key in SPLITS]
        prepared = _prepared_at(Path(str(arrays["folder"])))
        # A set that was deleted since can still be used; one that was made again has changed.
        outdated = prepared not in (0, int(arrays["prepared_at"]))
    except (ValueError, TypeError, KeyError):  # an InputError is a ValueError
        return None
    return None if outdated else SequenceData(spec, *splits)


def _write_cache(file: Path, data: SequenceData, folder: Path) -> None:
    """Keep the arrays: whole or not at all. Warns when that cannot be done."""
    arrays = {
        "spec": np.array(data.spec.to_json()),
        "folder": np.array(str(folder)),
        "prepared_at": np.array(_prepared_at(folder)),
    }
    for key in SPLITS:
        split: Split = getattr(data, key)
        arrays[f"x_{key}"], arrays[f"y_{key}"] = split.x, split.y
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as stream:
            temporary = Path(stream.name)
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        temporary.replace(file)
    except OSError as error:
        warnings.warn(
            f"cannot keep the decoded arrays in {file.parent}: {error.strerror}; the next run will "
            "decode them again. Set RNN_TF_CACHE to another folder",
            stacklevel=2,
        )
        if temporary is not None:
            temporary.unlink(missing_ok=True)
