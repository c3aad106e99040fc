"""How a scanner sees: the forward models that make training pairs and, later, check results.

Every linear model is separable: one small matrix for each axis it coarsens (`operators`). Noise, bias field and the second-order
degradation are random or not linear, and follow as functions.
"""

from __future__ import annotations

from .degradation import PRESETS, Degradation, acquire, preset
from .interpolation import SEPARABLE, bicubic_interpolation, interpolate, zero_filled
from .noise import add_gaussian_noise, add_rician_noise, add_signal_dependent_noise, bias_field
from .operators import (
    GAUSSIAN_SIGMA_PER_FWHM,
    KINDS,
    PROFILES,
    Acquisition,
    AxisOperator,
    axis_operator,
    bicubic,
    kspace_crop,
    partial_kspace,
    slice_profile,
)
from .second_order import (
    BLURS,
    NOISES,
    SECOND_ORDER,
    SecondOrder,
    blur_kernel,
    blurred,
    drawn_blur,
    second_order,
)

__all__ = [
    "BLURS",
    "GAUSSIAN_SIGMA_PER_FWHM",
    "KINDS",
    "NOISES",
    "PRESETS",
    "PROFILES",
    "SECOND_ORDER",
    "SEPARABLE",
    "Acquisition",
    "AxisOperator",
    "Degradation",
    "SecondOrder",
    "acquire",
    "add_gaussian_noise",
    "add_rician_noise",
    "add_signal_dependent_noise",
    "axis_operator",
    "bias_field",
    "bicubic",
    "bicubic_interpolation",
    "blur_kernel",
    "blurred",
    "drawn_blur",
    "interpolate",
    "kspace_crop",
    "partial_kspace",
    "preset",
    "second_order",
    "slice_profile",
    "zero_filled",
]
