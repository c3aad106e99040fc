"""Several plausible answers of one network: which latent vectors are drawn, and the mean and spread of what they give."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import UsageError
from ..models import ModelCard

DEFAULT_SAMPLES = 8
MOST_SAMPLES = 100  # the mean of so many is settled to a tenth of their spread; more is time for nothing


class Spread:
    """Mean and standard deviation of arrays that come one by one (Welford 1962): as much memory for 100 as for 2."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(0, dtype=np.float32)
        self._squares = np.zeros(0, dtype=np.float32)

    def add(self, values: np.ndarray) -> None:
        """One more array, of the shape of those before."""
        self.count += 1
        if self.count == 1:
            self.mean, self._squares = values.astype(np.float32), np.zeros(values.shape, dtype=np.float32)
            return
        before = values - self.mean
        self.mean += before / np.float32(self.count)
        self._squares += before * (values - self.mean)

    def deviation(self) -> np.ndarray:
        """Standard deviation with N - 1, so that it does not depend on how many were drawn; 0 for one array."""
        return np.asarray(np.sqrt(self._squares / np.float32(max(1, self.count - 1))), dtype=np.float32)


def latents(card: ModelCard, count: int, seed: int) -> Iterable[np.ndarray]:
    """`count` draws of z ~ N(0, I), (latent,) each; the n-th depends on `seed` (0 or more) and n alone.

    They come in pairs, z and -z (antithetic sampling, Hammersley and Morton 1956): the mean of few answers is then nearer to the
    mean of all, the more so where training held the mean of such pairs near the truth.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more")
    for number in range(count):
        pair, second = divmod(number, 2)
        z = np.random.default_rng((seed, pair)).standard_normal(card.requirements.latent).astype(np.float32)
        yield -z if second else z


def sample_count(card: ModelCard, samples: int | None) -> int:
    """How many answers `card` draws when `samples` are asked for; None: DEFAULT_SAMPLES, or 1 if it has one answer.

    Raises `UsageError` for a number that cannot be served.
    """
    if samples is not None and not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"{samples} samples are asked for, expected 1 to {MOST_SAMPLES}", code="samples")
    if card.requirements.latent:
        return DEFAULT_SAMPLES if samples is None else samples
    if samples is not None and samples > 1:
        raise UsageError(f"'{card.id}' gives one answer only: ask for 1 sample, not {samples}", code="one-answer")
    return 1
