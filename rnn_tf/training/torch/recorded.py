"""Work as a CUDA graph: recorded once, and then started by one call.

A time step of a small layer takes a GPU a few microseconds, less than Python needs to ask for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch

# Work on the examples at `index`, int64 `(batch,)`, of so many time steps, that fills `logits`.
WorkOnBatch = Callable[[torch.Tensor, torch.Tensor, int], None]
# Libraries choose their algorithms, and take the memory for them, before a recording.
WARM_UPS = 3


class Recording(NamedTuple):
    """What is replayed, where it reads `index`, and where it writes `logits`."""

    graph: torch.cuda.CUDAGraph
    index: torch.Tensor
    logits: torch.Tensor


class Recorded:
    """`work`, recorded for each size and width of a batch when the first such batch comes.

    `work` must do the same for every batch, on the GPU alone, and wait for nothing. What it draws
    comes from `chance`. A recording draws nothing in the end, so that a training that goes on from
    a checkpoint draws as one that was not broken off.
    """

    def __init__(self, work: WorkOnBatch, chance: torch.Generator) -> None:
        self._work = work
        self._chance = chance
        self._recordings: dict[tuple[int, int], Recording] = {}
        # All on one stream: autograd remembers on which a weight was first used, and recordings on
        # one stream, of which none runs beside another, share their memory.
        self._stream = torch.cuda.Stream()
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, index: torch.Tensor, logits: torch.Tensor, width: int) -> None:
        key = (len(index), width)
        if key not in self._recordings:
            self._recordings[key] = self._record(index.clone(), torch.empty_like(logits), width)
        recording = self._recordings[key]
        recording.index.copy_(index)
        recording.graph.replay()
        logits.copy_(recording.logits)

    def _record(self, index: torch.Tensor, logits: torch.Tensor, width: int) -> Recording:
        work = functools.partial(self._work, index, logits, width)
        before = self._chance.get_state()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._chance)
        with torch.cuda.graph(graph, pool=self._memory, stream=self._stream):
            work()
        self._chance.set_state(before)
        return Recording(graph, index, logits)


def record(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """What `work`, which has been done before and draws nothing, asks of the GPU.

    It is not done yet.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph
