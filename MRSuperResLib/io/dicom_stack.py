"""From frames to volumes: which frames belong together, in which order, and where the stack lies.

Geometry is what the files say (DICOM PS3.3 C.7.6.2.1.1): slices are sorted by position along their normal, and the grid that
comes out is compared with every frame's own position. What does not fit is refused, or told where both are legitimate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..errors import BadVolume
from ..grid import Grid, numbers
from .dicom_headers import Frame

Key = TypeVar("Key")
SAME_PLACE = 0.01  # mm; slices nearer than this lie at one position
SAME_PIXEL = 1e-3  # relative
SAME_DIRECTION = 5e-3  # of a cosine: slices of one stack agree better than that, rounded by an archive or not
EXACT = 1e-4  # cosines of this error are not rounded
ROUNDED = 0.0175  # the largest error of a dot product of cosines rounded to two decimals
UNEVEN = 0.05  # relative difference of steps that is told
MISSING = 1.5  # a step this many times the usual one is a gap where a slice was
DOUBLED = 0.5  # and one this small is a slice too many
QUIET_DRIFT = 0.1  # mm aside from the normal that is not worth a word
LARGEST_DRIFT = 0.5  # pixels aside: more is a sheared stack
UNTOLD_SLICE = 1.0  # mm, where nothing is told


@dataclass(frozen=True)
class Part:
    """Frames that could be one volume. label: what tells them from the other parts of the series, "" if they are all of it."""

    frames: tuple[Frame, ...]
    label: str = ""


@dataclass(frozen=True)
class Stack:
    """Frames in the order of their slices, and the grid they fill. notes: (code, line) to tell the user."""

    frames: tuple[Frame, ...]
    grid: Grid
    thickness: float | None
    notes: tuple[tuple[str, str], ...]


def parts_of(frames: list[Frame], same_voxels: Callable[[list[Frame]], bool]) -> tuple[list[Part], list[Frame]]:
    """(the volumes in a series, frames that were there twice). same_voxels: whether all the frames hold equal voxels."""
    parts: list[Part] = []
    doubled: list[Frame] = []
    by_shape = _alike(frames, _same_shape)
    for same_shape in by_shape:
        first = same_shape[0]
        by_direction = _alike(same_shape, _same_direction)
        for number, group in enumerate(by_direction):
            kept, twice = _once(group, same_voxels)
            doubled.extend(twice)
            words = []
            if len(by_shape) > 1:
                one_pixel = len(_alike([each[0] for each in by_shape], _same_pixel)) == 1
                sides = "" if one_pixel or not first.pixel else f" of {numbers(first.pixel)} mm"
                words.append(f"{first.columns} x {first.rows} pixels{sides}")
            if len(by_direction) > 1:
                words.append(_direction_name(group) or f"direction {number + 1}")
            for label, members in _split(kept):
                parts.append(Part(tuple(members), ", ".join(word for word in (*words, label) if word)))
    return sorted(parts, key=lambda part: -len(part.frames)), doubled


def _same_shape(one: Frame, other: Frame) -> bool:
    """Equal numbers of pixels, of equal sides but for what rounding makes of them."""
    if (one.rows, one.columns) != (other.rows, other.columns) or (one.pixel is None) != (other.pixel is None):
        return False
    return one.pixel is None or bool(np.allclose(one.pixel, other.pixel or (), rtol=SAME_PIXEL, equal_nan=True))


def _same_pixel(one: Frame, other: Frame) -> bool:
    return _same_shape(replace(one, rows=0, columns=0), replace(other, rows=0, columns=0))


def _same_direction(one: Frame, other: Frame) -> bool:
    if one.cosines is None or other.cosines is None:
        return one.cosines is other.cosines
    return bool(np.allclose(one.cosines, other.cosines, atol=SAME_DIRECTION, equal_nan=True))


def _alike(frames: list[Frame], same: Callable[[Frame, Frame], bool]) -> list[list[Frame]]:
    """Groups of frames, each with the frame that began it."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for members in groups:
            if same(members[0], frame):
                members.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _grouped(frames: list[Frame], key: Callable[[Frame], Key]) -> dict[Key, list[Frame]]:
    found: dict[Key, list[Frame]] = {}
    for frame in frames:
        found.setdefault(key(frame), []).append(frame)
    return found


def _direction_name(frames: list[Frame]) -> str:
    cosines = frames[0].cosines
    if cosines is None or not np.all(np.isfinite(cosines)):
        return ""
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(np.cross(*cosines))))]


def _once(frames: list[Frame], same_voxels: Callable[[list[Frame]], bool]) -> tuple[list[Frame], list[Frame]]:
    """Frames without those that are there twice: one image exported twice is one image."""
    kept: list[Frame] = []
    doubled: list[Frame] = []
    for members in _grouped(frames, lambda frame: (_place_key(frame), tuple(frame.traits.items()))).values():
        same_uid = len({(frame.uid, frame.index) for frame in members}) == 1
        if len(members) > 1 and members[0].position is not None and (same_uid or same_voxels(members)):
            if not same_voxels(members):
                kept.extend(members)  # one name, two contents: `stacked` refuses it
                continue
            kept.append(members[0])
            doubled.extend(members[1:])
        else:
            kept.extend(members)
    return kept, doubled


def _place_key(frame: Frame) -> object:
    if frame.position is None:
        return (frame.uid, frame.index)
    return tuple(np.round(frame.position / SAME_PLACE).tolist())


def _split(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """(what tells them apart, frames) of each volume: apart by what varies, until no position is there twice."""
    components = _grouped(frames, lambda frame: frame.traits.get("component", ""))
    if len(components) > 1:
        return [
            (" ".join(filter(None, (name or "other", label))), members)
            for name, group in components.items()
            for label, members in _split(group)
        ]
    spaces = _grouped(frames, lambda frame: frame.frame_of_reference)
    if 1 < len(spaces) < len(frames):  # where each slice has its own, they were made anew one by one, and say nothing
        return [
            (", ".join(filter(None, (f"frame of reference {number}", label))), members)
            for number, group in enumerate(spaces.values(), 1)
            for label, members in _split(group)
        ]
    if not _repeated(frames):
        return _slabs(frames) or [("", frames)]
    best: dict[str, list[Frame]] = {}
    chosen = ""
    for trait in frames[0].traits:
        groups = _grouped(frames, lambda frame: frame.traits.get(trait, ""))  # noqa: B023
        if len(groups) > 1 and sum(map(_repeated, groups.values())) < _repeated(frames):
            if not best or not any(map(_repeated, groups.values())):
                best, chosen = groups, trait
            if not any(map(_repeated, groups.values())):
                break
    if best:
        return [
            (", ".join(filter(None, (_trait_text(chosen, str(value)), label))), members)
            for value, group in sorted(best.items(), key=lambda item: _natural(str(item[0])))
            for label, members in _split(group)
        ]
    counts = Counter(_along(frames).round(2).tolist())
    if len(set(counts.values())) > 1:
        return [("", frames)]
    turns: list[list[Frame]] = [[] for _ in range(next(iter(counts.values())))]
    seen: Counter[float] = Counter()
    for frame, place in sorted(
        zip(frames, _along(frames).round(2).tolist(), strict=True), key=lambda pair: pair[0].order
    ):
        turns[seen[place]].append(frame)
        seen[place] += 1
    return [(f"repetition {number + 1}", members) for number, members in enumerate(turns)]


def _slabs(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """Stacks apart from each other, as each frame names its own; empty if all of them make one even stack."""
    stacks = _grouped(frames, lambda frame: frame.traits.get("stack", ""))
    if len(stacks) < 2 or _even(frames) or not all(map(_even, stacks.values())):
        return []
    return [(f"stack {name}", members) for name, members in stacks.items()]


def _even(frames: list[Frame]) -> bool:
    steps = np.diff(np.sort(_along(frames)))
    return len(steps) < 2 or bool(np.ptp(steps) < UNEVEN * np.median(steps))


def _trait_text(name: str, value: str) -> str:
    """What tells a part from others, for people: "echo time 90 ms"."""
    if not value:
        return f"no {name}"
    return f"{name} {value}{' ms' if name.endswith('time') else ''}"


def _natural(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text


def _along(frames: list[Frame]) -> np.ndarray:
    """Position along the normal, mm; the order where no position is told."""
    first = frames[0]
    if first.cosines is None or any(frame.position is None for frame in frames):
        return np.arange(len(frames), dtype=float)
    normal = np.cross(*first.cosines)
    if not 0.5 < np.linalg.norm(normal) < 2:  # no plane at all: `stacked` refuses it
        return np.arange(len(frames), dtype=float)
    return np.array([float(np.dot(frame.position, normal)) for frame in frames if frame.position is not None])


def _repeated(frames: list[Frame]) -> int:
    """How many frames lie where another one lies."""
    along = np.sort(_along(frames))
    if not np.all(np.isfinite(along)):
        return 0
    return int(np.count_nonzero(np.diff(along) < SAME_PLACE))


def positions_of(frames: list[Frame]) -> int:
    """How many different positions the frames lie at."""
    return len(frames) - _repeated(frames)


def stacked(part: Part, where: str) -> Stack:
    """The frames in order, on a grid that every one of them agrees with. Raises `BadVolume`, naming `where`."""
    frames = list(part.frames)
    told = {
        "Image Position (Patient)": [frame.position is not None for frame in frames],
        "Image Orientation (Patient)": [frame.cosines is not None for frame in frames],
        "Pixel Spacing": [frame.pixel is not None for frame in frames],
    }
    lacking = [name for name, there in told.items() if not all(there)]
    if len(lacking) == 3 and not any(map(any, told.values())):
        return _without_geometry(frames, where)
    if lacking:
        raise BadVolume(
            f"{where} does not tell {' and '.join(lacking)} of {'its' if not any(told[lacking[0]]) else 'all'} "
            "slices: where they lie is not known; export the series again",
            code="no-geometry",
        )
    _check_numbers(frames, where)
    if len(frames) < 2:
        raise BadVolume(f"{where} is a single slice, expected a 3D volume", code="one-slice")
    return _placed(frames, where)


def _check_numbers(frames: list[Frame], where: str) -> None:
    for frame in frames:
        assert frame.position is not None and frame.cosines is not None and frame.pixel is not None
        name = _frame_name(frame)
        if not np.all(np.isfinite(frame.pixel)) or min(frame.pixel) <= 0:
            raise BadVolume(
                f"{where}: pixel spacing of {name} is {numbers(frame.pixel)} mm, expected numbers above 0",
                code="bad-spacing",
            )
        if not np.all(np.isfinite(frame.position)):
            raise BadVolume(f"{where}: the position of {name} is no three numbers", code="bad-origin")
        cosines = frame.cosines
        if not np.all(np.isfinite(cosines)) or not np.allclose(cosines @ cosines.T, np.eye(2), atol=ROUNDED):
            raise BadVolume(
                f"{where}: the directions of {name} {numbers(cosines.ravel())} are not at right angles and of length 1; "
                "mend the header",
                code="bad-direction",
            )
    if not all(_same_shape(frames[0], frame) for frame in frames):
        raise BadVolume(f"{where}: slices have different sizes or pixel spacings", code="several-volumes")


def _frame_name(frame: Frame) -> str:
    return frame.file.name if frame.frames == 1 else f"{frame.file.name}, frame {frame.index + 1}"


def _without_geometry(frames: list[Frame], where: str) -> Stack:
    """Nothing is told: axial slices in the order of their numbers, as FreeSurfer's files without geometry are read."""
    frames.sort(key=lambda frame: frame.order)
    if len({(frame.rows, frame.columns) for frame in frames}) > 1:
        raise BadVolume(f"{where}: slices have different sizes", code="several-volumes")
    first = frames[0]
    step = first.between or first.thickness or UNTOLD_SLICE
    grid = Grid((first.columns, first.rows, len(frames)), (1.0, 1.0, step))
    note = f"{where} does not say where it lies: read as axial slices, {step:g} mm apart, of 1 mm pixels, in the files' order"
    return Stack(tuple(frames), grid, first.thickness, (("no-geometry", note),))


def _placed(frames: list[Frame], where: str) -> Stack:
    notes: list[tuple[str, str]] = []
    cosines = np.mean(np.array([frame.cosines for frame in frames], dtype=float), axis=0)
    pixel = frames[0].pixel
    assert pixel is not None
    frames = [frames[index] for index in np.argsort(_along(frames), kind="stable")]
    positions = np.array([frame.position for frame in frames])
    rounded = bool(np.abs(cosines @ cosines.T - np.eye(2)).max() > EXACT)
    axes = _axes(cosines, positions, rounded)
    along = (positions - positions[0]) @ axes[:, 2]
    steps = np.diff(along)
    _check_steps(steps, frames, where, notes)
    step = float(along[-1] / (len(frames) - 1))
    size = (frames[0].columns, frames[0].rows, len(frames))
    drift = _drift(frames, positions, axes)
    if drift > LARGEST_DRIFT * min(pixel):
        raise BadVolume(
            f"{where}: slices are shifted by up to {drift:.3g} mm against each other in their plane (gantry tilt, or a sheared "
            "stack?); resample the scan to a straight grid first",
            code="bad-direction",
        )
    if drift > min(QUIET_DRIFT, QUIET_DRIFT * min(pixel)):
        notes.append(
            (
                "drift",
                f"slices of {where} are up to {drift:.2g} mm aside from where a straight stack has them; read as straight",
            )
        )
    off = np.degrees(np.arccos(np.clip(np.sum(axes[:, :2] * cosines.T, axis=0), -1, 1))).max()
    if rounded and off > 0.05:
        notes.append(
            (
                "direction-mended",
                f"the directions of {where} are not quite at right angles (rounded by an archive?): made so, by {off:.2g} degrees",
            )
        )
    grid = Grid(size, (pixel[1], pixel[0], step), tuple(positions[0].tolist()), tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
    notes.extend(_said_spacing(frames, step, where))
    return Stack(tuple(frames), grid, frames[0].thickness, tuple(notes))


def _axes(cosines: np.ndarray, positions: np.ndarray, rounded: bool) -> np.ndarray:
    """Three axes at right angles, as columns: those of the cosines.

    Where these are rounded: the line of the slices, and the nearest to them at right angles to it.
    """
    normal = np.cross(*cosines)
    normal /= np.linalg.norm(normal)
    if not rounded:
        row = cosines[0] / np.linalg.norm(cosines[0])
        return np.column_stack([row, np.cross(normal, row), normal])
    line = positions[-1] - positions[0]
    line = line / np.linalg.norm(line) if np.linalg.norm(line) > 0 else normal
    third = line if abs(float(line @ normal)) > 1 - ROUNDED**2 else normal  # within the rounding, positions know better
    third = third * np.sign(third @ normal)
    within = cosines.T - np.outer(third, third @ cosines.T)
    u, _, v = np.linalg.svd(within, full_matrices=False)
    return np.column_stack([u @ v, third])


def _drift(frames: list[Frame], positions: np.ndarray, axes: np.ndarray) -> float:
    """How far a slice lies aside from the line along the normal, in its plane, at most; mm."""
    aside = (positions - positions[0]) @ axes[:, :2]
    return float(np.linalg.norm(aside, axis=1).max())


def _check_steps(steps: np.ndarray, frames: list[Frame], where: str, notes: list[tuple[str, str]]) -> None:
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: of three slices, one step may be a gap
    if steps.min() < SAME_PLACE:
        index = int(np.argmin(steps))
        raise BadVolume(
            f"{where} holds {len(frames)} slices at {int(np.count_nonzero(steps >= SAME_PLACE)) + 1} positions (several echoes "
            f"or time points? {_frame_name(frames[index])} and {_frame_name(frames[index + 1])} lie at one place)",
            code="several-volumes",
        )
    if steps.max() >= MISSING * usual or steps.min() <= DOUBLED * usual:
        index = int(np.argmax(steps)) if steps.max() >= MISSING * usual else int(np.argmin(steps))
        raise BadVolume(
            f"{where}: slices are {usual:.2f} mm apart, but {steps[index]:.2f} mm between {_frame_name(frames[index])} and "
            f"{_frame_name(frames[index + 1])} ({'one missing' if steps[index] > usual else 'one too many'}?); export the series "
            "again, whole",
            code="uneven-slices",
        )
    if np.ptp(steps) >= UNEVEN * usual:
        even = np.linspace(0, steps.sum(), len(frames))
        away = float(np.abs(np.concatenate([[0.0], np.cumsum(steps)]) - even).max())
        notes.append(
            (
                "uneven-slices",
                f"slices of {where} are {steps.min():.2f} to {steps.max():.2f} mm apart; they are read as if they were evenly "
                f"spaced, which moves them by up to {away:.2g} mm",
            )
        )


def _said_spacing(frames: list[Frame], step: float, where: str) -> list[tuple[str, str]]:
    """A note where the header's own distance of slices, or gap between them, is another than that of the positions."""
    said, thickness = frames[0].between, frames[0].thickness or 0.0
    gap = 0 if said is None or said > (1 - UNEVEN) * thickness else thickness  # some makers give the gap
    if said is None or min(abs(step - said), abs(step - said - gap)) <= UNEVEN * step:
        return []
    text = f"slices of {where} lie {step:.3g} mm apart by their positions, {said:.3g} mm by the header; the positions are taken"
    return [("two-spacings", text + (" (is every other slice missing?)" if step > MISSING * said else ""))]
