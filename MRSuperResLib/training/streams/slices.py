"""A stream of sharp slices, for a network that learns what they look like."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..pack import Pack
from .numbered import NumberedStream
from .stream import Shelf, StreamSpec


class SharpSlices(NumberedStream):
    """Batches ((B, 1, matrix, matrix),), float32 on `device`, on the networks' scale, augmented."""

    def __init__(
        self,
        pack: Pack,
        spec: StreamSpec,
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__(batch, device, seed, start, spec.at_once)
        self.spec = spec
        self.shelf = Shelf(pack, spec.sources, self.device)

    def make(self, host: np.random.Generator, generator: torch.Generator) -> tuple[Tensor]:
        """`at_once` batches."""
        return (self.shelf.slices(self.at_once * self.batch, self.spec, host, generator)[:, None],)
