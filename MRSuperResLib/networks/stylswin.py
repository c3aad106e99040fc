"""StyleSwin: a generator of brain slices whose every layer is a windowed transformer steered by a latent, and its discriminator.

Zhang et al.: "StyleSwin: transformer-based GAN for high-resolution image generation", CVPR 2022, as TransMRSR uses it (Huang et
al. 2023, section 3.3 and 4.3): latent 512, window 8, channels 512 at 4 to 32 pixels, 256 at 64, 128 at 128 and 64 at 256.
`StyleDecoder` is what the super-resolution network takes over; `StyleSwin` is the whole generator, and the model package of the
first stage, with the centres of its latents.

Neither paper states the number of heads; here a head has 32 channels, and there are two heads at least, so that one half of them
can be shifted: 16 to 8 heads from 512 to 256 channels, 4 at 128, 2 at 64. StyleSwin's code has four at least, so 4 at 64. Between
two sizes its code enlarges first, then normalises and projects, and scales the positions by a learned number that starts at 0.
Here normalisation and projection come before the bilinear enlargement, on a quarter of the pixels, and positions are not scaled.
Pixels lie (B, H, W, channels) throughout, so that linear layers and windows need no transpositions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from .parts.swin import attend, position_index, shift_mask

LATENT = 512
CHANNELS = (512, 512, 512, 512, 256, 128, 64)  # at 4, 8, ..., 256 pixels (TransMRSR, section 4.3: multiplier 1)
CENTRES = 8  # TransMRSR, section 4.3
BASE = 4  # side of the learned constant, pixels
HEAD_WIDTH = 32
MAPPING_RATE = 0.01  # of the mapping network's learning rate, relative to the others' (StyleGAN)
SLOPE = 0.2  # of leaky rectifiers
GROUP = 4  # images whose standard deviation the discriminator sees (StyleGAN2)


class ScaledLinear(nn.Module):
    """A linear layer whose weights are scaled when used, so that all layers learn equally fast (StyleGAN).

    rate: of learning, relative to other layers. bias: its first value.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return functional.linear(x, self.weight * self.scale, self.bias * self.rate)


class Mapping(nn.Module):
    """From noise to the latent space in which styles are spread evenly (StyleGAN): eight layers."""

    def __init__(self, latent: int, layers: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ScaledLinear(latent, latent, rate=MAPPING_RATE) for _ in range(layers))

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent), normally distributed -> (B, latent)."""
        x = noise * torch.rsqrt(noise.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = activated(layer(x))
        return x


class StyleNorm(nn.Module):
    """Adaptive instance normalisation: each channel of an image gets mean 0, deviation 1, then the latent's scale and shift."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.affine = ScaledLinear(latent, 2 * width)
        with torch.no_grad():
            self.affine.bias[:width] = 1.0

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """(B, H, W, width) and (B, latent) -> (B, H, W, width)."""
        scale, shift = self.affine(latent)[:, None, None].chunk(2, -1)
        variance, mean = torch.var_mean(x.float(), dim=(1, 2), keepdim=True, correction=0)
        return ((x - mean) * torch.rsqrt(variance + 1e-5) * scale + shift).to(x.dtype)


class DoubleAttention(nn.Module):
    """Self-attention in windows for the first half of the heads, in windows shifted by half their side for the second."""

    position_index: Tensor
    mask: Tensor

    def __init__(self, width: int, heads: int, window: int, size: int) -> None:
        super().__init__()
        if heads % 2:
            raise ValueError(f"{heads} heads cannot be halved, expected an even number")
        self.heads, self.window = heads, min(window, size)
        self.shift = self.window // 2 if size > self.window else 0
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("position_index", position_index(self.window), persistent=False)
        shifted = shift_mask(size, size, self.window) if self.shift else torch.zeros(1, self.window**2, self.window**2)
        mask = torch.stack((torch.zeros_like(shifted), shifted), 1)  # (windows, halves, n, n)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, width) -> the same."""
        height, channels = x.shape[1], x.shape[-1] // self.heads
        plain, shifted = self.qkv(x).chunk(2, -1)  # the heads of either half: (B, H, W, 3 * heads/2 * channels)
        both = torch.cat((plain, shifted.roll((-self.shift, -self.shift), (1, 2))), -1)
        q, k, v = rearrange(
            both,
            "b (r m) (c n) (half three h d) -> three b (r c half h) (m n) d",
            m=self.window, n=self.window, half=2, three=3, d=channels,
        )  # fmt: skip
        bias = self.position_bias[self.position_index]  # (n, n, heads)
        bias = rearrange(bias, "a b (half h) -> half h a b", half=2)
        logits = (self.mask[:, :, None] + bias).flatten(0, 2)[None]  # (1, windows * heads, n, n)
        answer = attend(q, k, v, logits, channels**-0.5)
        answer = rearrange(
            answer,
            "b (r c half h) (m n) d -> b (r m) (c n) (half h d)",
            r=height // self.window, half=2, h=self.heads // 2, m=self.window,
        )  # fmt: skip
        plain, shifted = answer.chunk(2, -1)
        return self.out(torch.cat((plain, shifted.roll((self.shift, self.shift), (1, 2))), -1))  # type: ignore[no-any-return]


class StyleBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a `StyleNorm`, each residual."""

    def __init__(self, width: int, heads: int, window: int, size: int, latent: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_attention = StyleNorm(width, latent)
        self.attention = DoubleAttention(width, heads, window, size)
        self.norm_mlp = StyleNorm(width, latent)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """(B, H, W, width) and (B, latent) -> (B, H, W, width)."""
        x = x + self.attention(self.norm_attention(x, latent))
        return x + self.mlp(self.norm_mlp(x, latent))


class StyleLevel(nn.Module):
    """One size of the decoder: the size before projected, then enlarged bilinearly; sinusoidal positions added; two style blocks.

    before: channels of the size before; 0 for the first, which starts from the learned constant.
    """

    positions: Tensor

    def __init__(
        self, before: int, width: int, size: int, *, latent: int, window: int, head_width: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.width = width
        self.adapt = nn.Sequential(nn.LayerNorm(before), nn.Linear(before, width)) if before else None
        self.register_buffer("positions", sinusoidal_positions(size, width), persistent=False)
        heads = heads_of(width, head_width)
        self.blocks = nn.ModuleList(StyleBlock(width, heads, window, size, latent, mlp_ratio) for _ in range(2))

    def enlarged(self, x: Tensor) -> Tensor:
        """(B, H/2, W/2, before) -> (B, H, W, width), where the encoder's features join; the constant gets its positions."""
        if self.adapt is not None:
            x = doubled(self.adapt(x))
        return x + self.positions

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """(B, H, W, width) and (B, latent) -> (B, H, W, width)."""
        for block in self.blocks:
            x = block(x, latent)
        return x


class StyleDecoder(nn.Module):
    """The learned constant and one `StyleLevel` for each size from 4 pixels on.

    channels: of each size; their number decides the largest, 4 * 2**(n - 1) pixels.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = CHANNELS,
        latent: int = LATENT,
        window: int = 8,
        head_width: int = HEAD_WIDTH,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.size = BASE * 2 ** (len(channels) - 1)
        self.constant = nn.Parameter(torch.randn(1, BASE, BASE, channels[0]))
        befores = (0, *channels[:-1])
        self.levels = nn.ModuleList(
            StyleLevel(
                before, width, BASE * 2**n, latent=latent, window=window, head_width=head_width, mlp_ratio=mlp_ratio
            )
            for n, (before, width) in enumerate(zip(befores, channels, strict=True))
        )
        self.apply(_initialise)

    def start(self, batch: int) -> Tensor:
        """The constant for every image of a batch."""
        return self.constant.expand(batch, -1, -1, -1)


class StyleSwin(nn.Module):
    """Noise (B, latent) -> slices (B, 1, size, size) on the networks' intensity scale.

    centres: how many cluster centres of latents the package holds; they are zero until `training.methods.prior` finds them.
    """

    centres: Tensor

    def __init__(
        self,
        *,
        channels: Sequence[int] = CHANNELS,
        latent: int = LATENT,
        window: int = 8,
        head_width: int = HEAD_WIDTH,
        mlp_ratio: float = 4.0,
        centres: int = CENTRES,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.mapping = Mapping(latent)
        self.decoder = StyleDecoder(
            channels=channels, latent=latent, window=window, head_width=head_width, mlp_ratio=mlp_ratio
        )
        self.size = self.decoder.size
        self.images = nn.ModuleList(nn.Linear(width, 1) for width in channels)
        self.register_buffer("centres", torch.zeros(centres, latent))

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent), normally distributed -> (B, 1, size, size)."""
        latent = self.mapping(noise)
        return self.synthesised(latent[:, None].expand(-1, len(self.decoder.levels), -1))

    def synthesised(self, latents: Tensor) -> Tensor:
        """(B, levels, latent) -> (B, 1, size, size): every size adds its image to the enlarged one before (StyleGAN2)."""
        x = self.decoder.start(len(latents))
        image: Tensor | None = None
        for n, (level, to_image) in enumerate(zip(self.decoder.levels, self.images, strict=True)):
            x = level(level.enlarged(x), latents[:, n])  # type: ignore[operator]
            image = to_image(x) if image is None else doubled(image) + to_image(x)
        assert image is not None
        return image.permute(0, 3, 1, 2)


class ScaledConvolution(nn.Module):
    """A convolution with scaled weights as `ScaledLinear`, then a leaky rectifier; `down` halves the sides, low-passed first."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, active: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.down = down
        tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("low_pass", (tap[:, None] * tap)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), or half as high and wide."""
        weight, padding, stride = self.weight * self.scale, self.weight.shape[-1] // 2, 1
        if self.down:
            edge = padding + 1  # the low-pass takes 3 pixels, the kernel of 3 with stride 2 another
            kernel = self.low_pass.to(x.dtype).expand(x.shape[1], -1, -1, -1)  # type: ignore[operator,union-attr]
            x = functional.conv2d(functional.pad(x, (edge, edge, edge, edge)), kernel, groups=x.shape[1])
            padding, stride = 0, 2
        x = functional.conv2d(x, weight, self.bias, stride=stride, padding=padding)
        return x if self.bias is None else activated(x)


class CriticBlock(nn.Module):
    """Two convolutions, the second halving the sides, beside a shortcut (StyleGAN2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ScaledConvolution(inputs, inputs, 3)
        self.second = ScaledConvolution(inputs, outputs, 3, down=True)
        self.shortcut = ScaledConvolution(inputs, outputs, 1, down=True, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/2, W/2)."""
        return (self.second(self.first(x)) + self.shortcut(x)) / math.sqrt(2)


class WaveletDiscriminator(nn.Module):
    """StyleSwin's discriminator: it sees the four Haar bands of the image at every size, where blocking would show.

    (B, 1, size, size) -> (B,) scores, high for real slices.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        widths = channels[-2::-1]  # at size/2, where the bands of the whole image are, down to 4
        self.bands = nn.ModuleList(ScaledConvolution(4, width, 1) for width in widths)
        self.blocks = nn.ModuleList(CriticBlock(width, after) for width, after in itertools.pairwise(widths))
        self.last = ScaledConvolution(widths[-1] + 1, widths[-1], 3)
        self.judge = nn.ModuleList((ScaledLinear(widths[-1] * BASE**2, widths[-1]), ScaledLinear(widths[-1], 1)))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, size, size) -> (B,)."""
        x: Tensor | None = None
        for n, bands in enumerate(self.bands):
            if n:
                image = functional.avg_pool2d(image, 2)
            seen = bands(haar_bands(image))
            x = seen if x is None else x + seen
            if n < len(self.blocks):
                x = self.blocks[n](x)
        assert x is not None
        x = self.last(torch.cat((x, _deviation_of_groups(x)), 1)).flatten(1)
        return self.judge[1](activated(self.judge[0](x)))[:, 0]  # type: ignore[no-any-return]


def heads_of(width: int, head_width: int) -> int:
    """How many heads share `width` channels: two at least, an even number."""
    heads = max(2, width // head_width // 2 * 2)
    if width % heads:
        raise ValueError(f"{width} channels cannot be shared by {heads} heads")
    return heads


def sinusoidal_positions(size: int, width: int) -> Tensor:
    """(size, size, width): sines and cosines of the row in the first half of the channels, of the column in the second."""
    if width % 4:
        raise ValueError(f"{width} channels cannot hold positions, expected a multiple of 4")
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(size)[:, None] * frequencies  # (size, width / 4)
    axis = torch.cat((angles.sin(), angles.cos()), -1)
    return torch.cat((axis[:, None].expand(-1, size, -1), axis[None].expand(size, -1, -1)), -1).contiguous()


def doubled(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, 2H, 2W, C), bilinear."""
    x = functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    return x.permute(0, 2, 3, 1)


def haar_bands(image: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 4, H/2, W/2): mean, horizontal, vertical and diagonal differences, orthonormal."""
    a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]
    c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]
    return torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), 1) / 2


def activated(x: Tensor) -> Tensor:
    """Leaky rectifier that keeps the variance (StyleGAN2)."""
    return functional.leaky_relu(x, SLOPE) * math.sqrt(2)


def nearest_centre(latents: Tensor, centres: Tensor) -> Tensor:
    """Of `centres` (n, latent) the nearest to each of `latents` (..., latent), Euclidean, in fp32."""
    with torch.autocast(latents.device.type, enabled=False):
        distances = torch.cdist(latents.float().flatten(0, -2), centres.float())
        return centres[distances.argmin(1)].view(latents.shape)


def _deviation_of_groups(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W): the mean standard deviation over groups of images, so that too-alike fakes show."""
    group = math.gcd(len(x), GROUP)
    groups = rearrange(x.float(), "(g n) c h w -> g n c h w", g=group)
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (n,)
    return deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def build(**hyperparameters: Any) -> StyleSwin:
    """StyleSwin's generator from a card's hyper-parameters."""
    return StyleSwin(**hyperparameters)
