"""Batches that are numbered, so that a training that is resumed sees what it would have seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class NumberedStream:
    """Endless batches of `batch` samples, made on `device` by `make`; `start` samples have been drawn before.

    Batch n depends on `seed` and n alone, whatever came before: two ranks take two seeds. at_once: batches made together.
    """

    def __init__(self, batch: int, device: torch.device | str, seed: int, start: int, at_once: int = 1) -> None:
        self.batch, self.seed, self.at_once = batch, seed, at_once
        self.device = torch.device(device)
        self.number = start // batch

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        drawn: tuple[Tensor, ...] = ()
        made = -1
        while True:
            group, place = divmod(self.number, self.at_once)
            if group != made:
                made, drawn = group, self.draw(group)
            part = slice(place * self.batch, (place + 1) * self.batch)
            yield tuple(each[part] for each in drawn)
            self.number += 1

    def draw(self, group: int) -> tuple[Tensor, ...]:
        """The `at_once` batches of number `group`, joined along the first axis."""
        host = np.random.default_rng((self.seed, group))
        generator = torch.Generator(self.device)
        generator.manual_seed(int(host.integers(2**62)))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.make(host, generator)

    def make(self, host: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, ...]:
        """New batches, of the numbers that `host` and `generator` draw."""
        raise NotImplementedError
