"""Brightness of tissues from their relaxation times and the sequence: what a pair of contrasts can physically look like.

A material is an array (..., 4): T1 and T2 in ms, proton density (water is 1), and the dephasing rate R2' in 1/ms that gradient
echoes see on top of T2. Times at 1.5 and 3 T after Wansapura et al. 1999, Stanisz et al. 2005, de Bazelaire et al. 2004, Rooney
et al. 2007; densities after Tofts 2003. Signals are magnitudes, without a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

FIELDS = (1.5, 3.0)  # tesla
MATERIALS: dict[
    str, tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
] = {  # at 1.5 T, at 3 T
    "air": ((1000, 1, 0.0, 0.0), (1000, 1, 0.0, 0.0)),
    "fluid": ((4200, 1800, 1.0, 0.0002), (4300, 1600, 1.0, 0.0005)),
    "grey": ((1120, 96, 0.82, 0.004), (1380, 95, 0.82, 0.006)),
    "white": ((720, 78, 0.70, 0.004), (880, 73, 0.70, 0.007)),
    "deep grey": ((920, 82, 0.78, 0.007), (1130, 74, 0.78, 0.012)),
    "fat": ((300, 110, 0.92, 0.010), (370, 100, 0.92, 0.015)),
    "muscle": ((1000, 44, 0.78, 0.006), (1350, 38, 0.78, 0.010)),
    "skin": ((850, 50, 0.70, 0.008), (1050, 45, 0.70, 0.012)),
    "bone": ((450, 8, 0.15, 0.05), (500, 7, 0.15, 0.08)),
    "marrow": ((380, 80, 0.60, 0.020), (450, 75, 0.60, 0.030)),
    "blood": ((1500, 200, 0.85, 0.010), (1800, 150, 0.85, 0.015)),
}
TISSUES = ("fluid", "grey", "white")  # what a scan's brightness is told by
CSF_T1 = 4250.0  # ms: what FLAIR's inversion time is set to null
MISFIT = 0.05  # on the networks' scale: how far a sequence's tissues may lie from a scan's
FIT_DRAWS = 600
KEPT = 24
BRIGHTEST = 1.3  # on the networks' scale: whoever sets up a scan sees that nothing large is far brighter than the rest
GAINS = (0.55, 0.75, 1.0)  # of a scan against the typical levels
CLUSTERED = 6000  # voxels that are looked at


@dataclass(frozen=True)
class PulseSequence:
    """A pulse sequence. kind: "spin-echo", "inversion" (spin echo after inversion), "spoiled" (gradient echo) or "mprage".

    tr, te, ti: ms. flip: degrees; the latter two where the kind has them.
    """

    kind: str
    tr: float
    te: float
    ti: float = 0.0
    flip: float = 90.0


@dataclass(frozen=True)
class Acquired:
    """How scans of one visit were probably made: field in tesla; by contrast, the sequence and the gain from signal to the
    networks' scale.
    """

    field: float
    sequences: Mapping[str, tuple[PulseSequence, float]]

    def level(self, contrast: str, materials: np.ndarray) -> np.ndarray:
        """Brightness of `materials` (..., 4) on the networks' scale of `contrast`, BRIGHTEST at most."""
        sequence, gain = self.sequences[contrast]
        return np.asarray(np.minimum(gain * signal(sequence, materials), BRIGHTEST))


def material(name: str, field: float) -> np.ndarray:
    """(4,) of a tissue in `MATERIALS` at `field` tesla."""
    return np.array(MATERIALS[name][FIELDS.index(field)], dtype=np.float64)


def varied(materials: np.ndarray, rng: np.random.Generator, spread: float = 0.06) -> np.ndarray:
    """`materials` (..., 4) of another person: times and density times a log-normal factor of that spread, density of a third."""
    factors = np.exp(rng.standard_normal(materials.shape) * (spread, spread, spread / 3, spread))
    result = materials * factors
    result[..., 2] = np.minimum(result[..., 2], 1.0)
    return result


def signal(sequence: PulseSequence, materials: np.ndarray) -> np.ndarray:
    """Magnitude of `materials` (..., 4) -> (...): the steady state of `sequence`, perfectly spoiled and inverted."""
    t1, t2, density, dephasing = np.moveaxis(np.asarray(materials, dtype=np.float64), -1, 0)
    recovery = np.exp(-sequence.tr / t1)
    if sequence.kind == "spin-echo":
        return density * (1 - recovery) * np.exp(-sequence.te / t2)
    if sequence.kind == "inversion":
        return density * np.abs(1 - 2 * np.exp(-sequence.ti / t1) + recovery) * np.exp(-sequence.te / t2)
    decay = np.exp(-sequence.te * (1 / t2 + dephasing))
    if sequence.kind == "spoiled":
        flip = np.deg2rad(sequence.flip)
        return density * np.sin(flip) * (1 - recovery) / (1 - np.cos(flip) * recovery) * decay
    if sequence.kind == "mprage":  # magnetisation at the centre of k-space, the read-out's own saturation neglected
        return density * np.abs(1 - 2 * np.exp(-sequence.ti / t1) / (1 + recovery)) * decay
    raise ValueError(f"sequence kind is '{sequence.kind}', expected spin-echo, inversion, spoiled or mprage")


def draw_sequence(contrast: str, field: float, rng: np.random.Generator) -> PulseSequence:
    """A sequence that a clinic would call `contrast` (T1w, T2w, FLAIR, PDw), at `field` tesla."""
    if contrast == "T2w":
        return PulseSequence("spin-echo", rng.uniform(2500, 7500), rng.uniform(70, 130))
    if contrast == "PDw":
        return PulseSequence("spin-echo", rng.uniform(2000, 5000), rng.uniform(8, 35))
    if contrast == "FLAIR":
        tr = rng.uniform(4800, 11000)
        null = CSF_T1 * (np.log(2) - np.log1p(np.exp(-tr / CSF_T1)))  # where 1 - 2 exp(-TI/T1) + exp(-TR/T1) is 0
        return PulseSequence("inversion", tr, rng.uniform(80, 150), null * rng.uniform(0.94, 1.04))
    if contrast != "T1w":
        raise ValueError(f"contrast is '{contrast}', expected T1w, T2w, FLAIR or PDw")
    kind = rng.choice(("mprage", "spoiled", "spin-echo"), p=(0.45, 0.25, 0.3))
    if kind == "mprage":
        earliest = 920 if field > 2 else 850  # after grey matter's null, so that it is brighter than fluid
        return PulseSequence("mprage", rng.uniform(1700, 2500), rng.uniform(2, 4.5), rng.uniform(earliest, 1150), 9.0)
    if kind == "spoiled":
        return PulseSequence("spoiled", rng.uniform(8, 30), rng.uniform(2, 6), flip=rng.uniform(15, 32))
    return PulseSequence("spin-echo", rng.uniform(380, 750), rng.uniform(8, 20))


def acquired_as(
    levels: Mapping[str, Sequence[float] | np.ndarray],
    rng: np.random.Generator,
    draws: int = FIT_DRAWS,
    kept: int = KEPT,
) -> tuple[Acquired, ...]:
    """`kept` ways in which scans with these levels may have been made, the likelier the more often.

    levels: by contrast, the brightness of fluid, grey and white matter on the networks' scale. Sequences, tissues and the field
    are drawn `draws` times each and weighted by how well they explain the levels, up to a gain (approximate Bayesian computation).
    """
    fits: dict[float, dict[str, tuple[list[tuple[PulseSequence, float]], np.ndarray]]] = {}
    evidence = []
    for field in FIELDS:
        tissues = np.stack([material(name, field) for name in TISSUES])  # (3, 4)
        fits[field] = {}
        total = 0.0
        for contrast, wanted in levels.items():
            target = np.asarray(wanted, dtype=np.float64)
            found, misfits = [], np.empty(draws)
            for number in range(draws):
                sequence = draw_sequence(contrast, field, rng)
                signals = signal(sequence, varied(tissues, rng))
                gain = float(signals @ target / max(1e-12, signals @ signals))
                found.append((sequence, gain))
                misfits[number] = np.sqrt(np.mean((gain * signals - target) ** 2))
            weights = np.exp(-0.5 * ((misfits - misfits.min()) / MISFIT) ** 2)
            fits[field][contrast] = (found, weights / weights.sum())
            total += float(np.log(np.mean(np.exp(-0.5 * (misfits / MISFIT) ** 2)) + 1e-30))
        evidence.append(total)
    odds = np.exp(np.array(evidence) - max(evidence))
    ways = []
    for _ in range(kept):
        field = float(rng.choice(FIELDS, p=odds / odds.sum()))
        ways.append(Acquired(field, {name: found[rng.choice(draws, p=p)] for name, (found, p) in fits[field].items()}))
    return tuple(ways)


def tissue_levels(images: Mapping[str, np.ndarray], typical: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Brightness (3,) of fluid, grey and white matter in registered `images` of brain (any one shape) by contrast, on the
    networks' scale.

    Three clusters are sought, from the `typical` levels times several gains on: what else is in view (fat, vessels) decides
    where the brain lies on the scale. Voxels far from all clusters are left out.
    """
    names = list(images)
    stack = np.stack([np.asarray(images[name], dtype=np.float32).ravel() for name in names], 1)  # (n, contrasts)
    stack = stack[stack.max(1) > 0.08]
    stack = stack[:: max(1, len(stack) // CLUSTERED)]
    best, least = np.array([[typical[name][n] for name in names] for n in range(3)], dtype=np.float64), np.inf
    start = best
    for gains in product(GAINS, repeat=len(names)):
        centres, misfit = _clustered(stack, start * np.array(gains))
        in_order = all(_in_order(name, centres[:, n]) for n, name in enumerate(names))
        if in_order and misfit < least:
            best, least = centres, misfit
    return {name: best[:, number].copy() for number, name in enumerate(names)}


def _clustered(stack: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Centres (3, contrasts) after a few rounds of trimmed k-medians from `centres` on, and the mean trimmed distance."""
    for reach in (0.3, 0.25, 0.2, 0.16, 0.16):
        distances = np.sqrt(np.mean((stack[:, None] - centres) ** 2, axis=-1))  # (n, 3)
        nearest, distance = distances.argmin(1), distances.min(1)
        centres = centres.copy()
        for tissue in range(3):
            mine = stack[(nearest == tissue) & (distance < reach)]
            if len(mine) > 20:
                centres[tissue] = np.median(mine, axis=0)
    return centres, float(np.mean(np.minimum(distance, 0.2)))


def _in_order(contrast: str, levels: np.ndarray) -> bool:
    """Whether fluid, grey and white matter of an adult can have these levels."""
    fluid, grey, white = levels
    gap = 0.02
    return {
        "T1w": fluid + gap < grey < white - gap,
        "T2w": fluid - gap > grey > white + gap,
        "FLAIR": fluid + gap < min(grey, white) and white < grey + gap,
    }.get(contrast, True)
