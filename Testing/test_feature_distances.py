"""Distances by features: LPIPS is its published formula, ours is that without learned weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from MRSuperResLib.errors import MissingRequirement, ModelError
from MRSuperResLib.evaluation.feature_distances import CHANNELS, CONVOLUTIONS, LPIPS, feature_distance, read_lpips


def _numpy_distance(maps_a: list[Tensor], maps_b: list[Tensor], weights: list[np.ndarray] | None) -> float:
    """The formula of LPIPS written out: sum over maps of the mean over places of weighted squared unit differences."""
    total = []
    for number, (one, other) in enumerate(zip(maps_a, maps_b, strict=True)):
        x, y = (m.double().numpy() for m in (one, other))
        x, y = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-10) for m in (x, y))
        each = (x - y) ** 2
        if weights is not None:
            each = each * weights[number][None, :, None, None]
        total.append(each.sum(axis=1).mean())
    return float(np.sum(total) if weights is not None else np.mean(total))


def test_the_feature_distance_is_its_formula_and_zero_for_equal_images() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 3, stride=2)

    def extractor(x: Tensor) -> list[Tensor]:
        return [torch.relu(first(x)), second(torch.relu(first(x)))]

    a, b = np.random.default_rng(0).random((2, 9, 20, 24)).astype(np.float32)
    assert feature_distance(extractor, a, a) == 0.0
    with torch.no_grad():
        expected = _numpy_distance(*(extractor(torch.from_numpy(s)[:, None]) for s in (a, b)), weights=None)
    assert feature_distance(extractor, a, b) == pytest.approx(expected, rel=1e-4)
    assert feature_distance(lambda x: x, a, 3 * a) == pytest.approx(0, abs=1e-8), (
        "a single map, and contrast does not count"
    )
    assert torch.is_grad_enabled()


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Random weights in the layout of VGG-16 and LPIPS."""
    torch.manual_seed(0)
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    weights = {}
    for number, before, after in zip(CONVOLUTIONS, channels, channels[1:], strict=False):
        weights[f"features.{number}.weight"] = torch.randn(after, before, 3, 3) * (2 / (9 * before)) ** 0.5
        weights[f"features.{number}.bias"] = 0.1 * torch.randn(after)
    weights |= {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate(CHANNELS)}
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file({name: value.half() for name, value in weights.items()}, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_lpips_is_its_published_formula_on_vgg_16(lpips_file: tuple[Path, str]) -> None:
    """Against VGG-16 built layer by layer from its configuration ("D" of Simonyan and Zisserman), relu1_2 to relu5_3."""
    weights = read_lpips(*lpips_file)
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        assert isinstance(width, int)
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    vgg = nn.Sequential(*layers)
    vgg.load_state_dict(
        {k.removeprefix("features."): v.float() for k, v in weights.items() if k.startswith("features")}
    )

    def features(image: Tensor) -> list[Tensor]:
        colours = (
            2 * image.expand(-1, 3, -1, -1) - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        ) / torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        found = []
        for number, layer in enumerate(vgg):
            colours = layer(colours)
            if number in (3, 8, 15, 22, 29):
                found.append(colours)
        return found

    a, b = np.random.default_rng(0).random((2, 2, 32, 34)).astype(np.float32)
    linear = [weights[f"lin{n}.model.1.weight"].double().numpy().ravel() for n in range(5)]
    with torch.no_grad():
        expected = _numpy_distance(*(features(torch.from_numpy(s)[:, None]) for s in (a, b)), weights=linear)
    distance = LPIPS(weights).distance
    assert distance(a, b) == pytest.approx(expected, rel=1e-3)
    assert distance(a, a) == 0.0
    assert distance(a - 5, np.zeros_like(a)) == 0.0, "what lies beyond the unit scale is clipped"


def test_a_wrong_or_missing_lpips_file_is_one_line(lpips_file: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = lpips_file
    with pytest.raises(MissingRequirement, match="put LPIPS' weights there") as missing:
        read_lpips(tmp_path / "none.safetensors", digest)
    assert missing.value.code == "no-lpips"
    for wrong in ("", "0" * 64):
        with pytest.raises(ModelError, match=f"has the SHA-256 {digest}"):
            read_lpips(path, wrong)
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    with pytest.raises(ModelError, match=r"'lin0\.model\.1\.weight' is missing"):
        read_lpips(other, hashlib.sha256(other.read_bytes()).hexdigest())
    other.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="is no safetensors file"):
        read_lpips(other, hashlib.sha256(b"no tensors").hexdigest())
