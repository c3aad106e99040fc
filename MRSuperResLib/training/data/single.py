"""Training pairs of single-image networks: sharp crops, and the same crops as a coarser acquisition would have shown them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from ...acquisition import bias_field
from ...documents import BadDocument
from ..pack import Pack
from ..streams.degradation import ScannerSpec
from ..streams.stream import DeviceStream, StreamAugmentation, StreamSpec
from .coarsen import MARGIN, DegradationSpec, degrade, trim
from .crops import AugmentationSpec, CropDrawer, SourceSpec
from .samples import Samples, as_tensor


@dataclass(frozen=True)
class DeviceSpec:
    """A recipe's [data.device]: how whole batches are made where the network is; see `streams.stream.StreamSpec`."""

    scanner: ScannerSpec
    matrix: int = 256
    patch: tuple[int, int] = (48, 48)
    crops: int = 1
    at_once: int = 1
    bias: float = 0.2


@dataclass(frozen=True)
class DataSpec:
    """A recipe's [data]: sources, coarse patch side in pixels, and how crops are changed and made coarse.

    degradation may be left out where nothing is made coarse. stream: "crops" draws one crop at a time on the CPU, in as many
    worker processes as the command line says; "device" draws whole batches on the device that trains, as the table [data.device]
    says, which then stands for `degradation` and `patch` (`streams.stream`).
    """

    sources: tuple[SourceSpec, ...] = (SourceSpec("*"),)
    degradation: DegradationSpec = field(default_factory=DegradationSpec)
    patch: int = 24
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    stream: Literal["crops", "device"] = "crops"
    device: DeviceSpec | None = None

    def __post_init__(self) -> None:
        if (self.stream == "device") != (self.device is not None):
            raise BadDocument('data: stream = "device" and a table [data.device] belong together')

    def device_stream(self, device: DeviceSpec) -> StreamSpec:
        """What `DeviceStream` draws for this table."""
        names = ("flip", "gamma", "curve_probability", "zoom", "zoom_probability")
        changes = {name: getattr(self.augmentation, name) for name in names}
        settings = {name: getattr(device, name) for name in ("scanner", "matrix", "patch", "crops", "at_once")}
        return StreamSpec(self.sources, augmentation=StreamAugmentation(bias=device.bias, **changes), **settings)

    def without_augmentation(self, sources: tuple[SourceSpec, ...]) -> DataSpec:
        """The same from `sources`, neither flipped nor zoomed nor recoloured: for validation."""
        plain = AugmentationSpec(False, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0)
        return replace(self, sources=sources, augmentation=plain, stream="crops", device=None)


class SlicePairs(Samples):
    """(low (1, p, p), high (1, p*fh, p*fw)), float32 on the networks' scale."""

    def __init__(self, pack: Pack, spec: DataSpec, factors: tuple[int, int], seed: int = 0, start: int = 0) -> None:
        super().__init__(seed, start)
        self.spec, self.factors = spec, factors
        self.drawer = CropDrawer(pack, spec.sources)

    def sample(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """One pair as tensors."""
        return tuple(as_tensor(image) for image in self.pair(rng))

    def pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One pair, (p, p) and (p*fh, p*fw)."""
        side = self.spec.patch + 2 * MARGIN
        shape = (side * self.factors[0], side * self.factors[1])
        (high,) = self.drawer.draw(shape, rng, self.spec.augmentation, transpose=self.factors[0] == self.factors[1])
        if self.spec.degradation.bias and rng.random() < 0.5:
            high = high * bias_field(high.shape, rng.uniform(0, self.spec.degradation.bias), rng)
        low = degrade(high, self.factors, self.spec.degradation, rng)
        return trim(low, (1, 1)), trim(high, self.factors)


def pair_stream(
    pack: Pack, spec: DataSpec, factors: tuple[int, int], *, batch: int, device: torch.device, seed: int, start: int
) -> Any:
    """The pairs of `spec`: `SlicePairs`, or batches of them that are made on `device`."""
    if spec.device is not None:
        return DeviceStream(pack, spec.device_stream(spec.device), factors, batch, device, seed, start)
    return SlicePairs(pack, spec, factors, seed=seed, start=start)
