"""Runs a network over a stack of slices: batches, tiles, precision, and what to do when memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DeviceError, ModelError
from ..models import ModelCard
from ..networks.parts.projection import bicubic
from .device import (
    choose_device,
    choose_precision,
    half_type,
    is_out_of_memory,
    memory_budget,
    release_memory,
    use_threads,
)
from .options import Cancel, Options, Warn, log_warning, never, stop_if
from .planning import PIXELS_AT_ONCE, activation_bytes, network_pixels
from .tiles import run_in_parts, run_tiled, smallest_tile

DEVICE_FAULTS = ("cuda", "cudnn", "cublas", "nccl", "mps backend", "acceleratorerror")


class SliceRunner:
    """A network made ready for slices: on its device, in its precision, with a batch and a tile that fit.

    network: takes (B, 1, H, W), and whatever extras the caller passes along, and returns (B, c, H*fh, W*fw). A callable
    that is no module (a network with its latent bound, say) is used as it is. zoom: (fh, fw), whole numbers. Where the card says
    so, slices are interpolated first, and brought to the one size that the network takes.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        card: ModelCard,
        zoom: tuple[int, int],
        options: Options,
        warn: Warn = log_warning,
        cancel: Cancel = never,
    ) -> None:
        self.device = choose_device(options.device)
        self.precision = choose_precision(options.precision, self.device, card.requirements.bf16)
        use_threads(options.threads)
        self.card, self.needs, self.zoom = card, card.requirements, zoom
        self.inner_zoom = (1, 1) if self.needs.interpolated else zoom  # of the network itself
        self.spread = (
            zoom if self.needs.interpolated else (1, 1)
        )  # pixels of the network's input between those of the scan
        self.batch, self.tile = options.batch, self._checked_tile(options.tile, warn)
        self.warn, self.cancel = warn, cancel
        self.network = network
        if isinstance(network, nn.Module):
            self.network = network.to(self.device).eval()

    def run(
        self, images: np.ndarray, extras: Sequence[np.ndarray] = (), size: tuple[int, int] | None = None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (which slices, their answers (n, H', W') float32) for a stack of `images` (N, H, W).

        extras: stacks (N, H*fh, W*fw) given to the network beside. size: (H', W') each answer is brought to, edges kept
        and antialiased; None leaves (H*fh, W*fw). Raises `Cancelled`, `DeviceError` when not even the smallest tile
        fits, and `ModelError` if the network answers with values that are not finite.
        """
        with self._stopping_between_layers():
            start = 0
            batch = self.batch or self._planned_batch(network_pixels(self.card, images.shape[1], images.shape[2]))
            while start < len(images):
                stop_if(self.cancel)
                part = slice(start, min(start + batch, len(images)))
                failure: Exception | None = None
                try:
                    answer = self._answer(images[part], [extra[part] for extra in extras], size)
                except Exception as error:
                    failure = error
                if failure is not None:  # outside the except clause, where its frames would still hold their tensors
                    batch = self._smaller(failure, part.stop - part.start, images.shape[1:])
                    continue
                yield part, answer
                start = part.stop

    def _answer(self, images: np.ndarray, extras: Sequence[np.ndarray], size: tuple[int, int] | None) -> np.ndarray:
        """One batch, whole or in tiles. The answer's channel is the first."""
        with torch.inference_mode():
            x = _tensor(images)
            if self.needs.interpolated:
                x = bicubic(x, (x.shape[-2] * self.zoom[0], x.shape[-1] * self.zoom[1]))
            answer = self._whole(x, [_tensor(extra) for extra in extras])
            if size is not None and size != answer.shape[-2:]:
                answer = functional.interpolate(answer, size=size, mode="bicubic", align_corners=False, antialias=True)
            return answer[:, 0].cpu().numpy()

    def _whole(self, x: Tensor, extras: Sequence[Tensor]) -> Tensor:
        """(B, 1, H, W) -> (B, c, H*fh, W*fw) of the network's own zoom: padded to what it takes, whole or in parts, cut back."""
        (height, width), zoom, needs = x.shape[-2:], self.inner_zoom, self.needs
        padding = self._padding(height, width)
        x, beside = self._pad(x, padding, (1, 1)), [self._pad(extra, padding, zoom) for extra in extras]
        if needs.input_size:
            answer = run_in_parts(
                self._forward, x, beside, side=needs.input_size, halo=needs.halo, zoom=zoom, multiples=self.spread
            )
        elif self.tile is None:
            answer = self._forward(x, *beside)
        else:
            answer = run_tiled(
                self._forward, x, beside, tile=self.tile, halo=needs.halo, zoom=zoom, multiple=needs.multiple_of
            )
        left, _, top, _ = padding
        rows = slice(top * zoom[0], (top + height) * zoom[0])
        return answer[..., rows, left * zoom[1] : (left + width) * zoom[1]]

    def _forward(self, x: Tensor, *extras: Tensor) -> Tensor:
        """The network on its device, fp32 out; half precision that overflows is repeated in fp32."""
        inputs = [tensor.to(self.device) for tensor in (x, *extras)]
        half = half_type(self.precision)
        repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with repeatable, torch.autocast(self.device.type, dtype=half, enabled=half is not None):
            answer = self.network(*inputs).float()
        if not bool(torch.isfinite(answer).all()):
            if half is None:
                raise ModelError(
                    f"'{self.card.id}' answered with values that are not finite; its weights are unusable",
                    code="bad-weights",
                )
            self.warn("precision", f"{self.precision} overflowed: going on in fp32")
            self.precision = "fp32"
            return self._forward(x, *extras)
        expected = (x.shape[-2] * self.inner_zoom[0], x.shape[-1] * self.inner_zoom[1])
        if answer.shape[-2:] != expected:
            raise ModelError(
                f"'{self.card.id}' made {tuple(answer.shape[-2:])} pixels of {tuple(x.shape[-2:])}, "
                f"its card says {expected}",
                code="bad-card",
            )
        return answer

    def _pad(self, x: Tensor, padding: Sequence[int], zoom: tuple[int, int]) -> Tensor:
        """`x` with `padding` pixels times `zoom`: the border repeated.

        Networks of one size learned slices that lie in air, and they end in it, but only beyond the halo: where a scan cuts through
        tissue they would darken its last pixels.
        """
        left, right, top, bottom = padding
        wanted = (left * zoom[1], right * zoom[1], top * zoom[0], bottom * zoom[0])
        if not any(wanted):
            return x
        if not self.needs.input_size:
            return functional.pad(x, wanted, mode="replicate")
        band = max(zoom) * self.needs.halo
        near = [min(pixels, band) for pixels in wanted]
        x = functional.pad(x, near, mode="replicate")
        return functional.pad(x, [pixels - close for pixels, close in zip(wanted, near, strict=True)])

    def _padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(left, right, top, bottom) so that both sides are large enough and a multiple of what the network needs.

        The pixels of a scan that was interpolated lie where they lay in training, at the middles of steps from the first row on: a
        network that knows the places of its pixels took those of an odd number of x8 slices, centred, for something else.
        """
        if self.needs.input_size:
            missing = [max(0, self.needs.input_size - side) for side in (height, width)]
            top, left = (lacking // 2 // step * step for lacking, step in zip(missing, self.spread, strict=True))
            return (left, missing[1] - left, top, missing[0] - top)
        multiple, smallest = self.needs.multiple_of, self.needs.smallest
        right, bottom = (max(side, smallest) + (-max(side, smallest)) % multiple - side for side in (width, height))
        return (0, right, 0, bottom)

    def _planned_batch(self, pixels: int) -> int:
        """Slices at once, from sizes and free memory alone, so that a run repeated is cut alike."""
        pixels = min(pixels, self.tile**2) if self.tile and not self.needs.input_size else pixels
        each = activation_bytes(self.card) * pixels * (1.0 if self.precision == "fp32" else 0.5)
        fitting = memory_budget(self.device) / each
        return max(1, int(min(PIXELS_AT_ONCE[self.device.type] / pixels, fitting)))

    def _smaller(self, error: Exception, batch: int, shape: tuple[int, ...]) -> int:
        """The batch to go on with after `error`, a smaller tile being set when the batch is one already."""
        if not is_out_of_memory(error):
            text = str(error).strip().split("\n")[0]
            if isinstance(error, RuntimeError) and any(name in text.lower() for name in DEVICE_FAULTS):
                raise DeviceError(
                    f"the device failed ({text[:160]}): choose the processor (device cpu) instead", code="device-fault"
                ) from error
            raise error
        error.__traceback__ = None  # its frames hold the tensors that filled the memory
        release_memory(self.device)
        if batch > 1:
            self.batch = batch // 2
            self.warn("memory", f"memory ran out with {batch} slices at once: going on with {self.batch}")
            return self.batch
        longest = max(shape[0], shape[1]) if self.tile is None else min(self.tile, max(shape[0], shape[1]))
        multiple = self.needs.multiple_of
        least = smallest_tile(self.needs.halo, multiple)
        tile = max(least, longest // 2 // multiple * multiple)
        if self.needs.input_size or tile >= longest:
            reason = f"needs tiles of at least {least} pixels"
            if self.needs.input_size:
                reason = f"takes images of {self.needs.input_size} pixels, neither more nor fewer"
            raise DeviceError(
                f"memory ran out on {self.device} with a single {'slice' if self.tile is None else 'tile'}, and "
                f"'{self.card.id}' {reason}: close other programs, choose another device or a smaller model",
                code="memory",
            ) from None
        self.tile = tile
        worse = "" if self.needs.tiling else f"; '{self.card.id}' is made for whole slices, and is less exact so"
        self.warn("memory", f"memory ran out with pieces of {longest} pixels: going on with tiles of {tile}{worse}")
        return 1

    def _checked_tile(self, tile: int | None, warn: Warn) -> int | None:
        if tile is None:
            return None
        if not self.needs.tiling:
            warn("tile", f"'{self.card.id}' needs whole slices: the tile of {tile} is not used")
            return None
        if self.needs.input_size:
            if tile != self.needs.input_size:
                warn(
                    "tile",
                    f"'{self.card.id}' takes parts of {self.needs.input_size} pixels: the tile of {tile} is not used",
                )
            return None
        least = smallest_tile(self.needs.halo, self.needs.multiple_of)
        if tile < least:
            warn("tile", f"a tile of {tile} is too small for '{self.card.id}': using {least}")
        return max(tile, least) // self.needs.multiple_of * self.needs.multiple_of

    @contextlib.contextmanager
    def _stopping_between_layers(self) -> Iterator[None]:
        """Let the user stop inside a slice too: on a CPU one slice of a large model takes seconds."""
        cancel = self.cancel

        def check(module: nn.Module, inputs: object) -> None:
            stop_if(cancel)

        modules = self.network.modules() if isinstance(self.network, nn.Module) and cancel is not never else ()
        handles = [module.register_forward_pre_hook(check) for module in modules if not list(module.children())]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _tensor(images: np.ndarray) -> Tensor:
    """(N, H, W) -> (N, 1, H, W), fp32, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[:, None]
