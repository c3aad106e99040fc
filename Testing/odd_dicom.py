"""Odd DICOM series and enhanced files, made from a seed, and what pydicom makes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from made_dicom import SHAPE, classic_slice, cosines, enhanced, item, place
from odd_volumes import Difference, OddVolume, axes_of, one_of

from MRSuperResLib.volume import Volume


def dicom(rng: np.random.Generator, folder: Path) -> OddVolume:
    """A series of files, or one enhanced file alone or in a folder; then perhaps odd."""
    slices = int(rng.integers(2, 8))
    array = rng.integers(0, 1200, (slices, *SHAPE)).astype(np.uint16)
    axes = axes_of(rng)
    if np.linalg.det(axes) < 0:
        axes = axes * (1, 1, -1)
    places = list(rng.permutation(slices).astype(float))
    multi = rng.random() < 0.4
    made = OddVolume(folder / "series", ["enhanced" if multi else "classic", f"{slices} slices"])
    digits = int(one_of(rng, 12, 12, 6, 4, 3, 2))
    turned = np.round(cosines(axes), digits).tolist()
    made.words.append(f"cosines of {digits} decimals")
    changes: dict[str, Any] = {}
    for _ in range(int(rng.integers(0, 3))):
        how = one_of(rng, "gap", "jitter", "aside", "doubled", "echoes", "slope", "lacks", "spacing", "bits")
        made.spoil(how, how == "slope")
        if how == "gap":
            places = [where + (where > slices // 2) for where in places]
        elif how == "jitter":
            places = [where + rng.uniform(-0.2, 0.2) for where in places]
        elif how == "doubled":
            places[-1] = places[0]
        elif how == "echoes":
            places = [float(n // 2) for n in range(slices)]
            changes["EchoTime"] = "by turns"
        elif how == "aside":
            changes["aside"] = rng.uniform(0.1, 4)
        elif how == "slope":
            changes["slope"] = rng.uniform(0.01, 3, slices)
        elif how == "lacks":
            changes[
                one_of(
                    rng, "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "SeriesInstanceUID"
                )
            ] = None
        elif how == "spacing":
            changes["PixelSpacing"] = one_of(rng, [0, 1], [-1, 1], [1e-30, 1], [0.5, 2.0])
        elif how == "bits":
            changes |= {"BitsStored": 12, "HighBit": int(one_of(rng, 11, 15))}
    _write_dicom(made, array, places, turned, axes, changes, multi)
    if multi and rng.random() < 0.5:
        made.path = made.path / "IM1"
    elif rng.random() < 0.4:
        _spoil_files(rng, made)
    made.difference = _against_pydicom(made.path)
    return made


def _write_dicom(
    made: OddVolume, array: np.ndarray, places: list[float], turned: list[float], axes: np.ndarray, changes: dict[str, Any],
    multi: bool,
) -> None:  # fmt: skip
    slopes, aside = changes.pop("slope", np.ones(len(array))), changes.pop("aside", 0.0)
    echoes = changes.pop("EchoTime", None) is not None
    where = [
        np.round(np.asarray(place(at, axes)) + axes[:, 0] * aside * number, 6).tolist()
        for number, at in enumerate(places)
    ]
    if not multi:
        for number, values in enumerate(array):
            own = {"RescaleSlope": f"{slopes[number]:.8g}"} | ({"EchoTime": 10 + 80 * (number % 2)} if echoes else {})
            classic_slice(
                made.path / f"IM{number:03d}.dcm", values, number,
                **({"ImagePositionPatient": where[number], "ImageOrientationPatient": turned} | own | changes),
            )  # fmt: skip
        return
    frames = []
    for number in range(len(array)):
        own = {
            "PlanePositionSequence": item(ImagePositionPatient=where[number]),
            "PlaneOrientationSequence": item(ImageOrientationPatient=turned),
            "PixelValueTransformationSequence": item(RescaleSlope=f"{slopes[number]:.8g}", RescaleIntercept="0"),
        }
        if echoes:
            own["MREchoSequence"] = item(EffectiveEchoTime=10.0 + 80 * (number % 2))
        if "PixelSpacing" in changes and changes["PixelSpacing"] is not None:
            own["PixelMeasuresSequence"] = item(PixelSpacing=changes["PixelSpacing"])
        frames.append(own)
    lacking = {name: None for name, value in changes.items() if value is None and name in ("Rows", "SeriesInstanceUID")}
    enhanced(made.path / "IM1", array, frames=frames, **lacking)


def _spoil_files(rng: np.random.Generator, made: OddVolume) -> None:
    files = sorted(made.path.iterdir())
    file = files[int(rng.integers(len(files)))]
    how = one_of(rng, "cut", "dangling", "text", "shadow", "flip", "again", "empty", "fifo")
    made.spoil(f"file {how}", how in ("shadow", "again"))
    if how == "cut":
        file.write_bytes(file.read_bytes()[: int(rng.integers(0, file.stat().st_size))])
    elif how == "dangling":
        os.symlink("nowhere", made.path / one_of(rng, "README", "IM0000.dcm", ".#IM001.dcm"))
    elif how == "text":
        file.write_text("not here")
    elif how == "shadow":
        (made.path / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(40))
    elif how == "flip":
        content = bytearray(file.read_bytes())
        content[int(rng.integers(132, min(len(content), 900)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(content))
    elif how == "again":
        (made.path / "again.dcm").write_bytes(file.read_bytes())
    elif how == "fifo" and hasattr(os, "mkfifo"):
        os.mkfifo(made.path / "pipe.dcm")
    else:
        file.write_bytes(b"")


def _frames(path: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] | None:
    """(position, cosines, pixel spacing, values) of every frame, by pydicom alone; None if one of them lacks something."""
    found = []
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        try:
            if not file.is_file() or file.name.startswith("._"):
                continue
            header = pydicom.dcmread(file)
            array = header.pixel_array.reshape(-1, header.Rows, header.Columns)
            for index, values in enumerate(array):
                group, shared = header, header
                if "PerFrameFunctionalGroupsSequence" in header:
                    group, shared = (
                        header.PerFrameFunctionalGroupsSequence[index],
                        header.SharedFunctionalGroupsSequence[0],
                    )
                    measures = (group if "PixelMeasuresSequence" in group else shared).PixelMeasuresSequence[0]
                    position = group.PlanePositionSequence[0].ImagePositionPatient
                    turned, pixel = group.PlaneOrientationSequence[0].ImageOrientationPatient, measures.PixelSpacing
                    slope = float(group.PixelValueTransformationSequence[0].RescaleSlope)
                else:
                    position, turned, pixel = (
                        header.ImagePositionPatient,
                        header.ImageOrientationPatient,
                        header.PixelSpacing,
                    )
                    slope = float(header.get("RescaleSlope", 1))
                found.append(
                    (
                        np.array(position, float),
                        np.array(turned, float).reshape(2, 3),
                        np.array(pixel, float),
                        values * slope,
                    )
                )
        except Exception:  # a file that pydicom cannot read
            return None
    return found or None


def _against_pydicom(path: Path) -> Difference | None:
    """Every slice of the volume is a frame, where that frame's header puts it."""
    frames = _frames(path)
    if frames is None:
        return None

    def difference(volume: Volume, told: list[str]) -> str | None:
        slack = 0.5 if {"uneven-slices"} & set(told) else 0.02  # of a step, to either side
        aside = 0.5 if {"drift", "direction-mended"} & set(told) else 0.12  # of a pixel
        used = set()
        for position, turned, pixel, values in frames:
            ends = np.array([[0, 0], [values.shape[1] - 1, 0], [0, values.shape[0] - 1]])
            points = position + np.outer(ends[:, 0] * pixel[1], turned[0]) + np.outer(ends[:, 1] * pixel[0], turned[1])
            index = volume.grid.world_to_index(points)
            k = round(float(index[0, 2]))
            if "no-geometry" in told:
                return None
            if not 0 <= k < volume.grid.size[2]:
                if "files-left-out" in told:
                    continue
                return f"a frame lies outside, at slice {index[0, 2]:.2f}"
            if np.abs(index[:, :2] - ends).max() > aside:
                return f"a corner lies {np.abs(index[:, :2] - ends).max():.2g} pixels off"
            if np.abs(index[:, 2] - k).max() > slack + (0.02 if slack < 0.1 else 0):
                return f"a slice lies {np.abs(index[:, 2] - k).max():.2g} steps off"
            if not np.allclose(volume.array[k], values, rtol=1e-5, atol=1e-4):
                return f"slice {k} holds other voxels"
            used.add(k)
        return None if used == set(range(volume.grid.size[2])) else "slices without a frame"

    return difference
