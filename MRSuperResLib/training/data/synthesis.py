"""MR slices of a random contrast, made from label maps: every tissue gets a random intensity (after SynthSeg and SynthSR).

Everything happens on a 2D crop of labels, so a training step costs milliseconds: deformation, one Gaussian intensity a label,
partial volume, texture, bias. Degradation to the coarse grid is the acquisition models' work, not this module's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ...acquisition import bias_field

DEFORMATION_KNOTS = 5
MAX_DISPLACEMENT = 3.0  # pixels at a knot
MAX_ROTATION = np.deg2rad(15)
MAX_LOG_ZOOM = 0.2
BACKGROUND = 0

# FreeSurfer's numbers, and those that SynthSeg's maps add for what lies outside the brain
WHITE = (2, 7, 16, 28, 41, 46, 60, 85)
GREY = (3, 8, 10, 11, 12, 13, 17, 18, 26, 42, 47, 49, 50, 51, 52, 53, 54, 58)
FLUID = (4, 5, 14, 15, 24, 30, 31, 43, 44, 62, 72)
TISSUES = ("background", "other", "fluid", "grey", "white")
# Mean on the networks' scale, as seen in adult scans at 1.5 and 3 T: (fluid, grey, white); what else is in the head is drawn freely
LEVELS = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54), "PDw": (0.75, 0.70, 0.58)}
LEVEL_SPREAD = 0.06


def random_contrast(labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each label's intensity, each (labels,), on the networks' scale.

    The background is dark most of the time, as in MR.
    """
    means = rng.uniform(0.05, 1.0, labels).astype(np.float32)
    deviations = (rng.uniform(0.0, 0.06) * rng.uniform(0.3, 1.0, labels)).astype(np.float32)
    if rng.random() < 0.9:
        means[BACKGROUND], deviations[BACKGROUND] = rng.uniform(0.0, 0.05), rng.uniform(0.0, 0.01)
    return means, deviations


def tissue_of(labels: np.ndarray) -> np.ndarray:
    """Indices into `TISSUES` for FreeSurfer-style `labels`, any shape."""
    table = np.full(int(labels.max(initial=0)) + 1, TISSUES.index("other"), dtype=np.uint8)
    table[BACKGROUND] = TISSUES.index("background")
    for name, numbers in (("fluid", FLUID), ("grey", GREY), ("white", WHITE)):
        table[[number for number in numbers if number < len(table)]] = TISSUES.index(name)
    return table[labels]


def known_contrast(values: np.ndarray, contrast: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As `random_contrast` for the labels `values`, with the levels that tissues have in `contrast`, one of `LEVELS`."""
    means, deviations = random_contrast(len(values), rng)
    fluid, grey, white = (level + LEVEL_SPREAD * rng.standard_normal() for level in LEVELS[contrast])
    levels = dict(zip(TISSUES[2:], (fluid, grey, white), strict=True))
    for number, tissue in enumerate(tissue_of(values)):
        if TISSUES[tissue] in levels:
            means[number] = max(0.0, levels[TISSUES[tissue]] + 0.02 * rng.standard_normal())
    return means, deviations


def deformed(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`labels` (H, W) under a random rotation, zoom and smooth displacement, nearest neighbour."""
    height, width = labels.shape
    centre = (np.array(labels.shape) - 1) / 2
    angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
    zoom = np.exp(rng.uniform(-MAX_LOG_ZOOM, MAX_LOG_ZOOM))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float32)
    coordinates = np.tensordot(matrix, grid - centre[:, None, None], axes=1) + centre[:, None, None]
    knots = np.meshgrid(
        np.linspace(0, DEFORMATION_KNOTS - 1, height), np.linspace(0, DEFORMATION_KNOTS - 1, width), indexing="ij"
    )
    for axis in (0, 1):
        shift = rng.uniform(-MAX_DISPLACEMENT, MAX_DISPLACEMENT, (DEFORMATION_KNOTS, DEFORMATION_KNOTS))
        coordinates[axis] += ndimage.map_coordinates(shift, knots, order=3, mode="nearest")
    return ndimage.map_coordinates(labels, coordinates, order=0, mode="nearest")


def synthesise(
    labels: np.ndarray, rng: np.random.Generator, contrasts: int = 1, *, deform: bool = True
) -> tuple[np.ndarray, ...]:
    """`contrasts` registered images (H, W), float32, of one random anatomy made from `labels` (H, W), integers.

    Several contrasts share anatomy, deformation, and partial volume, as several sequences of one visit do.
    """
    if deform:
        labels = deformed(labels, rng)
    values, index, blur = _anatomy(labels, rng)
    images = []
    for _ in range(contrasts):
        means, deviations = random_contrast(len(values), rng)
        if values[0] != BACKGROUND:
            means[0] = rng.uniform(0.05, 1.0)
        images.append(_image(index, means, deviations, blur, rng))
    return tuple(images)


def synthesise_contrasts(
    labels: np.ndarray, names: Sequence[str], rng: np.random.Generator, *, deform: bool = True
) -> list[np.ndarray]:
    """One registered image (H, W) for each contrast in `names`, of one random anatomy made from `labels`; see `LEVELS`."""
    values, index, blur = _anatomy(deformed(labels, rng) if deform else labels, rng)
    images = []
    for name in names:
        means, deviations = known_contrast(values, name, rng)
        images.append(_image(index, means, deviations, blur, rng))
    return images


def _anatomy(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """The labels there are, the number of each pixel's among them, and the blur of tissue borders in pixels."""
    values, index = np.unique(labels, return_inverse=True)
    return values, index.reshape(labels.shape), rng.uniform(0.35, 0.8)


def _image(
    index: np.ndarray, means: np.ndarray, deviations: np.ndarray, blur: float, rng: np.random.Generator
) -> np.ndarray:
    """Tissues of the given intensities with texture, partial volume and a bias field."""
    texture = ndimage.gaussian_filter(rng.standard_normal(index.shape, dtype=np.float32), rng.uniform(0.0, 1.0))
    image = means[index] + deviations[index] * texture
    image = ndimage.gaussian_filter(image, blur) * bias_field(index.shape, rng.uniform(0.0, 0.3), rng)
    return np.maximum(image, 0.0).astype(np.float32)
