"""Classification sets of TensorFlow Datasets, by name.

TFDS downloads, checks and prepares a set once; this module reads it into arrays once and keeps
them, so that every later run starts at once and imports neither TFDS nor TensorFlow. What cannot
be read is refused before anything is downloaded, as far as TFDS knows the set by then.

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
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rnn_tf.data import decoded, mnist, tfds_arrays, tfds_features
from rnn_tf.data.spec import SequenceData
from rnn_tf.data.tfds_features import Columns
from rnn_tf.errors import InputError
from rnn_tf.files.cache import cache_folder

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# <name>, <name>/<config>, either with :<version>; what TFDS itself accepts, less its keyword
# arguments and the namespaces that need a network. Nothing in it can leave a folder. Behind it,
# @<height>x<width> is ours.
NAME = re.compile(
    r"(?P<tfds>(?P<set>[A-Za-z_]\w*)(/(?P<config>[\w\-.]*\w))?(:[\d*]+\.[\d*]+\.[\d*]+)?)"
    r"(@(?P<height>[1-9]\d{0,3})x(?P<width>[1-9]\d{0,3}))?",
    re.ASCII,
)

# Part of a cached file's name: another number when what is in it changes.
CACHE_FORMAT = 3

# TFDS tries 10 times, and waits 204 s in all before it says that there is no network. 3: 1.2 s.
DOWNLOAD_RETRIES = 3

# The arrays of a set may take this share of the machine's memory: training needs the rest.
MEMORY_SHARE = 0.5


def load(name: str) -> SequenceData:
    """Load a set: `<name>`, `<name>/<config>`, either with `:<version>`, all with a size.

    A picture `(height, width, channels)` becomes `height` time steps of `width * channels`, uint8
    with a scale of 1/255. Pictures that differ in size are stretched to 32x32, and any to
    `height` and `width` where the name ends with `@<height>x<width>`. A tensor `(timesteps, ...)`
    becomes float32 `(timesteps, features)`, with one feature where it has no other axis. `y` is
    int32, a class a sequence, or one a step where the label is a sequence of classes as long as it.

    The splits are the set's own `train`, `validation` and `test`, without examples that have no
    label (-1). Where it has no test split, a fifth of train becomes one, of every class its share
    and at most 10,000 examples; where it has no validation split, a tenth, at most 5,000.

    The first call prepares the set in `$TFDS_DATA_DIR` (`~/tensorflow_datasets`), downloading it
    unless it is `mnist`, which ships with this package; it shows TFDS's progress on a terminal.

    Warns (`UserWarning`) of pictures resized to 32x32, of a test split that was cut from train,
    and of examples left out. Raises `InputError` for a name that TFDS does not know, a set that
    cannot be read or is too large, and one that cannot be downloaded.
    """
    _match(name)
    cached = _cache_file(name, _data_dir())
    found = decoded.read(cached)
    if found is None:
        with quiet():
            builder, columns = prepared(name)
            found = tfds_arrays.read(builder, columns, f"tfds:{name}")
            decoded.write(cached, found, Path(builder.data_dir))
    say(found.notes, name)
    return found.data


def say(notes: Iterable[str], name: str) -> None:
    """Warn of what the user of a set should know about how it was read."""
    for note in notes:
        warnings.warn(f"tfds:{name}: {note}", stacklevel=3)


def prepared(name: str, *, in_memory: bool = True) -> tuple[tfds.core.DatasetBuilder, Columns]:
    """A set, prepared unless it is, and which of its features are read.

    `in_memory`: all examples at once, which are refused if they are too many. Raises `InputError`
    as `load` does.
    """
    match, data_dir = _match(name), _data_dir()
    builder = _builder(match, data_dir)
    columns = _columns(builder, match)
    _check_splits(builder, columns, match, in_memory=in_memory)
    _prepare(builder, name, data_dir)
    _check_splits(builder, columns, match, in_memory=in_memory)
    return builder, columns


def _data_dir() -> Path:
    """Where TFDS prepares sets; its own rule, known here so as not to import it."""
    chosen = os.environ.get("TFDS_DATA_DIR")
    return Path(chosen) if chosen else Path.home() / "tensorflow_datasets"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


def _match(name: str) -> re.Match[str]:
    match = NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"bad TensorFlow Datasets name {name!r}",
            expected="tfds:<name>, tfds:<name>/<config>, either with :<version>, all with "
            "@<height>x<width> for pictures",
        )
    return match


def _builder(match: re.Match[str], data_dir: Path) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    name = match["tfds"]
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(match["set"]) from error
    except ImportError as error:
        raise _missing_package(name, error) from error
    # How TFDS answers an unknown config (ValueError) and an unknown version (AssertionError), and
    # a set whose description it reads from a file or the network and cannot (the others).
    except (ValueError, AssertionError, OSError, RuntimeError) as error:
        configs = list(tfds.builder_cls(match["set"]).builder_configs)
        config = match["config"]
        if config is not None and config not in configs:
            raise InputError(
                f"cannot use tfds:{name}",
                expected=f"a config out of {', '.join(configs)}" if configs else "no config",
                got=config,
            ) from error
        reason = str(error).partition('}": ')[2] or str(error)
        raise InputError(f"cannot use tfds:{name}", got=reason) from error


def _missing_package(name: str, error: ImportError) -> InputError:
    # By what it says: TFDS raises it anew, without its `name`.
    missing = re.search(r"No module named '(\w+)", str(error))
    return InputError(
        f"tfds:{name} needs a package that is not installed",
        got=None if missing else str(error),
        fix=f"Install it: pip install {missing[1]}" if missing else None,
    )


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


def _columns(builder: tfds.core.DatasetBuilder, match: re.Match[str]) -> Columns:
    size = (int(match["height"]), int(match["width"])) if match["height"] else None
    info = builder.info
    return tfds_features.choose(info.features, info.supervised_keys, size, f"tfds:{match[0]}")


def _check_splits(
    builder: tfds.core.DatasetBuilder, columns: Columns, match: re.Match[str], *, in_memory: bool
) -> None:
    """Raise `InputError` when a set has no train split, or is too large to be read `in_memory`.

    TFDS knows the splits of most sets before it downloads them, if there is a network.
    """
    splits = tfds_arrays.split_sizes(builder)
    if not builder.info.splits.total_num_examples:
        return
    source = f"tfds:{match[0]}"
    if "train" not in splits:
        raise InputError(
            f"{source} has no train split", expected="train", got=", ".join(builder.info.splits)
        )
    most = psutil.virtual_memory().total * MEMORY_SHARE
    needed = sum(splits.values()) * columns.example_bytes
    if in_memory and needed > most:
        raise InputError(
            f"{source} is too large for the memory of this machine",
            expected=f"at most {most / 2**30:.1f} GiB, half of it",
            got=f"{needed / 2**30:.1f} GiB in {sum(splits.values()):,} examples of "
            f"{columns.timesteps}x{columns.features}",
            fix=_smaller(match, columns, int(most / sum(splits.values())))
            or f"Write it into shards, and train on those: rnn-tf convert {source} OUT.",
        )


def _smaller(match: re.Match[str], columns: Columns, most_bytes: int) -> str | None:
    """How to read the set so that a picture takes at most `most_bytes`; None when nothing helps."""
    height, width = tfds_features.DEFAULT_SIZE
    if not columns.channels or height * width * columns.channels > most_bytes:
        return None
    return f"Read its pictures smaller: tfds:{match['tfds']}@{height}x{width}."


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
    except ImportError as error:
        raise _missing_package(name, error) from error
    # A missing file that must be fetched by hand is an AssertionError; a full or read-only disk,
    # an OSError.
    except (NonMatchingChecksumError, ExtractError, AssertionError, OSError) as error:
        raise InputError(f"cannot prepare tfds:{name}", got=str(error)) from error


def _cache_file(name: str, data_dir: Path) -> Path:
    """Where the arrays of a set are kept: another file for another TFDS, or other data folder."""
    release = importlib.metadata.version("tensorflow-datasets")
    key = "\n".join((str(CACHE_FORMAT), release, str(data_dir.absolute()), name))
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.]+", "-", name, flags=re.ASCII)
    return cache_folder("tfds") / f"{readable}-{digest}.npz"
