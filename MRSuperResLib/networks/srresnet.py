"""SRResNet: a small convolutional network for super-resolution, the generator of Mahapatra and Ge, and its discriminator.

Mahapatra, Ge: "MR image super resolution by combining feature disentanglement CNNs and vision transformers", MIDL 2022, appendix
E and figure 6, after SRGAN (Ledig et al. 2017): a 3x3 convolution and ReLU, residual blocks of 64 features with batch
normalisation, an upsampling stage for each factor of two, a last convolution.

Ours beyond the paper, all off by default: the factor is per axis; `normalisation="none"` trains on small batches; `skip` adds an
interpolation of the input to the output; `head="shuffle"` makes all fine pixels of a coarse one at once, which saves the
convolutions at full resolution; `consistency="soft"` keeps most of the measured centre of k-space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .parts.skip import Consistency, Gains, Skip, added, check_skip

FACTORS = (1, 2, 4, 8)
FIRST_RESIDUAL = 0.1  # size of a residual without batch normalisation, relative to the usual initialisation
SLOPE = 0.2  # of the discriminator's leaky ReLUs, SRGAN section 2.1.1

Normalisation = Literal["batch", "none"]
Head = Literal["published", "shuffle"]


class ConvNorm(nn.Sequential):
    """A 3x3 convolution and, with `normalisation="batch"`, a batch normalisation, which `fold` makes part of the convolution."""

    def __init__(self, inputs: int, outputs: int, normalisation: Normalisation) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1))
        if normalisation == "batch":
            self.append(nn.BatchNorm2d(outputs))

    def fold(self) -> None:
        """For inference: the same answers from the convolution alone."""
        if len(self) == 2:
            convolution, norm = self
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            convolution.weight, convolution.bias = fuse_conv_bn_weights(  # type: ignore[assignment]
                convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )  # fmt: skip
            del self[1]


class ResidualBlock(nn.Module):
    """x + (convolution, norm, ReLU, convolution, norm)(x)."""

    def __init__(self, width: int, normalisation: Normalisation) -> None:
        super().__init__()
        self.first = ConvNorm(width, width, normalisation)
        self.second = ConvNorm(width, width, normalisation)
        if normalisation == "none":  # else 16 blocks double the variance 16 times
            convolution = self.second[0]
            assert isinstance(convolution, nn.Conv2d)
            convolution.weight.data *= FIRST_RESIDUAL
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        return x + self.second(functional.relu(self.first(x), inplace=True))


class Upsampling(nn.Module):
    """One stage of the published head: convolution, pixel shuffle along rows, columns or both, ReLU."""

    def __init__(self, width: int, step: tuple[int, int]) -> None:
        super().__init__()
        self.step = step
        self.convolution = nn.Conv2d(width, width * step[0] * step[1], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, H*rows, W*columns)."""
        return functional.relu(shuffled(self.convolution(x), self.step), inplace=True)


class SRResNet(nn.Module):
    """(B, 1, H, W) on the networks' intensity scale -> (B, 1, H*fh, W*fw), any H and W.

    factors: (fh, fw), rows and columns, each 1, 2, 4 or 8. blocks, width: of the trunk. normalisation: "batch" as published, or
    "none". skip: "none" as published, "bicubic", or "zerofill", the band-limited interpolation; then the network answers what is
    to be added. head: "published", upsampling stages and a last convolution, or "shuffle", one convolution to fh*fw channels.
    consistency: "soft" scales the residual by two gains in [0, 1] that the network finds for each image, one inside the band
    that the input measured and one outside; needs skip="zerofill". `for_inference` takes batch normalisation out.
    """

    def __init__(
        self,
        *,
        factors: tuple[int, int] = (4, 4),
        blocks: int = 16,
        width: int = 64,
        normalisation: Normalisation = "batch",
        skip: Skip = "none",
        consistency: Consistency = "none",
        head: Head = "published",
    ) -> None:
        super().__init__()
        if len(factors) != 2 or not all(factor in FACTORS for factor in factors) or max(factors) == 1:
            raise ValueError(f"factors are {list(factors)}, expected two of {', '.join(map(str, FACTORS))}, not both 1")
        for name, value, known in (
            ("normalisation", normalisation, Normalisation),
            ("head", head, Head),
        ):
            if value not in get_args(known):
                raise ValueError(f"{name} is '{value}', expected {' or '.join(map(repr, get_args(known)))}")
        if blocks < 1 or width < 1:
            raise ValueError(f"blocks is {blocks} and width {width}, expected at least 1")
        check_skip(skip, consistency)
        self.factors, self.skip, self.head = factors, skip, head
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, normalisation) for _ in range(blocks)))
        self.fusion = ConvNorm(width, width, normalisation)
        steps = upsampling_steps(factors) if head == "published" else ()
        self.upsampling = nn.Sequential(*(Upsampling(width, step) for step in steps))
        self.last = nn.Conv2d(width, 1 if head == "published" else factors[0] * factors[1], 3, padding=1)
        self.gains = Gains(width) if consistency == "soft" else None
        if skip != "none":
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The super-resolved images."""
        shallow = functional.relu(self.first(x))
        features = shallow + self.fusion(self.blocks(shallow))
        answer = self.last(self.upsampling(features))
        if self.head == "shuffle":
            answer = shuffled(answer, self.factors)
        if self.skip == "none":
            return answer  # type: ignore[no-any-return]
        return added(answer, x, self.factors, self.skip, self.gains, features)

    def for_inference(self) -> SRResNet:
        """This network, its batch normalisations folded into the convolutions before them: the same answers, faster."""
        if self.training:
            raise ValueError(
                "the network is in training: call eval() first, batch normalisation uses running statistics then"
            )
        for module in list(self.modules()):
            if isinstance(module, ConvNorm):
                module.fold()
        return self


class Discriminator(nn.Module):
    """(B, 1, H, W), any size from 16 -> (B, 1) logits; high is real. SRGAN's, figure 6 (b).

    Eight 3x3 convolutions of 64 to 512 features (`width` to 8 `width`), every second one of stride 2, with batch normalisation from
    the second on and leaky ReLU; two dense layers. SRGAN flattens the last features, which fixes the image's size: here they are
    averaged first.
    """

    def __init__(self, width: int = 64, hidden: int = 1024) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for number, scale in enumerate((1, 1, 2, 2, 4, 4, 8, 8)):
            layers.append(nn.Conv2d(before, scale * width, 3, stride=1 + number % 2, padding=1, bias=number == 0))
            if number:
                layers.append(nn.BatchNorm2d(scale * width))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            before = scale * width
        self.features = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Linear(before, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of being real."""
        score: Tensor = self.judge(self.features(image).mean((-2, -1)))
        return score


def upsampling_steps(factors: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(fh, fw) by factors of two: (4, 4) -> (2, 2), (2, 2); (8, 1) -> (2, 1), (2, 1), (2, 1)."""
    rows, columns = (int(factor).bit_length() - 1 for factor in factors)
    return tuple((1 + (stage < rows), 1 + (stage < columns)) for stage in range(max(rows, columns)))


def shuffled(x: Tensor, factors: tuple[int, int]) -> Tensor:
    """(B, C*fh*fw, H, W) -> (B, C, H*fh, W*fw), as `torch.pixel_shuffle` with a factor per axis."""
    (fh, fw), (batch, channels, height, width) = factors, x.shape
    x = x.reshape(batch, channels // (fh * fw), fh, fw, height, width).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, channels // (fh * fw), height * fh, width * fw)


def build(*, factors: Sequence[int] = (4, 4), **hyperparameters: Any) -> SRResNet:
    """SRResNet from a card's hyper-parameters (JSON has lists where Python has tuples)."""
    return SRResNet(factors=tuple(int(factor) for factor in factors), **hyperparameters)  # type: ignore[arg-type]
