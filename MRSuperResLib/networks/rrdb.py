"""RRDB: ESRGAN's generator, thinned to every other block, the super-resolution network of MTSR-MRI.

Wang et al.: "ESRGAN: enhanced super-resolution generative adversarial networks", 2018, section 3.1: 64 features, 23 residual-in-
residual dense blocks (RRDB) of growth 32, residuals scaled by 0.2. MTSR-MRI (section 2.2, appendix B, figure 6) removes every
even block, which leaves 12. Ours has a single channel, where ESRGAN has the three of a colour image (`channels`).

Ours beyond the papers, all off by default: the factor is per axis; `skip="bicubic"` adds the bicubic interpolation of the input to
the output; `feedback` adds a share of one back-projection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from .parts.projection import back_projected
from .parts.skip import Consistency, Gains, Skip, added, check_skip
from .rdst import upsampling_steps

SCALING = 0.2  # of residuals, ESRGAN section 3.1
SLOPE = 0.2  # of the leaky ReLUs
SMALLER_INITIALISATION = 0.1  # of the dense blocks' weights, ESRGAN section 3.1 and its supplement
BAND = 128  # rows before the last enlargement that are finished at a time

# Key layouts of public ESRGAN files: as first published, its later code, BasicSR and Real-ESRGAN.
DENSE = re.compile(r"(?:model\.1\.sub|RRDB_trunk|body)\.(\d+)\.(?:RDB|rdb)([123])\.conv([1-5])(?:\.0)?\.(weight|bias)")
OUTER = {
    "conv_first": ("model.0", "conv_first"),
    "conv_body": ("trunk_conv", "conv_body"),
    "upsampling.0": ("model.3", "upconv1", "conv_up1"),
    "upsampling.1": ("model.6", "upconv2", "conv_up2"),
    "conv_hr": ("model.8", "HRconv", "conv_hr"),
    "conv_last": ("model.10", "conv_last"),
}
FIRST_TRUNK = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")  # the first layout's trunk_conv comes after the blocks


class DenseBlock(nn.Module):
    """Five convolutions, each on all that came before it; the last one's answer is a scaled residual (figure 4, ESRGAN)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(width + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(width + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(width + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            nn.init.kaiming_normal_(convolution.weight)
            convolution.weight.data *= SMALLER_INITIALISATION
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        features = x
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = torch.cat((features, _leaky(convolution(features))), dim=1)  # growth channels more
        return x + SCALING * self.conv5(features)


class RRDB(nn.Module):
    """Residual in residual: three dense blocks, and their answer as a scaled residual."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        return x + SCALING * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """ESRGAN's generator: (B, channels, H, W) -> (B, channels, H*fh, W*fw), any H and W.

    blocks: RRDBs of the whole network. kept: those of them that are there, by number from 1; they keep their numbers as names, so
    that weights of the whole network fit the thinned one. factors: (fh, fw), rows and columns. width, growth: channels of the
    trunk, and of each dense convolution. skip: "none" as published, "bicubic" or "zerofill" to add the interpolated input to the
    output. consistency: "soft" lets the network scale what it adds, inside the measured band and outside; see
    `networks.parts.skip`. feedback: the share of one back-projection added at the end, 0 as published; see `parts.projection`.
    """

    def __init__(
        self,
        *,
        blocks: int = 23,
        kept: Sequence[int] | None = None,
        factors: tuple[int, int] = (4, 4),
        width: int = 64,
        growth: int = 32,
        skip: Skip = "none",
        consistency: Consistency = "none",
        feedback: float = 0.0,
        channels: int = 1,
    ) -> None:
        super().__init__()
        check_skip(skip, consistency)
        self.kept = tuple(range(1, blocks + 1) if kept is None else kept)
        if not self.kept or list(self.kept) != sorted(set(self.kept) & set(range(1, blocks + 1))):
            raise ValueError(f"kept is {list(self.kept)}, expected block numbers between 1 and {blocks}, in order")
        self.factors = factors
        self.skip = skip
        self.feedback = feedback
        self.steps = upsampling_steps(factors)
        if not self.steps:
            raise ValueError(f"factors are {factors}, expected an enlargement along one axis at least")
        self.conv_first = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.ModuleDict({str(number): RRDB(width, growth) for number in self.kept})
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.upsampling = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.steps)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, channels, 3, padding=1)
        self.gains = Gains(width) if consistency == "soft" else None
        if skip != "none":
            nn.init.zeros_(self.conv_last.weight)
            nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) on the networks' intensity scale -> (B, channels, H*fh, W*fw)."""
        shallow = self.conv_first(x)
        deep = shallow
        for block in self.body.values():
            deep = block(deep)
        coarse = features = shallow + self.conv_body(deep)
        for step, convolution in zip(self.steps[:-1], self.upsampling, strict=False):
            features = _leaky(enlarged(features, step, convolution))  # type: ignore[arg-type]
        answer = self.finished(features) if torch.is_grad_enabled() else self.finished_in_bands(features)
        if self.skip != "none":
            answer = added(answer, x, self.factors, self.skip, self.gains, coarse)
        return back_projected(answer, x, self.feedback) if self.feedback else answer

    def finished(self, features: Tensor) -> Tensor:
        """The last enlargement and the last two convolutions: (B, width, H, W) -> (B, channels, ...)."""
        fine = _leaky(enlarged(features, self.steps[-1], self.upsampling[-1]))  # type: ignore[arg-type]
        return few_channels(_leaky(self.conv_hr(fine)), self.conv_last)

    def finished_in_bands(self, features: Tensor) -> Tensor:
        """The same by bands of rows, which need little memory and stay in a processor's cache."""
        height, factor = features.shape[-2], self.steps[-1][0]
        halo = math.ceil(3 / factor)  # what three 3x3 convolutions see beyond a band
        bands = []
        for start in range(0, height, BAND):
            stop, low = min(start + BAND, height), max(start - halo, 0)
            band = self.finished(features[..., low : min(stop + halo, height), :])
            bands.append(band[..., (start - low) * factor : (stop - low) * factor, :])
        return torch.cat(bands, dim=-2)


def enlarged(x: Tensor, factors: tuple[int, int], convolution: nn.Conv2d) -> Tensor:
    """`convolution` (3x3) of `x` (B, C, H, W) enlarged by nearest neighbour, (B, D, H*fh, W*fw).

    The two are one transposed convolution: a coarse pixel's copies lie side by side, so that what they spread is the kernel
    spread by a box. That is the same answer for 4/9 of the multiplications where the image is doubled, and no copies are made.
    """
    rows, columns = (factor - 1 for factor in factors)
    padded = functional.pad(convolution.weight.flip(2, 3), (columns, columns, rows, rows))
    kernel = functional.avg_pool2d(padded, factors, stride=1, divisor_override=1).transpose(0, 1)  # (C, D, 2+fh, 2+fw)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return functional.conv_transpose2d(x, kernel, convolution.bias, stride=factors, padding=1)


def few_channels(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """`convolution` (3x3) of `x`, fast where it answers few channels: one product for each tap, then shifted and added."""
    weight = convolution.weight.flip(2, 3).flatten(2).transpose(1, 2)  # (D, 9, C), as `fold` counts
    taps = functional.conv2d(x, weight.flatten(0, 1)[..., None, None]).flatten(2)  # (B, D*9, H*W)
    taps = taps.to(torch.promote_types(taps.dtype, torch.float32))  # nine are added
    answer = functional.fold(taps, x.shape[-2:], 3, padding=1)
    return answer if convolution.bias is None else answer + convolution.bias[:, None, None]


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE, inplace=True)


def build(
    *,
    blocks: int = 23,
    kept: str | Sequence[int] = "all",
    factors: Sequence[int] = (4, 4),
    **hyperparameters: Any,
) -> RRDBNet:
    """RRDBNet from a card's hyper-parameters; kept: "all" as ESRGAN, "odd" as MTSR-MRI, or a list of block numbers."""
    numbers = {"all": range(1, blocks + 1), "odd": range(1, blocks + 1, 2)}
    if isinstance(kept, str) and kept not in numbers:
        raise ValueError(f"kept is '{kept}', expected 'all', 'odd' or a list of block numbers")
    rows, columns = factors
    return RRDBNet(
        blocks=blocks,
        kept=[int(number) for number in (numbers[kept] if isinstance(kept, str) else kept)],
        factors=(int(rows), int(columns)),
        **hyperparameters,
    )


@torch.no_grad()
def load_esrgan(network: RRDBNet, state_dict: Mapping[str, Tensor]) -> str:
    """Start `network` from ESRGAN's weights, in any of the public key layouts; says in one line what was taken.

    Blocks are picked by number. Where `network` has one channel and the weights three, the first convolution is summed over its
    input channels and the last one averaged over its outputs: the answer is the mean of the three channels that ESRGAN gives for
    the image repeated three times. With a skip the last convolution keeps its zeros, because ESRGAN's answers whole
    images and not residuals.

    Raises `ModelError` if a weight that the network needs is not there or has another shape; `network` is as it was then.
    """
    given = _named_as_ours(state_dict)
    blocks = max((int(name.split(".")[1]) for name in given if name.startswith("body.")), default=0)
    if not blocks:
        raise ModelError("the weights hold no block of an ESRGAN generator (RRDB)", code="bad-esrgan")
    own = network.state_dict()
    channels = network.conv_first.in_channels
    taken = {}
    for name, present in own.items():
        if network.skip != "none" and name.startswith("conv_last."):
            continue
        if name.startswith("gains."):  # ours, not ESRGAN's
            continue
        if name not in given:
            raise ModelError(
                f"the ESRGAN weights ({blocks} blocks) have no '{name}', which this network needs", code="bad-esrgan"
            )
        weight = given[name].detach().to(present.dtype)
        if name == "conv_first.weight" and channels == 1:
            weight = weight.sum(dim=1, keepdim=True)
        if name.startswith("conv_last.") and channels == 1:
            weight = weight.mean(dim=0, keepdim=True)
        if weight.shape != present.shape:
            raise ModelError(
                f"ESRGAN's '{name}' has the shape {tuple(weight.shape)}, this network's {tuple(present.shape)}",
                code="bad-esrgan",
            )
        taken[name] = weight
    network.load_state_dict({**own, **taken})
    return f"{len(taken)} of {len(own)} weights start from ESRGAN, {len(network.kept)} of its {blocks} blocks"


def _named_as_ours(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ESRGAN's weights under this module's names; blocks are counted from 1 here, from 0 there."""
    outer = {theirs: ours for ours, names in OUTER.items() for theirs in names}
    found = {}
    for key, weight in state_dict.items():
        layer, _, kind = key.removeprefix("module.").rpartition(".")
        dense = DENSE.fullmatch(f"{layer}.{kind}")
        if dense:
            number, block, convolution = int(dense[1]) + 1, dense[2], dense[3]
            found[f"body.{number}.rdb{block}.conv{convolution}.{kind}"] = weight
        elif layer in outer:
            found[f"{outer[layer]}.{kind}"] = weight
        elif FIRST_TRUNK.fullmatch(f"{layer}.{kind}"):
            found[f"conv_body.{kind}"] = weight
    return found
