"""A stream of sharp slices, for a network that learns what they look like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..pack import Pack
from .stream import Shelf, StreamSpec


class SharpSlices:
    """An endless iterator of ((B, 1, matrix, matrix),), float32 on `device`, on the networks' scale, augmented.

    Batch number n of a seed is the same whatever came before: `start`, in samples, resumes exactly.
    """

    def __init__(
        self,
        pack: Pack,
        spec: StreamSpec,
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.spec, self.batch, self.seed = spec, batch, seed
        self.device = torch.device(device)
        self.number = start // batch
        self.shelf = Shelf(pack, spec.sources, self.device)

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        made, slices = -1, torch.empty(0)
        while True:
            group, place = divmod(self.number, self.spec.at_once)
            if group != made:
                made, slices = group, self.draw(group)
            yield (slices[place * self.batch : (place + 1) * self.batch],)
            self.number += 1

    def draw(self, group: int) -> Tensor:
        """The `at_once` batches of `group`."""
        host = np.random.default_rng((self.seed, group))
        generator = torch.Generator(self.device)
        generator.manual_seed(int(host.integers(2**62)))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.shelf.slices(self.spec.at_once * self.batch, self.spec, host, generator)[:, None]
