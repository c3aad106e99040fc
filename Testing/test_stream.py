"""Training batches made on the device: acquisitions agree with the library's operators, and a resumed stream is the same stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MRSuperResLib.acquisition import kspace_crop, slice_profile
from MRSuperResLib.errors import UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.training.data.coarsen import mirrored_kspace_crop
from MRSuperResLib.training.data.crops import SourceSpec
from MRSuperResLib.training.pack import pack
from MRSuperResLib.training.streams import degradation
from MRSuperResLib.training.streams.degradation import Draw, KSpaceSpec, ScannerSpec, SliceSpec
from MRSuperResLib.training.streams.stream import DeviceStream, StreamAugmentation, StreamSpec
from MRSuperResLib.volume import Volume

IDEAL = KSpaceSpec(apodised=0, partial=0, elliptical=0, zero_filled=0, magnitude=0)
STILL = SliceSpec(thickness=(0.8, 0.8), motion_probability=0, steps_probability=0)


def draw(count: int = 2) -> Draw:
    return Draw(torch.Generator().manual_seed(3), count)


@pytest.mark.parametrize("factors", [(4, 4), (2, 2), (4, 1), (2, 4)])
@pytest.mark.parametrize("size", [48, 56])
def test_an_ideal_scanner_truncates_k_space_as_the_library_s_operator_does(factors: tuple[int, int], size: int) -> None:
    high = torch.rand(2, size, size, generator=torch.Generator().manual_seed(1))
    low = degradation.kspace_acquired(high, factors, IDEAL, torch.zeros(2), draw())
    expected = high.numpy().astype(float)
    for axis, factor in enumerate(factors):
        if factor > 1:
            expected = kspace_crop(size, factor).apply(expected, axis + 1)
    np.testing.assert_allclose(low.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("profile", ["gaussian", "box", "sinc"])
def test_slices_have_the_library_s_profiles(profile: str) -> None:
    high = torch.rand(2, 32, 20, generator=torch.Generator().manual_seed(1))
    low = degradation.profiled(high, (4, 1), profile, STILL, torch.zeros(2), draw())
    expected = slice_profile(32, 4, profile, 0.8).apply(high.numpy().astype(float), 1)
    np.testing.assert_allclose(low.abs().numpy(), np.abs(expected), atol=2e-4)


def test_an_image_that_ends_inside_the_head_does_not_ring_at_its_edges() -> None:
    ramp = (0.2 + 0.6 * torch.arange(64) / 63)[None, :, None].expand(1, 64, 64).contiguous()
    assert bool(degradation.cut_through(ramp)) and not bool(degradation.cut_through(torch.zeros(1, 8, 8)))
    low = degradation.kspace_acquired(ramp, (4, 4), IDEAL, torch.zeros(1), draw(1), mirrored=True)
    expected = 0.2 + 0.6 * (torch.arange(16) * 4 + 1.5) / 63
    assert float((low[0, :, 5] - expected).abs().max()) < 0.015
    periodic = degradation.kspace_acquired(ramp, (4, 4), IDEAL, torch.zeros(1), draw(1))
    assert float((periodic[0, :, 5] - expected).abs().max()) > 0.03


def test_a_slice_that_moved_has_moved_as_a_whole() -> None:
    """Whatever its neighbours, which the profile mixes in, did."""
    place = torch.arange(48) - 23.5
    high = torch.exp(-0.5 * (place / 4) ** 2)[None, None, :].expand(1, 32, 48).contiguous()
    shift = torch.tensor([[0.3, -0.3] * 4])
    low = degradation.displaced(high[:, :8], shift)
    centres = (low * place).sum(2) / low.sum(2)
    np.testing.assert_allclose(centres.abs().numpy(), 0.3, atol=0.02)


def test_noise_in_k_space_has_the_asked_strength_in_the_image() -> None:
    high = torch.zeros(1, 256, 256)
    low = degradation.kspace_acquired(high, (4, 4), IDEAL, torch.full((1,), 0.02), draw(1))
    assert float(low.std()) == pytest.approx(0.02, rel=0.05)


def test_a_scan_that_had_been_interpolated_is_smooth_in_truth_and_input_alike() -> None:
    high = torch.nn.functional.pad(torch.rand(8, 48, 48, generator=torch.Generator().manual_seed(1)), (8, 8, 8, 8))
    spec = ScannerSpec({"kspace": 1.0}, noise_probability=0, band_limited=1.0, band=(0.4, 0.4), kspace=IDEAL)
    low, truth = degradation.degrade(high, (2, 2), spec, np.random.default_rng(4), torch.Generator().manual_seed(4))
    power = torch.fft.fft2(truth).abs()[:, 26:38].mean()  # rows' highest frequencies
    assert power < 0.45 * torch.fft.fft2(high).abs()[:, 26:38].mean()
    expected = degradation.kspace_acquired(truth, (2, 2), IDEAL, torch.zeros(8), draw(8))
    np.testing.assert_allclose(low.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("apodisation", [0.0, 1.0])
def test_a_crop_s_k_space_is_cut_as_the_whole_image_s_but_for_its_edges(apodisation: float) -> None:
    place = np.arange(96)
    whole = np.exp(-0.5 * ((place - 47.5) / 6) ** 2) + 0.2 * np.cos(place / 3) * np.exp(
        -0.5 * ((place - 47.5) / 14) ** 2
    )
    mirrored = mirrored_kspace_crop(96, 4, apodisation).apply(whole, 0)
    np.testing.assert_allclose(mirrored, kspace_crop(96, 4, apodisation).apply(whole, 0), atol=0.02)
    ramp = mirrored_kspace_crop(96, 4, 0.0).apply(place / 95, 0)
    assert np.abs(ramp - (np.arange(24) * 4 + 1.5) / 95).max() < 0.02, "a ramp's edges ring"


def test_an_unknown_degradation_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="kspice"):
        ScannerSpec({"kspice": 1.0})


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("volumes")
    random = np.random.default_rng(0)
    (folder / "labels").mkdir()
    for name, size in (("a_T1w", (40, 50, 60)), ("b_T2w", (90, 30, 44))):
        values = np.pad(random.random(tuple(n - 8 for n in size)), 4).astype(np.float32) * 700
        write_volume(Volume(values, Grid(size[::-1], (1.0, 1.0, 1.0))), folder / f"{name}.nii.gz")
    labels = np.kron(random.integers(0, 5, (10, 12, 11)), np.ones((4, 4, 4))).astype(np.float32)
    write_volume(Volume(labels, Grid(labels.shape[::-1], (1.0, 1.0, 1.0))), folder / "labels" / "c.nii.gz")
    return pack(folder, Path(folder / "train.pack"))


SOURCES = (SourceSpec("?_T*"), SourceSpec("labels/*"))


def stream(
    packed: object,
    sources: tuple[SourceSpec, ...] = SOURCES,
    augmentation: StreamAugmentation | None = None,
    **changes: object,
) -> DeviceStream:
    settings: dict[str, object] = {"matrix": 64, "patch": (12, 12), "crops": 2}
    seeds = {name: changes.pop(name) for name in ("seed", "start") if name in changes}
    scanner = ScannerSpec({"kspace": 1.0, "gaussian": 1.0, "second-order": 1.0})
    spec = StreamSpec(sources, scanner, augmentation=augmentation or StreamAugmentation(), **{**settings, **changes})  # type: ignore[arg-type]
    return DeviceStream(packed, spec, (4, 4), 4, **seeds)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_resumed_stream_goes_on_where_it_was(packed: object, at_once: int) -> None:
    drawn = iter(stream(packed, at_once=at_once, seed=7))
    batches = [next(drawn) for _ in range(4)]
    resumed = next(iter(stream(packed, at_once=at_once, seed=7, start=12)))
    assert batches[0][0].shape == (4, 1, 12, 12) and batches[0][1].shape == (4, 1, 48, 48)
    for got, expected in zip(resumed, batches[3], strict=True):
        assert torch.equal(got, expected)
    assert not torch.equal(batches[0][1], batches[1][1])


def test_an_unaltered_slice_is_the_volume_s(packed: object) -> None:
    still = StreamAugmentation(flip=False, gamma=(1, 1), curve_probability=0, zoom_probability=0, bias=0)
    drawn = stream(packed, (SourceSpec("a_T1w", "axial"),), still, matrix=60)
    found = drawn.shelf.slices(3, drawn.spec, np.random.default_rng(5), torch.Generator().manual_seed(2))
    entry = packed.select("a_T1w")[0]  # type: ignore[attr-defined]
    volume = packed.unit(entry, packed.stored(entry))  # type: ignore[attr-defined]
    for image in found.numpy():
        total = image.sum()
        sums = volume.clip(0).sum(axis=(1, 2))
        assert np.min(np.abs(sums - total)) < 0.01 * total, "no slice has this content"


def test_a_source_without_volumes_is_named(packed: object) -> None:
    with pytest.raises(UsageError, match="nobody"):
        stream(packed, (SourceSpec("nobody*"),))


@pytest.mark.parametrize("changes, words", [({"matrix": 63}, "matrix is 63"), ({"crops": 3}, "multiple of 3")])
def test_sizes_that_do_not_divide_are_refused(packed: object, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stream(packed, **changes)
