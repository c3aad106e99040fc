"""Odd volumes, made from a seed: every format, sound or damaged, and what an independent reader makes of each.

Writers are nibabel, SimpleITK, pydicom and bytes by hand; the readers that are asked what is right are nibabel and pydicom.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation

from MRSuperResLib.io.spaces import affine_of
from MRSuperResLib.volume import LARGEST, Volume

Difference = Callable[[Volume, list[str]], str | None]  # what is wrong with what was read, given what was told
GEOMETRY = {
    "two-places",
    "two-spacings",
    "no-geometry",
    "unknown-space",
    "units",
}  # codes that tell of a choice of geometry


@dataclass
class OddVolume:
    """A file or folder. sound: it must be read. difference: None if nothing can be asked what is right."""

    path: Path
    words: list[str] = field(default_factory=list)
    sound: bool = True
    difference: Difference | None = None

    def spoil(self, words: str, sound: bool = False) -> None:
        """Say what was done to it, and whether it must still be read."""
        self.words.append(words)
        self.sound = self.sound and sound


def one_of(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def scan_values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(300, 80, shape).astype(np.float32)


def axes_of(rng: np.random.Generator) -> np.ndarray:
    """Straight, oblique, turned by halves; left- or right-handed."""
    turn = one_of(
        rng, [0, 0, 0], [180, 0, 0], [90, 0, 90], [0, 0, 180], rng.uniform(-180, 180, 3), rng.uniform(-5, 5, 3)
    )
    return np.asarray(Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * (1, 1, one_of(rng, 1, -1)))


def values_differ(volume: Volume, expected: np.ndarray) -> str | None:
    """expected: (k, j, i). Voxels that are no intensities are replaced, so they are not compared."""
    if volume.array.shape != expected.shape:
        return f"shape {volume.array.shape}, expected {expected.shape}"
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float32)
        kept = np.abs(rounded) < LARGEST
    if not np.allclose(volume.array[kept], rounded[kept], rtol=1e-5, atol=1e-6):
        return "voxels differ"
    return None


# --- NIfTI, Analyze, FreeSurfer: nibabel knows ---


def nifti(rng: np.random.Generator, folder: Path) -> OddVolume:
    """Any type, byte order, combination of qform and sform, scale, units; then perhaps damaged."""
    kind = one_of(
        rng, nibabel.Nifti1Image, nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair, nibabel.AnalyzeImage
    )
    size = tuple(int(n) for n in rng.integers(4, 9, 3))
    dtype = (
        np.dtype(one_of(rng, "i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"))
        if kind is not nibabel.AnalyzeImage
        else np.dtype("i2")
    )
    values = np.clip(scan_values(rng, size) / one_of(rng, 3, 10), 0, 120).astype(dtype)
    pair = kind in (nibabel.Nifti1Pair, nibabel.AnalyzeImage)
    suffix = ".img" if pair else one_of(rng, ".nii", ".nii.gz", ".nii.gz")
    spacing = rng.uniform(0.3, 6, 3)
    header = kind.header_class(endianness=one_of(rng, "<", "<", ">"))
    image = kind(values, None, header)
    image.header.set_data_dtype(dtype.newbyteorder(image.header.endianness))
    image.header.set_zooms(spacing)
    made = OddVolume(folder / f"scan{suffix}", [kind.__name__, str(dtype), suffix])
    if kind is not nibabel.AnalyzeImage:
        _transforms(rng, image, spacing, made)
        if rng.random() < 0.3:
            image.header.set_xyzt_units(one_of(rng, "mm", "unknown"))
    nibabel.save(image, str(made.path))
    for _ in range(int(rng.integers(0, 3))):
        _spoil_nifti(rng, made, pair)
    if pair and rng.random() < 0.3:
        made.path = made.path.with_suffix(".hdr")
    made.difference = _against_nibabel(made.path)
    return made


def _transforms(rng: np.random.Generator, image: Any, spacing: np.ndarray, made: OddVolume) -> None:
    first = np.eye(4)
    first[:3, :3], first[:3, 3] = axes_of(rng) * spacing, rng.uniform(-100, 100, 3)
    second = first.copy()
    how = one_of(rng, "same", "same", "same", "moved", "scaled", "sheared", "turned")
    if how == "moved":
        second[:3, 3] += rng.uniform(-30, 30, 3)
    elif how == "scaled":
        second[:3, :3] *= rng.uniform(0.8, 1.2)
    elif how == "sheared":
        second[:3, :3] = second[:3, :3] @ np.array([[1, rng.uniform(0.02, 0.3), 0], [0, 1, 0], [0, 0, 1]])
    elif how == "turned":
        second[:3, :3] = axes_of(rng) * spacing
    codes = [int(one_of(rng, 0, 1, 1, 2, 3, 4, 5)) for _ in range(2)]
    image.header.set_qform(first if codes[0] else None, codes[0])
    image.header.set_sform(second if codes[1] else None, codes[1])
    made.words.append(f"qform {codes[0]}, sform {codes[1]} {how}")
    if codes[0] == 0 and codes[1] and how == "sheared":
        made.sound = False


def _spoil_nifti(rng: np.random.Generator, made: OddVolume, pair: bool) -> None:
    """Change a byte or a field, cut it, pack it another way."""
    header = made.path.with_suffix(".hdr") if pair else made.path
    packed = header.read_bytes()[:2] == b"\x1f\x8b"
    try:
        content = bytearray(gzip.decompress(header.read_bytes()) if packed else header.read_bytes())
    except (OSError, EOFError):  # damaged before
        return
    how = one_of(rng, "flip", "flip", "cut", "more", "packing", "scale", "offset", "nothing", "checksum")
    sound = how in ("more", "packing", "nothing")
    first = len(content) < 4 or struct.unpack_from("<i", content)[0] in (348, 540)
    order = "<" if first else ">"
    old = len(content) >= 4 and struct.unpack_from(f"{order}i", content)[0] == 348
    if how == "flip" and content:
        where = int(rng.integers(0, min(len(content), 348 if old else 540)))
        if where // (4 if old else 8) == (
            19 if old else 13
        ):  # pixdim[0], which nibabel makes 1 where it is not -1: its sign is what counts
            where = 40
        content[where] ^= 1 << int(rng.integers(8))
        how = f"bit of byte {where} flipped"
    elif how == "cut":
        content = (
            content[: int(rng.integers(0, len(content) + 1))]
            if rng.random() < 0.5
            else content[: -int(rng.integers(1, 20))]
        )
    elif how == "more":
        content += bytes(int(rng.integers(1, 64)))
    elif how == "scale" and old and len(content) >= 120:
        slope, intercept = one_of(rng, (0, 7), (2.5, -1), (np.nan, 1), (np.inf, 0), (-1, 0), (1e-3, 0))
        struct.pack_into(f"{order}2f", content, 112, slope, intercept)
        sound = bool(np.isfinite(slope)) and not pair
    elif how == "offset" and old and len(content) >= 120:
        struct.pack_into(f"{order}f", content, 108, one_of(rng, 352.0, 348.0, -1.0, 1e9, np.nan, 353.0))
    made.spoil(how, sound)
    data = bytes(content)
    if (packed and how != "packing") or (not packed and how == "packing"):
        data = gzip.compress(data)
        if how == "checksum" and len(data) > 10:
            data = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    header.write_bytes(data)


def _against_nibabel(path: Path) -> Difference | None:
    try:
        image = nibabel.load(path)
        expected = np.asarray(image.dataobj, dtype=np.float64)
    except Exception:  # nibabel refuses it too: nothing to compare with
        return None
    while expected.ndim > 3 and expected.shape[-1] == 1:
        expected = expected[..., 0]
    affines, unread = [image.affine], False
    if hasattr(image.header, "get_qform"):
        for name in ("get_qform", "get_sform"):
            try:
                affines.append(getattr(image.header, name)())
            except Exception:  # a quaternion that is none, or a handedness that is neither
                unread = True

    def difference(volume: Volume, told: list[str]) -> str | None:
        if expected.ndim != 3:
            return f"nibabel has {expected.ndim} axes"
        found = values_differ(volume, expected.T)
        if found or "no-geometry" in told or "units" in told:
            return found
        if unread and GEOMETRY & set(told):
            return None
        allowed = affines if GEOMETRY & set(told) else affines[:1]
        apart = min(_apart(affine_of(volume.grid), affine, volume.grid.size) for affine in allowed)
        return f"lies {apart:.3g} mm from where nibabel has it" if apart > 0.05 * min(volume.grid.spacing) else None

    return difference


def _apart(found: np.ndarray, expected: np.ndarray, size: tuple[int, int, int]) -> float:
    """Largest distance of a corner, mm; infinite for numbers that are none."""
    ends = np.array(np.meshgrid(*([0, n - 1] for n in size), [1.0], indexing="ij")).reshape(4, -1)
    with np.errstate(all="ignore"):
        apart = np.linalg.norm(((found - expected) @ ends)[:3], axis=0).max()
    return float(apart) if np.isfinite(apart) else np.inf


def freesurfer(rng: np.random.Generator, folder: Path) -> OddVolume:
    """Sound or damaged .mgh and .mgz."""
    values = scan_values(rng, tuple(int(n) for n in rng.integers(4, 9, 3))).astype(one_of(rng, "f4", "i2", "i4", "u1"))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes_of(rng) * rng.uniform(0.5, 4, 3), rng.uniform(-90, 90, 3)
    made = OddVolume(folder / one_of(rng, "scan.mgh", "scan.mgz"), ["MGH", str(values.dtype)])
    nibabel.save(nibabel.MGHImage(values, affine), str(made.path))
    made.difference = _against_nibabel(made.path)
    if rng.random() < 0.5:
        content = bytearray(made.path.read_bytes())
        how = one_of(rng, "cut", "flip")
        content = content[: int(rng.integers(0, len(content)))] if how == "cut" else content
        if how == "flip":
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        made.path.write_bytes(bytes(content))
        made.spoil(how)
        made.difference = _against_nibabel(made.path) if how == "flip" else None
    return made


# --- MetaImage and NRRD: the generator knows ---


def text_header(rng: np.random.Generator, folder: Path) -> OddVolume:
    """MetaImage or NRRD by hand, attached or detached, packed or not; then perhaps damaged."""
    size = tuple(int(n) for n in rng.integers(4, 9, 3))
    code = one_of(rng, "u1", "i2", "u2", "i4", "f4", "f8")
    order = one_of(rng, "<", ">")
    values = np.clip(scan_values(rng, size[::-1]) / 3, 0, 250).astype(np.dtype(order + code))
    axes, spacing, origin = axes_of(rng), rng.uniform(0.3, 6, 3), rng.uniform(-90, 90, 3)
    meta, detached, packed = rng.random() < 0.5, rng.random() < 0.3, rng.random() < 0.6
    raw = values.tobytes()
    data = (zlib.compress(raw) if meta else gzip.compress(raw)) if packed else raw
    if meta:
        lines = [
            "ObjectType = Image", "NDims = 3", "BinaryData = True", f"BinaryDataByteOrderMSB = {order == '>'}",
            f"CompressedData = {packed}", *([f"CompressedDataSize = {len(data)}"] if packed and rng.random() < 0.7 else []),
            "TransformMatrix = " + " ".join(f"{v:.12g}" for v in axes.T.ravel()),
            "Offset = " + " ".join(f"{v:.12g}" for v in origin), "ElementSpacing = " + " ".join(f"{v:.12g}" for v in spacing),
            "DimSize = " + " ".join(map(str, size)),
            "ElementType = MET_" + {"u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "f4": "FLOAT", "f8": "DOUBLE"}[code],
            f"ElementDataFile = {'voxels.bin' if detached else 'LOCAL'}",
        ]  # fmt: skip
        end = "\n"
    else:
        lines = [
            "NRRD0004", "# made by hand",
            "type: " + {"u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "f4": "float", "f8": "double"}[code],
            "dimension: 3", "space: left-posterior-superior", "sizes: " + " ".join(map(str, size)),
            "space directions: " + " ".join("(" + ",".join(f"{v:.12g}" for v in c) + ")" for c in (axes * spacing).T),
            f"endian: {'little' if order == '<' else 'big'}", f"encoding: {'gzip' if packed else 'raw'}",
            "space origin: (" + ",".join(f"{v:.12g}" for v in origin) + ")", *(["data file: voxels.bin"] if detached else []),
        ]  # fmt: skip
        end = "\n\n"
    suffix = {(True, True): ".mhd", (True, False): ".mha", (False, True): ".nhdr", (False, False): ".nrrd"}[
        meta, detached
    ]
    made = OddVolume(folder / f"scan{suffix}", [suffix, code, "packed" if packed else "raw"])
    changed_header = False
    if rng.random() < 0.5:
        how = one_of(rng, "value", "line", "data", "data", "cut")
        made.spoil(how)
        if how == "value":
            where = int(rng.integers(1, len(lines)))
            name, mark, _ = lines[where].partition(" = " if meta else ": ")
            value = one_of(
                rng, "0", "-1", "nan", "1e30", "99999999999999999999", "", "1 2", "\x00", "(1,0)", "True", "inf inf inf"
            )
            lines[where], changed_header = name + mark + value, True
            made.words.append(lines[where])
        elif how == "line":
            made.words.append("without: " + lines.pop(int(rng.integers(len(lines)))))
            changed_header = True
        elif how == "data" and len(data) > 30:
            where = int(rng.integers(0, len(data)))
            data = data[:where] + bytes([data[where] ^ (1 << int(rng.integers(8)))]) + data[where + 1 :]
            changed_header = not packed or where < 12  # no checksum, or in gzip's own header
        else:
            data = data[: int(rng.integers(0, len(data)))]
    made.path.write_bytes(("\n".join(lines) + end).encode() + (b"" if detached else data))
    if detached:
        (folder / "voxels.bin").write_bytes(data)

    def difference(volume: Volume, told: list[str]) -> str | None:
        expected = np.eye(4)
        expected[:3, :3], expected[:3, 3] = axes * spacing, origin
        found = values_differ(volume, values)
        apart = _apart(np.diag([-1.0, -1, 1, 1]) @ affine_of(volume.grid), expected, volume.grid.size)
        return found or (f"lies {apart:.3g} mm off" if apart > 1e-3 else None)

    made.difference = None if changed_header else difference
    return made


SPECIAL = (np.nan, np.inf, -np.inf, np.finfo(np.float32).max, 1e30)


def not_finite(rng: np.random.Generator, folder: Path) -> OddVolume:
    """A few voxels that are no intensities, in any format."""
    values = scan_values(rng, (6, 7, 8))
    count = int(one_of(rng, 1, 5, 100, values.size))
    values.reshape(-1)[rng.permutation(values.size)[:count]] = one_of(rng, *SPECIAL)
    made = OddVolume(folder / "scan.nii", [f"{count} voxels not finite"], sound=count < values.size)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1])), str(made.path))
    made.difference = _against_nibabel(made.path)
    return made


MAKERS = (nifti, nifti, nifti, text_header, text_header, freesurfer, not_finite)
