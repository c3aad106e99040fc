"""The networks that learned to tell tissues apart: trained from label maps, loaded where VGG-19 is not to be had."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import monai.losses
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file

from MRSuperResLib.losses.tissue import (
    at_full_resolution,
    extractor_file,
    extractor_weights,
    new_extractor,
    tissue_features,
)
from MRSuperResLib.networks.fasr import SIZES, TextureExtractor
from MRSuperResLib.training.data.crops import SourceSpec
from MRSuperResLib.training.data.synthesis import TISSUES
from MRSuperResLib.training.fit import fit
from MRSuperResLib.training.methods import tissue
from MRSuperResLib.training.pack import pack

STRIDE = 7  # of the pixels looked at


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ with one label map of nested ellipsoids: skin, fluid, grey, white."""
    folder = tmp_path_factory.mktemp("labels")
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 150, 140)), indexing="ij")
    radius = np.sqrt(k**2 + j**2 + i**2)
    label = np.select([radius < 0.5, radius < 0.7, radius < 0.8, radius < 0.95], [2, 3, 24, 507], 0)
    for part in ("train", "val"):
        (folder / part / "labels").mkdir(parents=True)
        image = sitk.GetImageFromArray(label.astype(np.uint16))
        sitk.WriteImage(image, str(folder / part / "labels" / "head.nii.gz"))
    return folder


@pytest.mark.parametrize("size", ["unet", "s"])
def test_a_training_moves_the_weights_that_its_file_holds(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    """Small images, and a loss that falls; the file fits where the weights are to go, without a head and in fp16."""
    monkeypatch.setattr(tissue, "HELD_OUT", 4)
    losses: list[float] = []
    rule = monai.losses.DiceCELoss

    class Watched(rule):  # type: ignore[misc,valid-type]
        def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
            losses.append(float((found := super().forward(*arguments)).detach()))
            return found

    monkeypatch.setattr(monai.losses, "DiceCELoss", Watched)
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f'method = "tissue"\nnetwork = {{ size = "{size}" }}\ndata = {{ patch = 32 }}\n'
        "optimisation = { batch = 4, learning_rate = 1e-3, steps = 12, ema = 0.0 }"
    )
    said: list[str] = []
    out = fit(recipe, labels, tmp_path / "out", minutes=5, device="cpu", report=said.append)
    (scores,) = [line for line in said if "held out" in line]
    assert all(name in scores for name in TISSUES)
    assert len(losses) > 4 and np.mean(losses[-3:]) < losses[0]
    learned = load_file(out)
    assert {value.dtype for value in learned.values()} == {torch.float16}
    if size == "unet":
        assert len(tissue_features(out).levels) == 3
    else:
        new_extractor(size).load_state_dict(learned)


@pytest.mark.parametrize("size", SIZES)
def test_an_extractor_of_either_size_has_its_weights(size: str) -> None:
    extractor = new_extractor(size)
    learned = extractor_weights(extractor)
    assert learned is not None and learned.keys() == extractor.state_dict().keys()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in learned.values())
    assert extractor_file(size).stat().st_size < 3e6


def test_an_extractor_of_another_shape_has_none() -> None:
    assert extractor_weights(TextureExtractor((8, 16, 32), 1)) is None


@pytest.mark.parametrize("size", SIZES)
def test_its_features_tell_tissues_of_an_unknown_head(size: str, data_folder: Path, tmp_path: Path) -> None:
    """Better than random weights: by ridge regression on the features of half of the images, for the pixels of the other half."""
    images = tissue.TissueImages(
        pack(data_folder / "val", tmp_path / "val.pack"), (SourceSpec("labels/*"),), 128, seed=2
    )
    drawn = list(islice(images, 24))
    known = torch.stack([tissues.flatten()[::STRIDE] for _, tissues in drawn])
    right = {}
    for name, weights in (("random", None), ("learned", extractor_weights(new_extractor(size)))):
        torch.manual_seed(0)
        extractor = new_extractor(size).eval()
        if weights:
            extractor.load_state_dict(weights)
        with torch.inference_mode():
            features = torch.stack(
                [at_full_resolution(extractor(image[None]))[0].flatten(1).T[::STRIDE] for image, _ in drawn]
            )
        features = features.double().flatten(0, 1)
        first = len(features) // 2
        features = (features - features[:first].mean(0)) / (features[:first].std(0) + 1e-6)
        features = torch.cat((features, torch.ones(len(features), 1)), 1)
        seen, unseen = features[:first], features[first:]
        wanted = torch.nn.functional.one_hot(known.flatten()[:first], len(TISSUES)).double()
        weight = torch.linalg.solve(seen.T @ seen + first * torch.eye(seen.shape[1]), seen.T @ wanted)
        right[name] = float(((unseen @ weight).argmax(1) == known.flatten()[first:]).double().mean())
    assert right["learned"] > right["random"] + 0.03, right
