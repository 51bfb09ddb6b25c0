"""A bundle is whole or refused, and takes its place whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Capture, refusal
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import (
    KEYS,
    LAYOUT,
    Bundle,
    find_bundle,
    holds_bundle,
    publishing,
    sha256,
    write_manifest,
)
from export.sealed import sealed
from export.verify import main
from rnn_tf import Run
from rnn_tf.data import SequenceSpec
from rnn_tf.errors import InputError

Damage = Callable[[Path], object]
TempPathFactory = pytest.TempPathFactory

# A file of every format.
FILES = (
    "model.keras",
    "saved_model/1/saved_model.pb",
    "saved_model/1/assets.extra/tf_serving_warmup_requests",
    "model.tflite",
    "model.int8.tflite",
    "model.onnx",
)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder: path and content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- its files ---
def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "is not the file that was verified; expected SHA-256 "),
        (truncate, "is not the file that was verified; expected SHA-256 "),
        (lambda path: path.write_bytes(b""), ", 0 bytes. Make it again"),
        (Path.unlink, "is missing. Make it again with: rnn-tf export RUN."),
        (make_a_folder, "is missing. Make it again with: rnn-tf export RUN."),
    ],
    ids=["flipped", "truncated", "empty", "missing", "folder"],
)
def test_a_damaged_file_is_refused_by_name(
    file: str, damage: Damage, message: str, copy: Bundle, capsys: Capture
) -> None:
    before = copy.verification_file.read_bytes()
    damage(copy.path / file)
    line = refusal(main, [copy.path], capsys)
    assert line.startswith(f"error: the bundle is damaged: {copy.path / file} ")
    assert message in line
    assert copy.verification_file.read_bytes() == before


@pytest.mark.parametrize("name", ["keras", "saved_model", "tflite", "tflite_int8", "onnx"])
def test_an_artefact_is_given_only_with_the_files_that_were_verified(
    name: str, copy: Bundle
) -> None:
    path = copy.artefact(name)
    assert path.exists()
    flip_a_byte(path if path.is_file() else path / "1" / "saved_model.pb")
    with pytest.raises(InputError, match=r"the bundle is damaged: .*is not the file"):
        copy.artefact(name)
    # The others can be used as before.
    for other in {"keras", *copy.formats} - {name}:
        copy.artefact(other)


def test_a_format_that_is_not_there_is_named(small_bundle: Bundle) -> None:
    with pytest.raises(InputError) as caught:
        small_bundle.artefact("tflite_float16")
    assert str(caught.value) == (
        "the bundle has no format 'tflite_float16'; "
        "expected one of saved_model, tflite, tflite_int8, onnx"
    )


def test_a_size_is_that_of_all_files_of_a_format(small_bundle: Bundle) -> None:
    saved_model = [content for name, content in files(small_bundle.path / "saved_model").items()]
    assert small_bundle.size("saved_model") == sum(map(len, saved_model))
    assert small_bundle.size("onnx") == (small_bundle.path / "model.onnx").stat().st_size


def test_every_file_has_its_sha256_in_the_manifest(small_bundle: Bundle) -> None:
    known = small_bundle.manifest["files"]
    others = {"manifest.json", "verification.json"}
    assert set(known) == set(files(small_bundle.path)) - others
    for name, digest in known.items():
        assert digest == sha256(small_bundle.path / name)


@pytest.mark.parametrize("file", ["model.onnx", "saved_model/1/saved_model.pb"])
def test_a_link_that_leads_out_of_the_bundle_is_refused(
    file: str, copy: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    """Even to the very file that was verified: it is not the bundle's to ship."""
    outside = tmp_path / "outside"
    (copy.path / file).rename(outside)
    (copy.path / file).symlink_to(outside)
    assert f"got a path outside: {file}" in refusal(main, [copy.path], capsys)


def test_a_bundle_may_be_reached_by_a_link(small_bundle: Bundle, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(small_bundle.path)
    Bundle.open(link).check()


# --- its manifest ---
def rewrite(bundle: Bundle, **changes: Any) -> Path:
    file = bundle.path / "manifest.json"
    file.write_text(sealed({**json.loads(file.read_text()), **changes}))
    return file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the manifest is not JSON: "),
        (b"{", "the manifest is not JSON: "),
        (b"\xff\xfe\x00", "the manifest is not JSON: "),
        (b"[" * 100_000, "the manifest is not JSON: "),
        (b"[]", "expected an object, got list"),
        (b"null", "expected an object, got NoneType"),
        (b"1", "expected an object, got int"),
        (b"{}", "bad manifest: "),
    ],
)
def test_a_manifest_that_is_none_is_named(
    content: bytes, message: str, copy: Bundle, capsys: Capture
) -> None:
    file = copy.path / "manifest.json"
    file.write_bytes(content)
    line = refusal(main, [copy.path], capsys)
    assert message in line
    assert str(file) in line


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_key_that_is_missing_is_named(key: str, copy: Bundle, capsys: Capture) -> None:
    file = copy.path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest[key]
    file.write_text(sealed(manifest))
    assert f"bad manifest: {file}; got no {key}. " in refusal(main, [copy.path], capsys)


@pytest.mark.parametrize("layout", [LAYOUT + 1, 99, "2"])
def test_a_newer_layout_is_named(layout: object, copy: Bundle, capsys: Capture) -> None:
    rewrite(copy, layout=layout)
    line = refusal(main, [copy.path], capsys)
    assert "the bundle was made by a newer version: " in line
    assert f"expected layout {LAYOUT} or older, got {layout}. Upgrade this package." in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": {"coreml": {}}}, "bad formats in "),
        ({"formats": ["onnx"]}, "bad formats in "),
        ({"formats": {"onnx": 17}}, "expected an object for each, got onnx: 17"),
        ({"formats": {"onnx": {"answers": ["step"]}}}, "expected an object for each, got onnx"),
        ({"formats": {"tflite_float16": {}}}, "got no file of tflite_float16"),
        ({"files": ["model.onnx"]}, "bad files in "),
        ({"files": {"model.onnx": 7}}, "bad files in "),
        ({"files": {}}, "got no file of keras"),
        ({"files": {"model.keras": "0" * 64}}, "is not the file that was verified"),
        ({"spec": []}, "bad specification; expected an object, got list"),
        ({"spec": {"timesteps": 28}}, "the specification has other keys"),
        ({"signatures": [{"name": "walk"}]}, "unknown signature 'walk'; expected one of classify"),
        ({"signatures": [{"name": ["classify"]}]}, "unknown signature ['classify']"),
        ({"signatures": [{}]}, "unknown signature None"),
        ({"signatures": []}, "unknown signature None"),
        ({"signatures": ["classify"]}, "bad signatures; expected a list of objects, got ['cl"),
        ({"signatures": {"classify": {}}}, "bad signatures; expected a list of objects, got {"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str, copy: Bundle, capsys: Capture
) -> None:
    file = rewrite(copy, **changes)
    line = refusal(main, [copy.path], capsys)
    assert message in line
    assert str(file.parent) in line


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "saved_model/../../secret",
        "saved_model/1/../../model.onnx",
        "model.onnx/../../secret",
        "saved_model//1",
        "saved_model\\1",
        "saved_model/\0",
        "",
        ".",
    ],
)
def test_a_path_that_is_not_of_an_artefact_is_refused(
    name: str, copy: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "secret").write_text("mine")
    digest = sha256(tmp_path / "secret")
    rewrite(copy, files={**copy.manifest["files"], name: digest})
    line = refusal(main, [copy.path], capsys)
    assert "bad files in " in line
    assert f"expected paths inside it, got {name!r}. " in line


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    where=st.sampled_from([(key,) for key in sorted(KEYS)])
    | st.sampled_from([("spec", field.name) for field in dataclasses.fields(SequenceSpec)]),
    value=JSON,
)
def test_whatever_a_manifest_holds_is_taken_or_refused_in_one_line(
    where: tuple[str, ...], value: Any, small_bundle: Bundle, tmp_path_factory: TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    manifest = json.loads(json.dumps(small_bundle.manifest))
    inner = manifest if len(where) == 1 else manifest[where[0]]
    inner[where[-1]] = value
    (folder / "manifest.json").write_text(sealed(manifest))
    # Refused at the latest because there is no other file in this folder.
    with pytest.raises(InputError) as caught:
        Bundle.open(folder).check()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- where it is looked for ---
def test_what_is_no_bundle_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert "not a bundle: " in refusal(main, [tmp_path], capsys)
    line = refusal(main, [tmp_path / "nowhere"], capsys)
    assert "expected a folder with manifest.json, made by rnn-tf export, got no folder" in line
    (tmp_path / "file").write_text("mine")
    assert "not a bundle: " in refusal(main, [tmp_path / "file"], capsys)


def test_a_run_without_a_bundle_says_how_to_make_one(small_run: Run, capsys: Capture) -> None:
    line = refusal(main, [small_run.path], capsys)
    assert f"the run has no bundle: {small_run.path}. " in line
    assert f"Make one with: rnn-tf export {small_run.path}" in line


def test_an_unfinished_run_has_none(small_run: Run, tmp_path: Path, capsys: Capture) -> None:
    Run.create(tmp_path / "run", small_run.config, small_run.spec)
    assert "the run is not finished: " in refusal(main, [tmp_path / "run"], capsys)


def test_a_run_leads_to_its_bundle(small_run: Run, copy: Bundle, tmp_path: Path) -> None:
    run = shutil.copytree(small_run.path, tmp_path / "run")
    copy.path.rename(run / "bundle")
    assert find_bundle(run).path == run / "bundle"


# --- how it takes its place ---
def write(folder: Path, content: str) -> None:
    """The smallest thing that is taken for a bundle."""
    (folder / "model.onnx").write_text(content)
    write_manifest(folder, {})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a bundle lies that holds `old`."""
    path = tmp_path / "place" / "bundle"
    with publishing(path) as folder:
        write(folder, "old")
    return path


def content(path: Path) -> str:
    return (path / "model.onnx").read_text()


def test_a_bundle_takes_its_place_and_leaves_nothing_beside_it(place: Path) -> None:
    assert content(place) == "old"
    with publishing(place) as folder:
        write(folder, "new")
        assert content(place) == "old"
    assert content(place) == "new"
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]


def test_nothing_of_the_old_bundle_is_left_in_the_new_one(place: Path) -> None:
    (place / "model.tflite").write_text("old")
    with publishing(place) as folder:
        write(folder, "new")
    assert set(files(place)) == {"model.onnx", "manifest.json"}


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_leaves_what_was_there(error: BaseException, place: Path) -> None:
    before = files(place)

    def fail() -> None:
        with publishing(place) as folder:
            write(folder, "new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert files(place.parent) == {f"bundle/{name}": data for name, data in before.items()}


def test_a_failure_between_the_two_renames_brings_the_old_one_back(place: Path) -> None:
    def fail() -> None:
        with publishing(place) as folder:
            folder.rmdir()  # so that there is nothing to rename

    with pytest.raises(InputError, match=r"^cannot write .*: No such file or directory"):
        fail()
    assert content(place) == "old"
    assert list(place.parent.iterdir()) == [place]


def test_a_full_disk_is_said(place: Path) -> None:
    def fail() -> None:
        with publishing(place):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"^cannot write .*: No space left on device\. Free some"):
        fail()
    assert content(place) == "old"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_bundle_is_not_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
    (path / "notes.txt" if kind == "folder" else path).write_text("mine")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"it exists and is not a bundle: .*Choose another --out"):
        publishing(path).__enter__()
    assert files(tmp_path) == before


def test_an_empty_folder_and_one_that_is_not_there_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        with publishing(path) as folder:
            write(folder, "new")
        assert content(path) == "new"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/proc/rnn_tf/bundle", "cannot write /proc/rnn_tf/bundle: "),
        ("/sys/bundle", "cannot write /sys: "),
        ("file/bundle", "cannot write .*/file/bundle: File exists"),
        ("/", "it exists and is not a bundle: /"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(InputError, match=message):
        publishing(Path(path)).__enter__()
    assert files(tmp_path) == {"file": b"mine"}


def test_the_current_folder_is_a_place_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with publishing(Path()) as folder:
        write(folder, "new")
    assert content(tmp_path / "here") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_link_stays_a_link(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(place)
    for text in ("new", "newer"):
        with publishing(link) as folder:
            write(folder, text)
        assert (content(link), content(place), link.is_symlink()) == (text, text, True)
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "place"}


# --- after a kill ---
def half_built(place: Path, name: str = "left") -> Path:
    """What an export that was killed has left beside `place`."""
    work = place.with_name(f".{place.name}.building.{name}")
    (work / "new").mkdir(parents=True)
    (work / "new" / "model.onnx").write_text("half")
    (work / ".lock").write_text("process 1 on a host that is gone")
    return work


def test_a_kill_between_the_two_renames_costs_nothing(place: Path) -> None:
    """The old bundle is moved aside, the new one not yet in its place."""
    work = half_built(place)
    place.rename(work / "old")
    with publishing(place) as folder:
        assert content(place) == "old"
        assert set(place.parent.iterdir()) == {place, folder.parent}
        write(folder, "newer")
    assert content(place) == "newer"
    assert list(place.parent.iterdir()) == [place]


def test_without_locks_too_a_kill_costs_no_bundle(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    place.rename(half_built(place) / "old")
    with publishing(place) as folder:
        assert content(place) == "old"
        write(folder, "new")
    assert content(place) == "new"


@pytest.mark.parametrize("damage", ["between the renames", "after the renames", "while building"])
def test_a_bundle_is_found_after_a_kill(
    damage: str, small_bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "bundle"
    work = half_built(path)
    shutil.copytree(small_bundle.path, work / "old" if damage == "between the renames" else path)
    if damage == "after the renames":
        shutil.copytree(small_bundle.path, work / "old")
    find_bundle(path).check()
    with publishing(path) as folder:
        write(folder, "new")
    assert [left.name for left in tmp_path.iterdir()] == ["bundle"]
    assert content(path) == "new"


def test_the_bundle_of_a_run_is_found_after_a_kill(
    small_run: Run, copy: Bundle, tmp_path: Path
) -> None:
    run = shutil.copytree(small_run.path, tmp_path / "run")
    work = half_built(run / "bundle")
    copy.path.rename(work / "old")
    assert find_bundle(run).path == run / "bundle"
    assert not work.exists()


@pytest.mark.parametrize("swap", ["by exchange", "by two renames"])
def test_another_export_to_the_same_place_is_let_be(
    swap: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if swap == "by two renames":
        monkeypatch.setattr("export.bundle.exchange", lambda a, b: False)
    with publishing(place) as slow:
        write(slow, "slow")
        with publishing(place) as quick:
            write(quick, "quick")
        assert content(place) == "quick"
        assert (slow / "model.onnx").read_text() == "slow"
    assert content(place) == "slow"
    assert list(place.parent.iterdir()) == [place]


def test_a_failed_rename_brings_the_old_one_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where names cannot be exchanged, and whatever interrupts it."""
    monkeypatch.setattr("export.bundle.exchange", lambda a, b: False)
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    def publish() -> None:
        with publishing(place) as folder:
            write(folder, "new")

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish()
    assert content(place) == "old"
    assert list(place.parent.iterdir()) == [place]


def test_what_has_come_to_the_place_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def publish() -> None:
        with publishing(tmp_path / "place") as folder:
            write(folder, "new")
            (tmp_path / "place").write_text("mine")

    with pytest.raises(InputError, match="it exists and is not a bundle"):
        publish()
    assert files(tmp_path) == {"place": b"mine"}


# --- many at once ---
PUBLISH = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from export.bundle import publishing, write_manifest

def publish(number):
    with publishing(Path(sys.argv[1])) as folder:
        for name in ("model.onnx", "model.tflite"):
            (folder / name).write_text(f"{sys.argv[2]} {number}")
        write_manifest(folder, {})

with ThreadPoolExecutor(4) as threads:
    done = list(threads.map(publish, range(int(sys.argv[3]))))
print(len(done))
"""


@pytest.mark.slow
def test_many_exports_at_once_all_publish_and_the_place_always_has_a_whole_one(
    place: Path,
) -> None:
    """180 of them, by three processes of four threads each; a reader never finds less."""
    (place / "model.tflite").write_text("old")
    command = [sys.executable, "-c", PUBLISH, str(place)]
    with contextlib.ExitStack() as running:
        exports = [
            running.enter_context(
                subprocess.Popen([*command, str(i), "60"], stdout=subprocess.PIPE, text=True)
            )
            for i in range(3)
        ]
        seen = set()
        while any(export.poll() is None for export in exports):
            # One folder, opened once: what it holds does not change when another takes its place.
            folder = os.open(place, os.O_RDONLY)
            try:
                found = set()
                for name in ("model.onnx", "model.tflite"):
                    file = os.open(name, os.O_RDONLY, dir_fd=folder)
                    found.add(os.read(file, 100))
                    os.close(file)
            except FileNotFoundError:  # the one that was opened has been replaced and deleted
                assert not os.path.samestat(os.fstat(folder), place.stat())
                found = {b""}
            os.close(folder)
            assert len(found) == 1
            seen |= found
        assert [export.communicate()[0] for export in exports] == 3 * ["60\n"]
    assert len(seen) > 10
    assert list(place.parent.iterdir()) == [place]


def test_a_place_whose_name_is_a_pattern_is_tidied_too(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*"
    half_built(path)
    with publishing(path) as folder:
        write(folder, "new")
    assert [found.name for found in tmp_path.iterdir()] == ["a[1]*"]


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_bundle_and_the_next_one_tidies(
    small_run: Run, copy: Bundle
) -> None:
    before = files(copy.path)
    command = [sys.executable, "-m", "export", str(small_run.path), "--out", str(copy.path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if list(copy.path.parent.glob(".copy.building.*/new/saved_model")):
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    (half,) = copy.path.parent.glob(".copy.building.*/new")
    assert not holds_bundle(half)
    assert files(copy.path) == before
    with publishing(copy.path) as folder:
        write(folder, "new")
    assert [path.name for path in copy.path.parent.iterdir()] == ["copy"]


def test_a_version_that_was_not_verified_is_refused(copy: Bundle, capsys: Capture) -> None:
    shutil.copytree(copy.path / "saved_model" / "1", copy.path / "saved_model" / "2")
    line = refusal(main, [copy.path], capsys)
    assert "files that were not verified: saved_model/2/" in line
