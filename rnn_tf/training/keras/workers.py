"""What workers do together beside training: join, agree, share a checkpoint, end.

The strategy is TensorFlow's `MultiWorkerMirroredStrategy`; its coordination service notices a
worker that is lost, and holds the few texts that workers tell each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from rnn_tf import __version__
from rnn_tf.config import TrainConfig
from rnn_tf.data import SequenceData
from rnn_tf.errors import CheckFailed, InputError
from rnn_tf.run import Run
from rnn_tf.startup import xla_flags
from rnn_tf.training.cluster import Cluster, seconds_to_wait

# A worker that sends no sign of life for so long is taken for lost, in seconds. One that has ended
# is noticed at once; this is for a machine that hangs.
SILENCE = 180
# A worker that has noticed a loss stays for so long, for the others to see that it is not the one.
LINGER = 5
# What TensorFlow raises when a worker is lost, or does not come.
LOST = (
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)  # fmt: skip
# How a worker that has noticed a loss tells the others.
LOSS = re.compile(r"lost worker \d+ \([^()]*\)(, worker \d+ \([^()]*\))*")
# A file on its way to the other workers is summed up as numbers of this type, exactly.
_NUMBERS = np.dtype("int32")

_joined: Workers | None = None


def join(cluster: Cluster) -> None:
    """Start TensorFlow as one of the cluster; before anything else in the process uses it.

    Waits for all workers. Raises `InputError` when one does not come, the port of this one is in
    use, or TensorFlow already runs.
    """
    global _joined
    if _joined is not None:
        if _joined.cluster != cluster:
            raise InputError("this process has already joined another cluster")
        return
    if context.context()._initialized:
        raise InputError(
            "TensorFlow already runs in this process, and cannot join a cluster any more",
            fix="Train in a Python started anew, or with rnn-tf train.",
        )
    cluster.meet(seconds_to_wait())
    _bound_silence()
    _joined = Workers(cluster, tf.distribute.MultiWorkerMirroredStrategy())


def joined() -> Workers:
    """The workers that `join` has found."""
    if _joined is None:
        raise RuntimeError("join() has not been called")
    return _joined


def _bound_silence() -> None:
    """Set how long TensorFlow waits for a worker that says nothing.

    This is what `MultiWorkerMirroredStrategy` configures itself, unless it finds it configured.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    jobs = resolver.cluster_spec().as_dict()
    leader = "chief" if "chief" in jobs else "worker"
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{leader}/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * SILENCE,
        heartbeat_timeout_in_ms=1000 * SILENCE,
        shutdown_barrier_timeout_in_ms=1000 * SILENCE,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(tasks))
            for job, tasks in jobs.items()
        ],
    )


@dataclasses.dataclass(frozen=True)
class Workers:
    """All workers of a cluster, seen from one of them."""

    cluster: Cluster
    strategy: tf.distribute.MultiWorkerMirroredStrategy
    _turns: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def agree(self, config: TrainConfig, data: SequenceData) -> None:
        """Raise `InputError`, in all workers, when they would not train the same.

        They compare settings, versions and data, and the first difference is named.
        """
        chief, *others = self._exchange(json.dumps(what_trains(config, data)))
        expected = json.loads(chief)
        for index, text in enumerate(others, 1):
            found = json.loads(text)
            for name, value in expected.items():
                if found.get(name) != value:
                    raise InputError(
                        f"{self.cluster.name(index)} has another {name} than the chief",
                        expected=json.dumps(value),
                        got=json.dumps(found.get(name)),
                        fix="Start all workers with the same settings, data and versions.",
                    )

    def share_checkpoint(self, run: Run) -> None:
        """Give the checkpoint of the chief's run, if it has one, to the runs of all workers."""
        mine = run.checkpoint_file.read_bytes() if run.checkpoint_file.exists() else b""
        size = int(self._exchange(str(len(mine)))[0])
        if not size:
            return
        numbers = np.zeros(-(-size // _NUMBERS.itemsize), _NUMBERS)
        if self.cluster.is_chief:
            numbers.view(np.uint8)[:size] = np.frombuffer(mine, np.uint8)
        # One of the terms is not zero: the sum is it, bit for bit.
        summed = self.strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(numbers), axis=None)
        if not self.cluster.is_chief:
            run.receive_checkpoint(summed.numpy().tobytes()[:size])

    def end(self) -> None:
        """Wait until the chief has written the run: a worker that leaves is a worker lost."""
        self._exchange("")

    @contextlib.contextmanager
    def named_when_lost(self) -> Iterator[None]:
        """Raise `CheckFailed` with the name of the worker that is lost, if one is."""
        try:
            yield
        except LOST as error:
            told = LOSS.search(str(error))
            found = self.cluster.silent() or self._blamed(str(error))
            lost = told[0] if told else f"lost {', '.join(found) or 'touch with the others'}"
            # One that waits for this worker, and not for the lost one, would blame this one.
            with contextlib.suppress(tf.errors.OpError):
                context.context().report_error_to_cluster(tf.errors.UNAVAILABLE, lost)
            time.sleep(LINGER)
            raise CheckFailed(
                f"{lost}: end all workers, and start them again with --resume"
            ) from error

    def _exchange(self, text: str) -> list[str]:
        """What each worker says; the chief first. All workers exchange the same things in turn."""
        service, turn = context.context(), next(self._turns)
        with self.named_when_lost():
            # No value may be empty.
            service.set_config_key_value(f"rnn_tf/{turn}/{self.cluster.index}", f"={text}")
            return [
                service.get_config_key_value(f"rnn_tf/{turn}/{index}", 0).removeprefix("=")
                for index in range(len(self.cluster.addresses))
            ]

    def _blamed(self, message: str) -> list[str]:
        """The workers that a message of TensorFlow names."""
        found = {
            int(task) + (self.cluster.has_chief if job == "worker" else 0)
            for job, task in re.findall(r"/job:(chief|worker)/(?:replica:0/)?task:(\d+)", message)
        }
        known = found & set(range(len(self.cluster.addresses))) - {self.cluster.index}
        return [self.cluster.name(index) for index in sorted(known)]


def what_trains(config: TrainConfig, data: SequenceData) -> dict[str, Any]:
    """What must be the same in all workers, by the name that a message has for it."""
    versions = {
        f"version of {name}": importlib.metadata.version(name)
        for name in ("keras", "numpy", "tensorflow")
    }
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name != "dataset"  # it may lie in another folder on each machine
    }
    return {
        "version of rnn-tf": __version__,
        **versions,
        **settings,
        "training data": _digest(data, "train"),
        "validation data": _digest(data, "valid"),
        "way of compiling loops": xla_flags.are_in_effect(),
    }


def _digest(data: SequenceData, split: str) -> str:
    digest = hashlib.sha256(data.spec.to_json().encode())
    part = getattr(data, split)
    arrays = [part.y, part.lengths]
    if part.stored is None:
        arrays = [part.x, *arrays]
    else:  # what is in the files is known without reading them
        digest.update(part.stored.digest.encode())
    for array in arrays:
        if array is not None:
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
