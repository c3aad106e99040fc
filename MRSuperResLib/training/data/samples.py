"""Endless streams of samples that can be entered anywhere, which is what makes a resumed training exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info


class Samples(IterableDataset[Any]):
    """An endless stream: sample number n depends on `seed` and n alone, whatever came before. `start`: the first number.

    batch: how many samples a `DataLoader` makes a batch of. Worker w of W draws the batches w, w + W, ..., which the loader puts in
    order again: how many workers there are changes nothing. A kind of samples says in `sample` what one is.
    """

    def __init__(self, seed: int = 0, start: int = 0) -> None:
        super().__init__()
        self.seed, self.start, self.batch = seed, start, 1

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for block in itertools.count(first, stride):
            for number in range(self.start + block * self.batch, self.start + (block + 1) * self.batch):
                yield self.sample(np.random.default_rng((self.seed, number)))

    def sample(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """One sample, all of whose randomness comes from `rng`."""
        raise NotImplementedError


def as_tensor(image: np.ndarray) -> Tensor:
    """(H, W) -> (1, H, W), float32."""
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
