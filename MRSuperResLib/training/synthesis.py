"""MR slices of a contrast nobody has seen, made from label maps: tissues get random intensities (after SynthSeg and SynthSR).

Everything happens on a 2D crop of labels, so a training step costs milliseconds: deformation, one Gaussian intensity a label,
partial volume, texture, bias. Degradation to the coarse grid is the acquisition models' work, not this module's.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..acquisition import bias_field

DEFORMATION_KNOTS = 5
MAX_DISPLACEMENT = 3.0  # pixels at a knot
MAX_ROTATION = np.deg2rad(15)
MAX_LOG_ZOOM = 0.2
BACKGROUND = 0


def random_contrast(labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each label's intensity, each (labels,), on the networks' scale.

    The background is dark most of the time, as in MR.
    """
    means = rng.uniform(0.05, 1.0, labels).astype(np.float32)
    deviations = (rng.uniform(0.0, 0.06) * rng.uniform(0.3, 1.0, labels)).astype(np.float32)
    if rng.random() < 0.9:
        means[BACKGROUND], deviations[BACKGROUND] = rng.uniform(0.0, 0.05), rng.uniform(0.0, 0.01)
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
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    blur = rng.uniform(0.35, 0.8)  # pixels: partial volume at tissue borders
    images = []
    for _ in range(contrasts):
        means, deviations = random_contrast(len(values), rng)
        if values[0] != BACKGROUND:
            means[0] = rng.uniform(0.05, 1.0)
        texture = ndimage.gaussian_filter(rng.standard_normal(labels.shape, dtype=np.float32), rng.uniform(0.0, 1.0))
        image = means[index] + deviations[index] * texture
        image = ndimage.gaussian_filter(image, blur) * bias_field(labels.shape, rng.uniform(0.0, 0.3), rng)
        images.append(np.maximum(image, 0.0).astype(np.float32))
    return tuple(images)
