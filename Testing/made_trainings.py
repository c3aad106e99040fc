"""Tiny recipes, and made-up heads to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MRSuperResLib.training.pack import pack

RECIPE = """
method = "supervised"
architecture = "rdst"
[network]
blocks = 1
width = 12
growth = 6
factors = [2, 2]
skip = "bicubic"
[optimisation]
learning_rate = 2e-3
batch = 2
[data]
patch = 8
sources = [{ match = "isotropic/*" }, { match = "labels/*", weight = 0.5 }]
[data.degradation]
kinds = { gaussian = 1.0, kspace = 1.0 }
[validation]
every_minutes = 1000
scans = ["isotropic/*"]
[card]
id = "tiny"
title = "Tiny"
version = "1"
task = "super-resolve"
plane = "in-plane"
factors = [2, 2]
contrasts = ["T1w"]
spacing = { in_plane = [0.5, 5.0], through_plane = [0.5, 5.0] }
licence = "Apache-2.0"
intended_use = "Tests. Research use only."
"""
ADVERSARIAL = f"""{RECIPE.replace("supervised", "adversarial")}
[loss]
l1 = 1.0
gan = 0.01
[adversarial]
widths = [4, 6]
scales = 1
"""
GUIDED = f"""{RECIPE}
reference_contrasts = ["T2w"]
[guidance]
missing = 0.7
"""
for _old, _new in {
    '"supervised"': '"guided"',
    '"rdst"': '"fasr"',
    "blocks = 1\nwidth = 12\ngrowth = 6": 'size = "s"\nwidths = [4, 4, 4]\nstages = 1\nembedding = 4',
    '{ match = "isotropic/*" }, ': "",
    '"super-resolve"': '"reference-guided"',
}.items():
    GUIDED = GUIDED.replace(_old, _new)
RECIPES = {"supervised": RECIPE, "adversarial": ADVERSARIAL, "guided": GUIDED}

CARD = """
title = "Tiny"
version = "1"
plane = "any"
contrasts = ["T1w", "T2w"]
spacing = { in_plane = [0.5, 5.0], through_plane = [0.5, 5.0] }
licence = "Apache-2.0"
intended_use = "Tests. Research use only."
"""
TRANSLATE = f"""
method = "translation"
architecture = "translation"
[network]
widths = [6, 8]
latent = 3
contrasts = ["T1w", "T2w"]
[optimisation]
learning_rate = 4e-3
batch = 4
clip = 0.5
steps = 60
[loss]
l1 = 20.0
gan = 1.0
latent = 0.5
kl = 0.01
anchor = 10.0
spread = 5.0
[adversarial]
pretraining = 0.5
widths = [4, 6]
encoder = [4, 6]
[data]
patch = 32
sources = [{{ match = "pairs/*", planes = "axial" }}]
[card]
id = "tiny-mt"
task = "translate"
target_contrasts = ["T1w", "T2w"]
factors = [1, 1]
requirements = {{ smallest = 8, multiple_of = 4, halo = 8, latent = 3 }}
{CARD}
"""
ENLARGE = f"""
method = "adversarial"
architecture = "rrdb"
[network]
blocks = 1
width = 8
growth = 4
factors = [2, 2]
skip = "bicubic"
[optimisation]
learning_rate = 2e-3
batch = 2
steps = 50
[loss]
l1 = 1.0
gan = 0.01
[adversarial]
pretraining = 0.5
widths = [4, 6]
scales = 1
[data]
patch = 12
sources = [{{ match = "pairs/*", planes = "axial" }}]
[data.degradation]
kinds = {{ bicubic = 1.0 }}
[card]
id = "tiny-sr"
task = "super-resolve"
factors = [2, 2]
{CARD.replace('"any"', '"in-plane"')}
"""


def two_contrasts(folder: Path) -> Path:
    """Two contrasts of one smooth head, whose T2w is 1 - T1w inside it, and a label map, in train/ and val/, with recipes."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in (20, 44, 48)), indexing="ij")
    head = ((k - 10) / 9) ** 2 + ((j - 22) / 20) ** 2 + ((i - 24) / 22) ** 2 < 1
    inside = 0.5 + 0.4 * np.sin(k / 3.0 + j / 4.0) * np.cos(i / 3.0)
    labels = head.astype(np.int16) * np.where(inside > 0.6, 2, np.where(inside > 0.4, 3, 4)).astype(np.int16)
    volumes = {"pairs/one_T1w": head * inside, "pairs/one_T2w": head * (1 - inside), "labels/one": labels}
    for part in ("train", "val"):
        for name, array in volumes.items():
            image = sitk.GetImageFromArray(array if name.startswith("labels") else (1000 * array).astype(np.float32))
            path = folder / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))
        pack(folder / part, folder / f"{part}.pack")
    (folder / "translate.toml").write_text(TRANSLATE)
    (folder / "enlarge.toml").write_text(ENLARGE)
    return folder


def one_contrast(folder: Path) -> Path:
    """One smooth textured volume and one label map, in train/ and val/, with the recipe tiny.toml."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in (40, 44, 48)), indexing="ij")
    head = ((k - 20) / 18) ** 2 + ((j - 22) / 20) ** 2 + ((i - 24) / 22) ** 2 < 1
    image = head * (600 + 300 * np.sin(k / 3.0) * np.cos(j / 2.5) + 100 * np.sin(i / 2.0))
    labels = head.astype(np.int16) * (1 + (np.sin(k / 4.0) * np.cos(j / 3.0) * np.cos(i / 3.5) > 0))
    for part in ("train", "val"):
        for name, array in (("isotropic/phantom_T1w", image.astype(np.float32)), ("labels/phantom", labels)):
            written = sitk.GetImageFromArray(array)
            written.SetSpacing((1.0, 1.0, 1.0))
            path = folder / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(written, str(path))
    (folder / "tiny.toml").write_text(RECIPE)
    return folder
