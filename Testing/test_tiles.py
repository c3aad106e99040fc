"""Tiles and batches: a slice cut in pieces comes out as if it had not been, and running out of memory is no end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from MRSuperResLib import evaluation, networks
from MRSuperResLib.errors import Cancelled, DeviceError, ModelError, UsageError
from MRSuperResLib.inference import device, memory, super_resolve
from MRSuperResLib.inference.options import Options, never
from MRSuperResLib.inference.runner import SliceRunner
from MRSuperResLib.inference.tiles import axis_tiles, run_tiled, smallest_tile
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.models import ModelCard, Requirements, find_model, list_models

HALO = 4  # pixels: three 3x3 convolutions see 3, and one more for the upsampler's


class Convolutions(nn.Module):
    """Three convolutions and a pixel shuffle: (B, 1, H, W) -> (B, 1, H*fh, W*fw), seeing 4 pixels around each."""

    def __init__(self, factors: tuple[int, int] = (2, 2), channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.factors = factors
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, factors[0] * factors[1], 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).unflatten(1, (1, *self.factors))  # (B, 1, fh, fw, H, W)
        return y.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def card(**requirements: object) -> ModelCard:
    """A card that lets `Convolutions` be tiled."""
    return ModelCard(
        id="convolutions",
        title="",
        version="1",
        architecture="rdst",
        task="super-resolve",
        plane="in-plane",
        factors=(2, 2),
        contrasts=("any",),
        spacing=None,
        licence="",
        intended_use="",
        requirements=Requirements(**({"smallest": 4, "halo": HALO} | requirements)),  # type: ignore[arg-type]
    )


@settings(deadline=None, max_examples=200)
@given(
    steps=st.integers(1, 40), extra=st.integers(0, 20), halo=st.integers(0, 12), zoom=st.integers(1, 4),
    multiple=st.sampled_from([1, 2, 8]),
)  # fmt: skip
def test_every_pixel_gets_whole_weight_from_pixels_far_enough_from_a_cut(
    steps: int, extra: int, halo: int, zoom: int, multiple: int
) -> None:
    """The weights add up to 1 everywhere, are 0 within the halo of a cut edge, and tiles stay inside the image."""
    size, tile = steps * multiple, smallest_tile(halo, multiple) + extra
    tiles = axis_tiles(size, tile, halo, zoom, multiple)
    assert tiles.length <= tile
    total = np.zeros(size * zoom)
    for start, weights in zip(tiles.starts, tiles.weights.numpy(), strict=True):
        assert start % multiple == 0 and 0 <= start and start + tiles.length <= size
        total[start * zoom : (start + tiles.length) * zoom] += weights
        if start > 0:
            assert not weights[: halo * zoom].any()
        if start + tiles.length < size:
            assert not weights[len(weights) - halo * zoom :].any()
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("factors", [(2, 2), (4, 1), (1, 1), (3, 2)])
def test_a_tiled_slice_shows_no_seam(factors: tuple[int, int]) -> None:
    network = Convolutions(factors).eval()
    x = torch.rand(2, 1, 61, 83)
    with torch.inference_mode():
        whole = network(x)
        tiled = run_tiled(network, x, tile=24, halo=HALO, zoom=factors)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() < 1e-3 * (whole.max() - whole.min())


def test_a_windowed_transformer_is_tiled_on_its_windows() -> None:
    """RDST attends inside windows anchored at the image's corner: tiles that start on windows see the same ones."""
    torch.manual_seed(0)
    network = networks.build("rdst", {"blocks": 1, "factors": [2, 2], "width": 8, "heads": 2, "growth": 4, "window": 4})
    network = network.eval()
    x = torch.rand(1, 1, 96, 64)
    with torch.inference_mode():
        whole = network(x)
        aligned = run_tiled(network, x, tile=72, halo=28, zoom=(2, 2), multiple=4)
    assert (aligned - whole).abs().max() < 1e-3 * (whole.max() - whole.min())


def test_a_reference_is_cut_where_the_slice_is_cut() -> None:
    """Extras at the zoomed size stay in register with their tile."""
    x = torch.rand(1, 1, 50, 40)
    reference = torch.rand(1, 1, 100, 120)
    together = run_tiled(
        lambda low, high: high + low.repeat_interleave(2, -2).repeat_interleave(3, -1), x, [reference],
        tile=24, halo=2, zoom=(2, 3),
    )  # fmt: skip
    expected = reference + x.repeat_interleave(2, -2).repeat_interleave(3, -1)
    assert torch.allclose(together, expected, atol=1e-6)


def test_tiles_at_the_border_hold_acquired_pixels_only() -> None:
    """A tile padded with zeros would darken the rim."""
    seen: list[float] = []

    def watch(x: Tensor) -> Tensor:
        seen.append(float(x.min()))
        assert x.shape[-2:] == (25, 25)
        return x

    answer = run_tiled(watch, torch.ones(1, 1, 70, 41), tile=25, halo=4, zoom=(1, 1))
    assert min(seen) == 1.0
    assert torch.allclose(answer, torch.ones_like(answer))


def test_a_tile_smaller_than_what_a_pixel_needs_is_refused() -> None:
    with pytest.raises(DeviceError, match="too small for this model"):
        axis_tiles(100, 16, 8, 2)


# batches


def stack(count: int = 5, rows: int = 60, columns: int = 44) -> np.ndarray:
    return np.random.default_rng(0).random((count, rows, columns), dtype=np.float32)


def gathered(runner: SliceRunner, images: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Everything the runner yields, in order."""
    parts = list(runner.run(images, size=size))
    assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]
    return np.concatenate([answer for _, answer in parts])


class Failing(nn.Module):
    """A network that runs out of memory, as `error`, above so many pixels in a batch."""

    def __init__(self, pixels: int, error: BaseException) -> None:
        super().__init__()
        self.inner, self.pixels, self.error = Convolutions(), pixels, error
        self.asked: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(tuple(x.shape))
        if x.numel() > self.pixels:
            raise self.error
        return self.inner(x)


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes"),
    RuntimeError("MPS backend out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:24] or "MemoryError")
def test_memory_running_out_halves_the_batch_then_the_tile_and_goes_on(error: BaseException) -> None:
    network, told = Failing(1500, error), []
    runner = SliceRunner(network, card(), (2, 2), Options(device="cpu", batch=4), lambda *w: told.append(w))
    with torch.inference_mode():
        expected = network.inner(torch.from_numpy(stack()[:, None]))[:, 0].numpy()
    answer = gathered(runner, stack())
    assert np.abs(answer - expected).max() < 1e-3 * np.ptp(expected)
    assert [code for code, _ in told] == ["memory"] * 3
    assert "4 slices at once: going on with 2" in told[0][1]
    assert "2 slices at once: going on with 1" in told[1][1]
    assert "tiles of 30" in told[2][1]
    assert network.asked[-1] == (1, 1, 30, 30)


def test_networks_run_with_kernels_that_repeat_to_the_last_bit() -> None:
    """On CUDA, where transposed convolutions are not so by default; a seed shall give the same bits there too."""
    seen = []

    def network(x: Tensor) -> Tensor:
        seen.append((torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark))
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    gathered(SliceRunner(network, card(), (2, 2), Options(device="cpu"), lambda *w: None), stack())
    assert set(seen) == {(True, False)} and not torch.backends.cudnn.deterministic


def test_memory_too_small_for_the_smallest_tile_is_one_clear_error() -> None:
    network = Failing(0, MemoryError())
    runner = SliceRunner(network, card(), (2, 2), Options(device="cpu", batch=1), lambda *w: None)
    with pytest.raises(DeviceError, match="needs tiles of at least 18 pixels") as failed:
        gathered(runner, stack())
    assert failed.value.exit_code == 6
    assert network.asked[-1] == (1, 1, 18, 18)


def test_a_model_for_whole_slices_is_cut_only_when_memory_forces_it_and_says_so() -> None:
    told: list[str] = []
    network = Failing(2000, MemoryError())
    options = Options(device="cpu", batch=1, tile=18)
    runner = SliceRunner(network, card(tiling=False), (2, 2), options, lambda code, text: told.append(text))
    assert runner.tile is None and "needs whole slices" in told[0]
    whole = gathered(SliceRunner(Convolutions(), card(), (2, 2), Options(device="cpu")), stack())
    np.testing.assert_allclose(gathered(runner, stack()), whole, atol=1e-5)
    assert network.asked[0] == (1, 1, *stack().shape[1:]) and runner.tile is not None
    assert "made for whole slices" in told[1]


def test_an_error_that_is_not_about_memory_is_not_hidden() -> None:
    runner = SliceRunner(Failing(0, ValueError("a bug")), card(), (2, 2), Options(device="cpu"))
    with pytest.raises(ValueError, match="a bug"):
        gathered(runner, stack())


def test_a_failing_gpu_is_a_device_error() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")
    runner = SliceRunner(Failing(0, error), card(), (2, 2), Options(device="cpu"))
    with pytest.raises(DeviceError, match="choose the processor"):
        gathered(runner, stack())


@pytest.mark.parametrize("batch", [None, 1, 3, 100])
def test_the_batch_does_not_change_the_answer(batch: int | None) -> None:
    network = Convolutions()
    answer = gathered(SliceRunner(network, card(), (2, 2), Options(device="cpu", batch=batch)), stack())
    with torch.inference_mode():
        expected = network(torch.from_numpy(stack()[:, None]))[:, 0].numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_cancelling_stops_between_batches() -> None:
    network = Failing(10**9, MemoryError())
    runner = SliceRunner(
        network, card(), (2, 2), Options(device="cpu", batch=2), cancel=lambda: len(network.asked) >= 2
    )
    with pytest.raises(Cancelled):
        gathered(runner, stack(20))
    assert len(network.asked) == 2


def test_cancelling_stops_inside_a_slow_slice() -> None:
    """On a CPU one slice of a large model takes seconds: the user does not wait for it."""
    asked: list[int] = []
    network = Convolutions()
    network.body[2].register_forward_hook(lambda *_: asked.append(1))
    runner = SliceRunner(network, card(), (2, 2), Options(device="cpu", batch=1), cancel=lambda: bool(asked))
    with pytest.raises(Cancelled):
        gathered(runner, stack())
    assert asked == [1]


def test_small_slices_are_extended_for_the_network_and_cut_back() -> None:
    """A network that needs multiples of 8, at least 16, sees that; the answer has the slice's own size."""
    network = Failing(10**9, MemoryError())
    runner = SliceRunner(network, card(multiple_of=8, smallest=16), (2, 2), Options(device="cpu"))
    assert gathered(runner, stack(2, 5, 33)).shape == (2, 10, 66)
    assert network.asked[-1] == (2, 1, 16, 40)


def test_an_answer_is_brought_to_the_size_asked_without_shifting() -> None:
    """A ramp stays the ramp at pixel centres when x2 becomes x1.5."""

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    ramp = np.broadcast_to(np.arange(24, dtype=np.float32), (1, 20, 24))
    answer = gathered(SliceRunner(Twice(), card(), (2, 2), Options(device="cpu")), ramp, size=(30, 36))
    assert answer.shape == (1, 30, 36)
    expected = (np.arange(36) + 0.5) / 1.5 - 0.5
    np.testing.assert_allclose(answer[0, 15, 4:-4], expected[4:-4], atol=0.02)


def test_half_precision_that_overflows_is_repeated_in_full() -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                return torch.full_like(x, torch.inf)
            return x

    told: list[str] = []
    runner = SliceRunner(
        Large(), card(), (1, 1), Options(device="cpu", precision="bf16", batch=2), lambda code, text: told.append(text)
    )
    np.testing.assert_array_equal(gathered(runner, stack(4)), stack(4))
    assert told == ["bf16 overflowed: going on in fp32"]


def test_answers_that_are_not_numbers_are_refused() -> None:
    runner = SliceRunner(lambda x: x * torch.nan, card(), (1, 1), Options(device="cpu"))
    with pytest.raises(ModelError, match="not finite"):
        gathered(runner, stack())


def test_a_network_whose_card_states_another_factor_is_refused() -> None:
    runner = SliceRunner(Convolutions((2, 2)), card(), (3, 3), Options(device="cpu"))
    with pytest.raises(ModelError, match="its card says"):
        gathered(runner, stack())


def test_bf16_on_a_cpu_stays_close_to_full_precision() -> None:
    full = gathered(SliceRunner(Convolutions(), card(), (2, 2), Options(device="cpu")), stack(2))
    half = gathered(SliceRunner(Convolutions(), card(), (2, 2), Options(device="cpu", precision="bf16")), stack(2))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.02


def test_a_tile_asked_for_that_is_too_small_is_enlarged_and_said() -> None:
    told: list[str] = []
    runner = SliceRunner(
        Convolutions(), card(), (2, 2), Options(device="cpu", tile=5), lambda code, text: told.append(text)
    )
    assert runner.tile == 18 and "too small" in told[0]
    whole = gathered(SliceRunner(Convolutions(), card(), (2, 2), Options(device="cpu")), stack())
    np.testing.assert_allclose(gathered(runner, stack()), whole, atol=1e-5)
    SliceRunner(Convolutions(), card(tiling=False), (2, 2), Options(tile=64), lambda code, text: told.append(text))
    assert "needs whole slices" in told[1]


# devices


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu"):
        device.choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_this_machine_lacks_is_refused_and_auto_falls_back() -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        device.choose_device("cuda")
    assert device.choose_device("auto") == torch.device("cpu")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_mps_is_refused_where_there_is_none() -> None:
    with pytest.raises(DeviceError, match="mps"):
        device.choose_device("mps")


def test_precisions_that_a_cpu_lacks_are_refused() -> None:
    cpu = torch.device("cpu")
    assert device.choose_precision("auto", cpu) == "fp32"
    assert device.choose_precision("bf16", cpu) == "bf16"
    assert device.choose_precision("fp32", cpu, bf16=True) == "fp32"
    with pytest.raises(UsageError, match="needs a GPU"):
        device.choose_precision("fp16", cpu)
    with pytest.raises(UsageError, match="expected one of"):
        device.choose_precision("int8", cpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_answers_as_the_cpu_does(precision: str) -> None:
    cpu = gathered(SliceRunner(Convolutions(), card(), (2, 2), Options(device="cpu")), stack(2))
    options = Options(device="cuda", precision=precision)  # type: ignore[arg-type]
    gpu = gathered(SliceRunner(Convolutions(), card(), (2, 2), options), stack(2))
    assert np.abs(cpu - gpu).max() < 0.02


def test_a_containers_limit_counts_as_this_machines_memory(tmp_path: object) -> None:
    from pathlib import Path

    root = Path(str(tmp_path))
    assert memory._container(root) is None
    (root / "memory.max").write_text("max\n")
    (root / "memory.current").write_text("10\n")
    assert memory._container(root) is None
    (root / "memory.max").write_text("1000\n")
    assert memory._container(root) == 990
    free = memory.available_memory()
    assert free is None or free > 2**20


def test_never_is_never() -> None:
    assert never() is False


@pytest.mark.parametrize(
    ("processor", "native"),
    [
        ("flags\t: fpu avx512f avx512_bf16 sse", True),
        ("flags : fpu avx512f", False),
        ("Features : fp asimd bf16", True),
    ],
)
def test_a_processor_with_bfloat16_uses_it_where_the_card_allows(
    processor: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.Path, "read_text", lambda self: f"processor : 0\n{processor}\n")
    device.has_native_bf16.cache_clear()
    try:
        cpu = torch.device("cpu")
        assert device.choose_precision("auto", cpu, bf16=True) == ("bf16" if native else "fp32")
        assert device.choose_precision("auto", cpu, bf16=False) == "fp32"
        runner = SliceRunner(Convolutions(), card(bf16=True), (2, 2), Options(device="cpu"))
        assert runner.precision == ("bf16" if native else "fp32")
    finally:
        device.has_native_bf16.cache_clear()


@pytest.mark.parametrize("name", [entry.card.id for entry in list_models() if entry.card.requirements.bf16])
def test_bfloat16_costs_the_shipped_models_less_than_a_hundredth_of_a_decibel(name: str, data_folder: Path) -> None:
    """What their cards say, on the middle of a real scan."""
    scan, entry = read_volume(data_folder / "val" / "multicontrast" / "openms-26_T1w.nii.gz"), find_model(name)
    if entry.card.requirements.input_size and not device.has_native_bf16():
        pytest.skip("this processor has no bfloat16: minutes for slices of one exact size")
    side = 64 if entry.card.plane == "in-plane" else 24  # through plane it sees so many slices in either direction
    scan = scan.crop((36, 54, 32), (side, side, 64))
    way = "kspace" if entry.card.plane == "in-plane" else "through-gaussian"
    pair = evaluation.degraded_pair(scan, entry.card.plane, entry.card.factor or 2, way, slices=8)
    scores = []
    for precision in ("fp32", "bf16"):
        options = Options(device="cpu", precision=precision, slice_axis=pair.axis)  # type: ignore[arg-type]
        answer = super_resolve(
            pair.low, entry, spacing=pair.truth.grid.spacing, plane=pair.plane, options=options, warn=lambda *w: None
        )
        scores.append(evaluation.score(pair, answer, name).metrics["psnr"])
    assert abs(scores[1] - scores[0]) < 0.01


def test_waiting_threads_sleep_in_the_shell_and_the_worker() -> None:
    """Set before torch is imported, which reads it once; what the user set stays."""
    code = (
        "import os, sys; from MRSuperResLib import cli; cli.main(['models', 'show', 'linear']);"
        "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    for chosen, expected in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | chosen
        made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert made.stdout.split()[-2:] == ["False", expected]


@pytest.mark.parametrize("zoom", [1, 2, 3])
def test_neighbouring_tiles_are_cross_faded_along_a_straight_ramp(zoom: int) -> None:
    """From the halo of one tile over 8 input pixels to that of the other, measured at the middles of output pixels."""
    halo, ramp, tile, step = 4, 8, 24, 8
    tiles = axis_tiles(5 * step, tile, halo, zoom)
    assert tiles.starts == (0, 8, 16)
    middles = (np.arange(tile * zoom) + 0.5) / zoom
    rising = np.interp(middles, [halo, halo + ramp], [0.0, 1.0])
    falling = np.interp(middles, [tile - halo - ramp, tile - halo], [1.0, 0.0])
    for weights, expected in zip(tiles.weights.numpy(), (falling, rising * falling, rising), strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_tiles_that_disagree_leave_no_edge() -> None:
    """Two tiles that answer 0 and 1 are joined by a slope and not by a step."""
    answers = iter([0.0, 1.0])
    tiled = run_tiled(
        lambda x: torch.full_like(x, next(answers)), torch.zeros(1, 1, 24, 32), tile=24, halo=4, zoom=(1, 1)
    )
    row = tiled[0, 0, 0].numpy()
    assert row[0] == 0 and row[-1] == 1 and np.abs(np.diff(row)).max() == pytest.approx(1 / 8, abs=1e-6)
