"""Bundle: the directory that ships, its manifest, and how it takes its place, whole or not."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from export import sealed, signatures
from export.formats.format import AGAIN, about
from export.formats.registry import FORMATS, REFERENCE, file_of
from export.signatures import CLASSIFY, STEP
from rnn_tf.data import SequenceSpec, Source, Split, elsewhere, load
from rnn_tf.data.profile import DataProfile
from rnn_tf.errors import InputError
from rnn_tf.evaluate import as_read, check_fits
from rnn_tf.files.locking import LOCK, locked
from rnn_tf.files.writing import TEMPORARY, as_input_errors, exchange, write_text
from rnn_tf.run import PROFILE, Run, holds_run
from rnn_tf.streams.early import EarlyResult, EarlyRule

# What `manifest.json` says about the layout of the directory. Raised when it changes.
LAYOUT = 2
MANIFEST, VERIFICATION, README = "manifest.json", "verification.json", "README.md"

# In the folder of an export that is under way: the new bundle, and the old one that it replaces.
NEW, OLD = "new", "old"
# How long to wait for another export that is just putting its bundle in place. Seconds.
LONGEST_RENAME = 60.0
EXPORTING = "is exporting to the same place"

KEYS = {
    "layout", "model", "spec", "dataset", "metrics", "signatures", "formats", "not_shipped",
    "files", "versions",
}  # fmt: skip
# Each carries a checksum of itself; the manifest has those of all other files. The report is
# written anew by every verification, in one step, and so cannot be at odds with the manifest.
SEALED = (MANIFEST, VERIFICATION)


@dataclass(frozen=True)
class Bundle:
    """An exported model: `Bundle.open(path)`; `export.publish.export_run` makes new ones."""

    path: Path
    manifest: dict[str, Any]
    spec: SequenceSpec

    @property
    def formats(self) -> list[str]:
        """The formats it has, the Keras reference not counted."""
        return list(self.manifest["formats"])

    @property
    def dataset(self) -> str:
        """Where the examples came from that it was trained on and verified with."""
        return str(self.manifest["dataset"])

    @property
    def source(self) -> Source:
        """The same with how they are read. A bundle made before files had settings has none.

        Raises `InputError` for bad ones.
        """
        with _of_manifest(self.path / MANIFEST):
            return Source.from_dict(self.manifest.get("source", {"dataset": self.dataset}))

    @property
    def early(self) -> EarlyRule | None:
        """When the answer of a step is final; None where nobody asked `rnn-tf evaluate --early`.

        Raises `InputError` for a bad one.
        """
        if "early" not in self.manifest:
            return None
        with _of_manifest(self.path / MANIFEST):
            return EarlyResult.from_dict(self.manifest["early"]).rule

    @property
    def sealed(self) -> bool:
        """Whether checksums cover every file. They cover the formats only in layout 1."""
        return sealed.KEY in self.manifest

    @property
    def profile(self) -> DataProfile | None:
        """What the training data look like; None for a bundle that was made without it.

        Raises `InputError` when the file is missing or altered.
        """
        if PROFILE not in self.manifest["files"]:
            return None
        self._check_file(PROFILE)
        return DataProfile.open(self.path / PROFILE, self.spec)

    @property
    def verification_file(self) -> Path:
        return self.path / VERIFICATION

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """The bundle in `path`. Raises `InputError` when there is none, or its manifest is bad."""
        path = Path(path)
        if not holds_bundle(path):
            raise InputError(
                f"not a bundle: {path}",
                expected=f"a folder with {MANIFEST}, made by rnn-tf export",
                got="a folder without it" if path.is_dir() else "no folder",
            )
        manifest = _read_manifest(path / MANIFEST)
        with _of_manifest(path / MANIFEST):
            signatures.check(manifest["signatures"])
            return cls(path, manifest, SequenceSpec.from_dict(manifest["spec"]))

    @property
    def steppers(self) -> list[str]:
        """The formats that answer frame by frame."""
        return [name for name in self.formats if STEP in self.signatures_of(name)]

    def signatures_of(self, name: str) -> dict[str, str]:
        """What a format can be asked: signature -> the file that answers it."""
        if name == "keras":
            return {CLASSIFY: REFERENCE}
        # A bundle made before there were steps says nothing.
        names = self.manifest["formats"][name].get("answers", (CLASSIFY,))
        # A path out of a manifest is not followed: the registry has it.
        files = {each: FORMATS[name].file_of(each) for each in signatures.SIGNATURES}
        return {each: file for each, file in files.items() if each in names and file is not None}

    def artefact(self, name: str, signature: str = CLASSIFY) -> Path:
        """Where the file of a format lies that answers a signature, checked against the manifest.

        Raises `InputError` when the bundle does not have it, or a file is missing or altered.
        """
        if name != "keras" and name not in self.formats:
            raise InputError(
                f"the bundle has no format {name!r}", expected=f"one of {', '.join(self.formats)}"
            )
        if signature not in self.signatures_of(name):
            raise self._no_step(name)
        top = self.signatures_of(name)[signature]
        files = self._files_of(top)
        if not files:
            raise InputError(f"bad manifest: {self.path / MANIFEST}", got=f"no file of {name}")
        for file in files:
            self._check_file(file)
        # TensorFlow Serving would load a version that somebody has added.
        self._check_unlisted(self.path / top)
        return self.path / top

    def _no_step(self, name: str) -> InputError:
        """Why a format does not answer frame by frame."""
        if reason := self.manifest["not_shipped"].get(STEP):
            return InputError(f"the bundle has no step: {reason}", got=str(self.path))
        what = f"the bundle's {name} has no step"
        if others := ", ".join(self.steppers):
            return InputError(what, expected=f"one of {others}")
        return InputError(what, got="a bundle that was made before there were steps", fix=AGAIN)

    def check(self) -> None:
        """Check every file of the bundle, and that there are no others.

        Raises `InputError` for the first that is missing, altered, or not in the manifest.
        """
        of_formats: set[str] = set()
        for name in ("keras", *self.formats):
            for signature, top in self.signatures_of(name).items():
                self.artefact(name, signature)
                of_formats.update(self._files_of(top))
        for file in sorted(self.manifest["files"].keys() - of_formats):
            self._check_file(file)
        self._check_unlisted(self.path)
        if self.sealed:
            self._check_verification()

    def check_metadata(
        self, name: str, found: Mapping[str, str], signature: str = CLASSIFY
    ) -> None:
        """Check what the file of a format says of itself: the labels are those of the training.

        Raises `InputError` when manifest and file are not of the same model.
        """
        file = self.signatures_of(name)[signature]
        fingerprint = self.manifest["model"].get("fingerprint")
        expected = about(self.spec, fingerprint, self._signatures_in(name, file))
        if not self.sealed:  # layout 1 had no signatures
            del expected["signatures"]
        if fingerprint is None:  # nor were there fingerprints before there were steps
            del expected["model"]
        for key, value in expected.items():
            if _plain(key, found.get(key, "")) != value:
                raise InputError(
                    f"the bundle is damaged: {self.path / MANIFEST} and {file} differ",
                    expected=f"{key} {json.dumps(value, ensure_ascii=False)[:200]}",
                    got=found.get(key, "nothing")[:200],
                    fix=AGAIN,
                )

    def write_verification(self, report: str) -> None:
        """Write a report, JSON, as `verification.json`: the old one or the new one, whole."""
        values = json.loads(report)
        if self.sealed:
            values["manifest"] = self.manifest[sealed.KEY]
        write_text(self.verification_file, sealed.sealed(values))

    def size(self, name: str) -> int:
        """Bytes of a format's files that classify whole sequences."""
        return sum((self.path / file).stat().st_size for file in self._files_of(file_of(name)))

    def _files_of(self, top: str) -> list[str]:
        """The files in the manifest that are `top`, or in the folder `top`."""
        return [file for file in self.manifest["files"] if file.split("/")[0] == top]

    def _signatures_in(self, name: str, file: str) -> list[dict[str, Any]]:
        """The signatures that a file of a format answers, as it has them itself."""
        answered = [each for each, place in self.signatures_of(name).items() if place == file]
        step = FORMATS[name].step
        return [
            signatures.taking(written, step.steps) if step and written["name"] == STEP else written
            for written in self.manifest["signatures"]
            if written["name"] in answered
        ]

    def _check_unlisted(self, top: Path) -> None:
        """Refuse what nobody has verified: it would ship, and a runtime might read it."""
        known = {*self.manifest["files"], *SEALED}
        if not self.sealed:
            known.add(README)
        found = {
            file.relative_to(self.path).as_posix()
            for file in _files(top)
            if not (file.parent == self.path and TEMPORARY.fullmatch(file.name))
        }
        if more := sorted(found - known):
            raise InputError(
                f"the bundle has files that were not verified: {', '.join(more)[:200]}",
                got=str(self.path),
                fix="Remove them.",
            )

    def _check_verification(self) -> None:
        """Check that the report is whole and about this bundle."""
        file = self.verification_file
        if not file.is_file():
            raise InputError(f"the bundle is damaged: {file} is missing", fix=AGAIN)
        data = file.read_bytes()
        if not sealed.is_sealed(data):
            raise InputError(
                f"the bundle is damaged: {file} is not as it was written",
                expected="the checksum that it says of itself",
                got="another",
                fix=AGAIN,
            )
        if json.loads(data).get("manifest") != self.manifest[sealed.KEY]:
            raise InputError(
                f"the bundle is damaged: {file} is about another bundle",
                expected=f"manifest {self.manifest[sealed.KEY][:12]}…",
                fix=AGAIN,
            )

    def _check_file(self, name: str) -> None:
        path, expected = self.path / name, self.manifest["files"][name]
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"bad manifest: {self.path / MANIFEST}", got=f"a path outside: {name}")
        if not path.is_file():
            raise InputError(f"the bundle is damaged: {path} is missing", fix=AGAIN)
        if sha256(path) != expected:
            raise InputError(
                f"the bundle is damaged: {path} is not the file that was verified",
                expected=f"SHA-256 {expected[:12]}…",
                got=f"{sha256(path)[:12]}…, {path.stat().st_size:,} bytes",
                fix=AGAIN,
            )


def holds_bundle(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def find_bundle(path: Path) -> Bundle:
    """The bundle in `path`, or that of the run in `path`. Raises `InputError` without either."""
    if not holds_bundle(path) and not holds_run(path):
        recover(path)
    elif not holds_bundle(path):
        run = Run.open(path)
        run.require_finished()
        default = default_path(run)
        recover(default)
        if not holds_bundle(default):
            raise InputError(
                f"the run has no bundle: {path}", fix=f"Make one with: rnn-tf export {path}"
            )
        path = default
    return Bundle.open(path)


def load_test(bundle: Bundle, source: str | None = None) -> Split:
    """The test split of the data that a bundle was verified with, or that of `source`.

    Of data in shards it is a sample, in memory.

    Raises `InputError` when they cannot be loaded, or are of another specification.
    """
    try:
        data = load(
            bundle.source
            if source is None
            else elsewhere(bundle.source, source, bundle.spec.labels)
        )
    except InputError as error:
        if source is not None:
            raise
        # The bundle may be on another machine than its data.
        raise InputError(f"cannot load the bundle's data: {error}", fix="Say --data.") from error
    check_fits(bundle.spec, data.spec, source or bundle.dataset)
    return as_read(data.sampled(), bundle.spec)


def default_path(run: Run) -> Path:
    return run.path / "bundle"


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of what is in `folder`: every file there, with its SHA-256."""
    files = {
        file.relative_to(folder).as_posix(): sha256(file)
        for file in _files(folder)
        if file.name not in SEALED
    }
    whole = {"layout": LAYOUT, **manifest, "files": files}
    write_text(folder / MANIFEST, sealed.sealed(whole))


def _files(top: Path) -> list[Path]:
    """The file `top`, or all files and links below the folder `top`."""
    below = [file for file in top.rglob("*") if file.is_file() or file.is_symlink()]
    return [top] if top.is_file() else sorted(below)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Build a bundle beside `path`; it takes its place, whole, when the block ends well.

    Gives an empty temporary folder. Whatever fails, what was in `path` stays as it was. Of several
    that publish to the same place at the same time, each does, and the last one stays. Raises
    `InputError` when `path` holds something that is not a bundle, or cannot be written.
    """
    path = path.resolve()  # "." and links have no name that another folder could be beside
    check_place(path)
    with as_input_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as at_the_end:
        with _changing(path):
            with as_input_errors(path):
                # A random name: threads and containers may have the same process id.
                work = Path(tempfile.mkdtemp(prefix=_work_prefix(path), dir=path.parent))
            # As long as this is held, nobody takes the folder for one that a kill has left.
            at_the_end.enter_context(locked(work / LOCK, EXPORTING, fix=""))
            at_the_end.callback(shutil.rmtree, work, ignore_errors=True)
        with as_input_errors(path):
            new = work / NEW
            new.mkdir()
            yield new
            _to_disk(new)
        with _changing(path):
            check_place(path)
            with as_input_errors(path):
                _put(new, path, aside=work / OLD)


def _put(new: Path, path: Path, aside: Path) -> None:
    """Rename `new` to `path`; what was there is in `new` or `aside` then."""
    if not path.exists():
        new.rename(path)
    elif not exchange(new, path):
        try:
            path.rename(aside)
            new.rename(path)
        except BaseException:
            if aside.exists() and not path.exists():
                aside.rename(path)
            raise


def check_place(path: Path) -> None:
    """Raise `InputError` when `path` holds something that is not a bundle. Changes nothing."""
    if path.exists() and not holds_bundle(path) and not _empty(path):
        raise InputError(f"it exists and is not a bundle: {path}", fix="Choose another --out.")


def recover(path: Path) -> None:
    """Put right what a kill has left: an old bundle moved aside, a new one half built."""
    path = path.resolve()
    # Most of the time there is nothing, and a bundle may lie where nobody can write.
    if _left_behind(path):
        with _changing(path):
            pass


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Keep other processes from renaming anything to or from `path`, for a moment.

    First puts right what a kill has left.
    """
    lock = path.with_name(f".{path.name}{LOCK}")
    with locked(lock, EXPORTING, fix="Try again when it has ended.", wait=LONGEST_RENAME):
        with as_input_errors(path):
            _tidy(path)
        yield


def _tidy(path: Path) -> None:
    for work in _left_behind(path):
        try:
            with locked(work / LOCK, EXPORTING, fix="") as unused:
                if (work / OLD).exists() and not path.exists():
                    (work / OLD).rename(path)
        except InputError:
            continue  # another export to this place is under way
        if unused:  # without locks nobody knows
            shutil.rmtree(work, ignore_errors=True)


def _left_behind(path: Path) -> list[Path]:
    """The folders of exports to `path`, of those under way and of those that were killed."""
    return sorted(path.parent.glob(glob.escape(_work_prefix(path)) + "*"))


def _work_prefix(path: Path) -> str:
    return f".{path.name}.building."


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _to_disk(folder: Path) -> None:
    for file in _files(folder):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _is_inside(name: str) -> bool:
    """Whether this is how a manifest calls a file of its bundle."""
    path = PurePosixPath(name)
    plain = path.as_posix() == name and name.isprintable() and "\\" not in name
    return plain and bool(path.name) and not path.is_absolute() and ".." not in path.parts


def _plain(key: str, text: str) -> Any:
    """What a file says under `key`, in the terms of this version; None if that makes no sense."""
    try:
        return SequenceSpec.from_json(text).to_dict() if key == "spec" else json.loads(text)
    except (ValueError, RecursionError):  # not JSON, or no specification
        return None


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
        manifest: Any = json.loads(data.decode())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"the manifest is not JSON: {file}", got=str(error), fix=AGAIN) from error
    if not isinstance(manifest, dict):
        raise InputError(f"bad manifest: {file}", expected="an object", got=type(manifest).__name__)
    layout = manifest.get("layout", LAYOUT)
    if not isinstance(layout, int) or layout > LAYOUT:
        raise InputError(
            f"the bundle was made by a newer version: {file}",
            expected=f"layout {LAYOUT} or older",
            got=layout,
            fix="Upgrade this package.",
        )
    # Layout 1 has no checksum; one that has is of a later layout, whatever it says.
    if (layout != 1 or sealed.KEY in manifest) and not sealed.is_sealed(data):
        raise InputError(
            f"bad manifest: {file}",
            expected="the checksum that it was written with",
            got="another",
            fix=AGAIN,
        )
    with _of_manifest(file):
        whole: dict[str, Any] = _as_layout_2(manifest)
    missing = sorted(KEYS - set(whole))
    if missing:
        raise InputError(f"bad manifest: {file}", got=f"no {', '.join(missing)}", fix=AGAIN)
    formats, files = whole["formats"], whole["files"]
    if not isinstance(formats, dict) or not set(formats) <= set(FORMATS):
        raise InputError(
            f"bad formats in {file}", expected=f"some of {', '.join(FORMATS)}", got=formats
        )
    for name, details in formats.items():
        # Before there were steps, nothing said what a format answers.
        if not isinstance(details, dict) or not isinstance(details.get("answers", {}), dict):
            raise InputError(
                f"bad formats in {file}", expected="an object for each", got=f"{name}: {details}"
            )
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise InputError(f"bad files in {file}", expected="a SHA-256 for each", got=files)
    for name in files:
        if not _is_inside(name):
            raise InputError(
                f"bad files in {file}", expected="paths inside it", got=repr(name), fix=AGAIN
            )
    return whole


def _as_layout_2(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a bundle of any layout as layout 2 has it. Raises `InputError` for a bad one.

    Before, there was one question, and one layer that read forward.
    """
    if manifest.get("layout") != 1 or not isinstance(manifest.get("model"), dict):
        return manifest
    spec = SequenceSpec.from_dict(manifest.get("spec"))
    rest = {name: value for name, value in manifest.items() if name not in ("input", "output")}
    return {
        **rest,
        "layout": 2,
        "model": {**manifest["model"], "layers": 1, "bidirectional": False},
        "spec": spec.to_dict(),
        "signatures": [signatures.classify(spec).to_dict()],
    }


@contextlib.contextmanager
def _of_manifest(file: Path) -> Iterator[None]:
    """Name the manifest in which something is wrong."""
    try:
        yield
    except InputError as error:
        raise InputError(f"bad manifest: {file}: {error}") from error
