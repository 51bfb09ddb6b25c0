"""Who trains together: what `TF_CONFIG` says, and what is wrong with it."""

from __future__ import annotations

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commands import Capture, refusal

from rnn_tf.errors import InputError
from rnn_tf.train import main
from rnn_tf.training import cluster
from rnn_tf.training.cluster import Cluster

TWO = {"worker": ["127.0.0.1:4711", "127.0.0.1:4712"]}


def in_environment(value: Any, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    text = value if isinstance(value, str) else json.dumps(value)
    monkeypatch.setenv(cluster.VARIABLE, text)
    return Cluster.from_environment()


def test_the_first_worker_is_the_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (
        in_environment({"cluster": TWO, "task": {"type": "worker", "index": index}}, monkeypatch)
        for index in (0, 1)
    )
    assert first.is_chief
    assert (second.is_chief, second.index) == (False, 1)
    assert second.name(0) == "worker 0 (127.0.0.1:4711)"


def test_a_chief_with_a_job_of_its_own_comes_before_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = {"chief": ["10.0.0.1:4710"], **TWO}
    worker = in_environment({"cluster": jobs, "task": {"type": "worker", "index": 1}}, monkeypatch)
    assert worker.addresses == ("10.0.0.1:4710", *TWO["worker"])
    assert (worker.index, worker.is_chief) == (2, False)
    chief = {"cluster": jobs, "task": {"type": "chief", "index": 0}}
    assert in_environment(chief, monkeypatch).is_chief


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG is not JSON"),
        ("[]", "TF_CONFIG lacks 'cluster'"),
        ({"task": {"type": "worker", "index": 0}}, "TF_CONFIG lacks 'cluster'"),
        ({"cluster": TWO}, "TF_CONFIG lacks 'task'"),
        ({"cluster": TWO, "task": {"type": "worker"}}, "TF_CONFIG lacks 'index'"),
        ({"cluster": TWO, "task": {"index": 0}}, "TF_CONFIG lacks 'type'"),
        ({"cluster": [], "task": {}}, "bad 'cluster' in TF_CONFIG"),
        ({"cluster": TWO, "task": {"type": "worker", "index": "0"}}, "bad 'index' in TF_CONFIG"),
        (
            {"cluster": TWO, "task": {"type": "worker", "index": 2}},
            "names a task that its cluster does not have; expected a worker with an index below 2, "
            "got 2",
        ),
        ({"cluster": TWO, "task": {"type": "worker", "index": -1}}, "an index below 2, got -1"),
        ({"cluster": TWO, "task": {"type": "chief", "index": 0}}, "an index below 0, got 0"),
        ({"cluster": {**TWO, "ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}, "no part: ps"),
        (
            {"cluster": {"worker": ["here"]}, "task": {"type": "worker", "index": 0}},
            "bad address in TF_CONFIG; expected host:port, got here",
        ),
        (
            {"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}},
            "TF_CONFIG names an address twice; got a:1",
        ),
    ],
)  # fmt: skip
def test_a_wrong_tf_config_is_refused_in_one_line(
    config: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv(cluster.VARIABLE, text)
    said = refusal(main, ["--strategy", "multi_worker"], capsys)
    assert message.replace("no part", "no part in training") in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strategy", "multi_worker"], "--strategy multi_worker needs TF_CONFIG"),
        (["--workers", "0"], "bad workers; expected a whole number >= 1, got 0"),
        (
            ["--strategy", "multi_worker", "--folds", "3"],
            "--folds trains in one process; expected --strategy auto, none or mirrored, got multi",
        ),
        (["--workers", "2", "--folds", "3"], "--workers trains one model"),
        (
            ["--workers", "2", "--strategy", "mirrored"],
            "--workers needs another strategy; expected multi_worker, got mirrored",
        ),
        (
            ["--workers", "2", "--backend", "torch"],
            "--backend torch cannot have this strategy; expected auto or none, got multi_worker",
        ),
    ],
)
def test_what_workers_cannot_do_is_refused_in_one_line(
    argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cluster.VARIABLE, raising=False)
    assert message in refusal(main, [*argv], capsys)
    assert not list(tmp_path.iterdir())


def test_an_address_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        mine = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"worker 0 \({mine}\) cannot listen on its port"):
            Cluster((mine,), 0).meet(1)
    Cluster((mine,), 0).meet(1)


def test_workers_of_this_machine_have_addresses_of_their_own_that_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = [in_environment(text, monkeypatch) for text in cluster.on_this_machine(3)]
    assert [worker.index for worker in workers] == [0, 1, 2]
    assert len({worker.addresses for worker in workers}) == 1
    assert len(set(workers[0].addresses)) == 3
    assert workers[1].silent() == [workers[1].name(0), workers[1].name(2)]
    with ThreadPoolExecutor(3) as together:
        assert list(together.map(lambda worker: worker.meet(20), workers)) == [None] * 3


def test_workers_that_never_come_are_named_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chief, first, second = (
        in_environment(text, monkeypatch) for text in cluster.on_this_machine(3)
    )
    with ThreadPoolExecutor(2) as together:
        meeting = [together.submit(worker.meet, 1) for worker in (chief, second)]
        with pytest.raises(InputError, match=rf"missing: {re.escape(chief.name(1))}\. Start each"):
            meeting[0].result()
        with pytest.raises(InputError, match="the chief has waited in vain for another worker"):
            meeting[1].result()
    with pytest.raises(InputError, match=re.escape(f"missing: {first.name(0)}")):
        first.meet(0.3)


def test_the_chief_is_not_confused_by_others_that_call(monkeypatch: pytest.MonkeyPatch) -> None:
    chief, worker = (in_environment(text, monkeypatch) for text in cluster.on_this_machine(2))
    host, port = chief.addresses[0].split(":")
    with ThreadPoolExecutor(2) as together:
        meeting = together.submit(chief.meet, 20)
        until = time.monotonic() + 10
        while worker.silent():
            assert time.monotonic() < until
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1")
        worker.meet(10)
        meeting.result()


def test_the_time_to_wait_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.seconds_to_wait() == cluster.WAIT
    monkeypatch.setenv(cluster.WAIT_VARIABLE, "soon")
    with pytest.raises(InputError, match="bad RNN_TF_JOIN_SECONDS"):
        cluster.seconds_to_wait()
