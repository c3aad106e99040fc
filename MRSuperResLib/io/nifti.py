"""NIfTI-1, NIfTI-2 and Analyze 7.5 files, single or as a pair, by the rules of nifti1.h and nifti2.h.

A NIfTI file can place its voxels twice: by the qform (rigid) and by the sform (any affine), each with a code that says in which
space. Both are kept: one becomes the volume's grid, and both travel in its metadata, so that a result written as NIfTI has
both again, moved with its grid.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadVolume
from ..grid import Grid, numbers
from ..volume import Volume, Warn
from . import raw
from .content import misnamed
from .formats import bad_spacing, damaged, first_bytes, no_data_file, not_scalar, suffix_of, tell, three, volume_name
from .raw import VoxelBlock
from .spaces import CODES, LPS_TO_RAS, kept_spaces

LONGEST_HEADER = 540  # bytes: that of NIfTI-2; NIfTI-1 and Analyze 7.5 have 348
TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
OTHER_TYPES = {
    1: "one bit", 32: "a complex number", 128: "a colour", 1536: "a 128-bit number", 1792: "a complex number",
    2048: "a complex number", 2304: "a colour",
}  # fmt: skip
ANALYZE = "Analyze 7.5"
UNITS = {1: 1000.0, 3: 0.001}  # xyzt_units: metres and micrometres, in mm; 2 is mm, 0 not told
SAME_SPACE = 0.02  # of the finest spacing: qform and sform nearer than this at every corner are one place
SAME_SPACING = 0.01  # relative


@dataclass(frozen=True)
class NiftiHeader:
    """What the header says, before it is judged.

    kind: "NIfTI-1", "NIfTI-2" or "Analyze 7.5". size: as many axes as there are. pixdim: mm, along i, j, k. qform, sform: 4x4,
    index to RAS mm; None where its code is 0. datatype: NIfTI's number for it.
    """

    kind: str
    size: tuple[int, ...]
    pixdim: tuple[float, ...]
    order: str
    datatype: int
    offset: int
    slope: float
    intercept: float
    qform_code: int
    sform_code: int
    qform: np.ndarray | None
    sform: np.ndarray | None
    description: str
    single: bool
    units: float = 1.0  # mm, that the header's lengths are given in


def read_header(path: Path) -> NiftiHeader:
    """The header of the file, or of the pair that `path` is one of. Raises `BadVolume` for what is no NIfTI or Analyze."""
    head = _pair(path)[0]
    try:
        with raw.opened(head) as stream:
            content = stream.read(LONGEST_HEADER)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    header = _parsed(path, content)
    if header is None:
        raise misnamed(path, "NIfTI")
    return header


def read(path: Path, warn: Warn | None = None) -> Volume:
    """The volume at `path`, checked against everything its header says."""
    header = read_header(path)
    grid, notes = grid_of(header, path)
    array = raw.read_block(block_of(header, path), path, warn)
    tell(notes, warn)
    metadata = {"descrip": header.description} | kept_spaces(header, grid)
    return Volume(array, grid, volume_name(path), metadata)


def block_of(header: NiftiHeader, path: Path) -> VoxelBlock:
    """Where the voxels lie. Raises `BadVolume` for voxels that are no numbers, and for a data file that is not there."""
    data = path if header.single else _pair(path)[1]
    if header.datatype not in TYPES:
        found = OTHER_TYPES.get(header.datatype, f"NIfTI's type {header.datatype}")
        raise not_scalar(path, found)
    if len(header.size) > 4 and header.size[3] == 1 and math.prod(header.size[4:]) > 1:
        raise not_scalar(path, f"{math.prod(header.size[4:])} values")
    size = three(path, header.size)
    packed = first_bytes(data, 2) == raw.GZIP
    dtype = np.dtype(header.order + TYPES[header.datatype])
    return VoxelBlock(
        data, size, dtype, header.offset, "gzip" if packed else "none", slope=header.slope, intercept=header.intercept
    )


def grid_of(header: NiftiHeader, path: Path) -> tuple[Grid, list[tuple[str, str]]]:
    """The grid by qform and sform, and what to tell about it: (code, line)s.

    The sform is taken where it alone is given, or agrees with the qform; else the one that says "scanner", where the patient's
    other scans lie; else the sform, if its axes are at right angles. Neither given: method 1 of nifti1.h, i to the right.
    """
    size = three(path, header.size)
    notes: list[tuple[str, str]] = []
    qform, sform = header.qform, header.sform
    affine: np.ndarray | None
    if qform is None and sform is None:
        notes.append(
            (
                "no-geometry",
                f"{path.name} does not say where it lies, nor which side is left: read with i to the right, j to the front, k up, "
                "from 0",
            )
        )
        affine = np.diag([*header.pixdim[:3], 1.0])
    elif qform is None:
        affine = sform
        _compare_spacings(header, notes, path)
    elif sform is None:
        affine = qform
    else:
        affine = _one_of_both(header, size, notes, path)
    if header.kind == ANALYZE and (header.slope, header.intercept) != (1.0, 0.0):
        text = f"values of {path.name} are scaled by {header.slope:g}, offset {header.intercept:g}, as SPM writes Analyze files"
        notes.append(("scaled", text))
    if header.units != 1.0:
        text = f"{path.name} gives its lengths in units of {header.units:g} mm, which some programs overlook"
        notes.append(("units", text))
    for code, name in ((header.qform_code, "qform"), (header.sform_code, "sform")):
        if code and code not in CODES:
            notes.append(
                ("unknown-space", f"{path.name}: {name}_code is {code}, expected {min(CODES)} to {max(CODES)}")
            )
    return _straight(affine, size, header.pixdim, path), notes


def _one_of_both(
    header: NiftiHeader, size: tuple[int, int, int], notes: list[tuple[str, str]], path: Path
) -> np.ndarray:
    assert header.qform is not None and header.sform is not None
    ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in size), [1.0], indexing="ij")).reshape(4, -1)
    apart = float(np.linalg.norm(((header.qform - header.sform) @ ends)[:3], axis=0).max())
    spacings = np.linalg.norm(header.sform[:3, :3], axis=0)
    straight = _right_angles(header.sform)
    if not apart > max(0.01, SAME_SPACE * min(header.pixdim[:3])):
        return header.sform if straight else header.qform
    fits = straight and bool(np.allclose(spacings, header.pixdim[:3], rtol=SAME_SPACING))
    scanner = header.sform_code == 1 or header.qform_code != 1
    taken = "sform" if fits and scanner else "qform"
    names = {"qform": CODES.get(header.qform_code, "unknown"), "sform": CODES.get(header.sform_code, "unknown")}
    notes.append(
        (
            "two-places",
            f"{path.name} lies in two places, {apart:.3g} mm apart: qform ({names['qform']}) and sform ({names['sform']}"
            f"{'' if straight else ', sheared'}); the {taken} is taken, and a NIfTI result keeps both",
        )
    )
    return header.sform if taken == "sform" else header.qform


def _compare_spacings(header: NiftiHeader, notes: list[tuple[str, str]], path: Path) -> None:
    assert header.sform is not None
    spacings = np.linalg.norm(header.sform[:3, :3], axis=0)
    if not np.allclose(spacings, header.pixdim[:3], rtol=SAME_SPACING):
        notes.append(
            (
                "two-spacings",
                f"{path.name}: voxels are {numbers(spacings)} mm by the sform, {numbers(header.pixdim[:3])} mm by pixdim; the "
                "sform is taken, as nifti1.h says",
            )
        )


def _right_angles(affine: np.ndarray) -> bool:
    spacings = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or spacings.min() <= 0:
        return False
    axes = affine[:3, :3] / spacings
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-3))


def _straight(affine: np.ndarray | None, size: tuple[int, int, int], pixdim: tuple[float, ...], path: Path) -> Grid:
    """RAS `affine` as a grid; its spacings are pixdim's where they differ by rounding. Raises `BadVolume` if it is no grid."""
    assert affine is not None
    if not np.all(np.isfinite(affine)):
        raise BadVolume(f"{path}: its place in space holds NaN or infinite numbers; mend the header", code="bad-origin")
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    if spacing.min() <= 0:
        raise bad_spacing(path, numbers(spacing))
    direction = lps[:3, :3] / spacing
    spacing = np.where(np.isclose(spacing, pixdim[:3], rtol=1e-6, atol=0), pixdim[:3], spacing)
    try:
        return Grid(size, tuple(spacing.tolist()), tuple(lps[:3, 3].tolist()), tuple(direction.ravel().tolist()))  # type: ignore[arg-type]
    except BadVolume as error:
        raise BadVolume(f"{path}: {error.message}", code=error.code) from error


def _pair(path: Path) -> tuple[Path, Path]:
    """The header's and the data's file; both are `path` for a single file. Raises `BadVolume` if one is not there."""
    suffix = suffix_of(path)
    if suffix in (".nii", ".nii.gz"):
        return path, path
    stem = path.name[: -len(suffix)]
    here_is = "hdr" if ".hdr" in suffix else "img"
    other = "img" if here_is == "hdr" else "hdr"
    names = [other, f"{other}.gz", other.upper(), other.capitalize()]
    found = [path.with_name(f"{stem}.{name}") for name in names]
    there = next((candidate for candidate in found if candidate.exists()), None)
    if here_is == "hdr":
        header = _parsed(path, raw.first_bytes_unpacked(path, LONGEST_HEADER))
        if header is not None and header.single:
            return path, path
    if there is None and here_is == "hdr":
        raise no_data_file(path, found[0])
    if there is None:
        raise BadVolume(f"{path} needs its header {found[0].name}, which is not in {path.parent}", code="unreadable")
    return (path, there) if here_is == "hdr" else (there, path)


def _parsed(path: Path, content: bytes) -> NiftiHeader | None:
    """The header in `content`, None if it is none."""
    for order in "<>":
        if len(content) >= LONGEST_HEADER and struct.unpack_from(f"{order}i", content)[0] == 540:
            return _nifti2(path, content, order) if content[4:8] in (b"n+2\0", b"ni2\0") else None
        if len(content) >= 348 and struct.unpack_from(f"{order}i", content)[0] == 348:
            return _nifti1(path, content, order)
    return None


def _nifti1(path: Path, content: bytes, order: str) -> NiftiHeader:
    magic = content[344:348]
    nifti = magic in (b"n+1\0", b"ni1\0")
    single = magic == b"n+1\0"
    if not nifti and suffix_of(path) in (".nii", ".nii.gz"):
        raise misnamed(path, "NIfTI")
    dim = struct.unpack_from(f"{order}8h", content, 40)
    datatype = struct.unpack_from(f"{order}h", content, 70)[0]
    pixdim = struct.unpack_from(f"{order}8f", content, 76)
    offset, slope, intercept = struct.unpack_from(f"{order}3f", content, 108)
    codes = struct.unpack_from(f"{order}2h", content, 252) if nifti else (0, 0)
    rest = struct.unpack_from(f"{order}18f", content, 256)
    return _header(
        path, "NIfTI-1" if nifti else ANALYZE, order, dim, datatype, pixdim, offset, (slope, intercept), codes, rest,
        content[123] if nifti else 0, content[148:228], single,
    )  # fmt: skip


def _nifti2(path: Path, content: bytes, order: str) -> NiftiHeader:
    datatype = struct.unpack_from(f"{order}h", content, 12)[0]
    dim = struct.unpack_from(f"{order}8q", content, 16)
    pixdim = struct.unpack_from(f"{order}8d", content, 104)
    offset = struct.unpack_from(f"{order}q", content, 168)[0]
    scale = struct.unpack_from(f"{order}2d", content, 176)
    codes = struct.unpack_from(f"{order}2i", content, 344)
    rest = struct.unpack_from(f"{order}18d", content, 352)
    units = struct.unpack_from(f"{order}i", content, 500)[0]
    return _header(
        path, "NIfTI-2", order, dim, datatype, pixdim, offset, scale, codes, rest, units, content[240:320],
        content[4:7] == b"n+2",
    )  # fmt: skip


def _header(
    path: Path,
    kind: str,
    order: str,
    dim: tuple[int, ...],
    datatype: int,
    pixdim: tuple[float, ...],
    offset: float,
    scale: tuple[float, float],
    codes: tuple[int, int],
    rest: tuple[float, ...],
    units: int,
    description: bytes,
    single: bool,
) -> NiftiHeader:
    """rest: quatern_b, c, d, qoffset_x, y, z, srow_x, y, z. Raises `BadVolume` for what no header may say."""
    if not 1 <= dim[0] <= 7 or any(n < 1 for n in dim[1 : 1 + dim[0]]):
        raise BadVolume(f"{path}: the header gives sizes of {dim}; damaged or misnamed", code="unreadable")
    size = tuple(int(n) for n in dim[1 : 1 + dim[0]])
    least = {"NIfTI-1": 352, "NIfTI-2": 544}.get(kind, 0) if single else 0
    inside = 0 < offset < least - 4  # the four bytes after the header may be missing
    if not math.isfinite(offset) or offset < 0 or offset != int(offset) or inside:
        raise BadVolume(f"{path}: the header puts the voxels at byte {offset:g}; damaged", code="unreadable")
    mm = UNITS.get(units & 7, 1.0)
    spacing = tuple(float(step) * mm for step in pixdim[1:4])
    if not all(math.isfinite(step) and step > 0 for step in spacing[: len(size)]):
        raise bad_spacing(path, numbers(spacing[: len(size)]))
    slope, intercept = scale
    if slope == 0 or math.isnan(slope):  # nifti1.h: not to be scaled
        slope, intercept = 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise BadVolume(
            f"{path}: scale {slope:g} and offset {intercept:g} of its values; mend the header", code="bad-scale"
        )
    qform_code, sform_code = (max(0, code) for code in codes)
    qform = sform = None
    if qform_code:
        qform = _quaternion(rest[:6], spacing, pixdim[0], mm)
    if sform_code:
        sform = np.vstack([np.reshape(rest[6:], (3, 4)).astype(float) * mm, [0, 0, 0, 1]])
    text = description.split(b"\0")[0].decode("utf-8", errors="replace")
    return NiftiHeader(
        kind, size, spacing, order, int(datatype), int(offset) or least, float(slope), float(intercept), qform_code, sform_code,
        qform, sform, text, single, mm,
    )  # fmt: skip


def _quaternion(rest: tuple[float, ...], spacing: tuple[float, ...], qfac: float, mm: float) -> np.ndarray:
    """Method 2 of nifti1.h: index to RAS mm, 4x4."""
    b, c, d = (float(value) for value in rest[:3])
    length = b * b + c * c + d * d
    if length > 1 - 1e-7:
        a, (b, c, d) = 0.0, (value / math.sqrt(length) for value in (b, c, d))
    else:
        a = math.sqrt(1 - length)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.array([*spacing, 1.0, 1.0, 1.0])[:3]
    affine = np.eye(4)
    affine[:3, :3] = rotation * (steps * (1, 1, -1 if qfac < 0 else 1))
    affine[:3, 3] = np.asarray(rest[3:6], dtype=float) * mm
    return affine


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """b, c, d of a proper rotation (3x3), as nifti1.h has them, with a of 0 or more."""
    a = math.sqrt(max(0.0, 1 + np.trace(rotation))) / 2
    if a > 0.1:
        b, c, d = (
            (rotation[2, 1] - rotation[1, 2]) / (4 * a),
            (rotation[0, 2] - rotation[2, 0]) / (4 * a),
            (rotation[1, 0] - rotation[0, 1]) / (4 * a),
        )
        return float(b), float(c), float(d)
    from scipy.spatial.transform import Rotation

    b, c, d, a = Rotation.from_matrix(rotation).as_quat()
    return (float(b), float(c), float(d)) if a >= 0 else (float(-b), float(-c), float(-d))


def encoded(
    size: tuple[int, int, int], affines: tuple[tuple[int, np.ndarray], tuple[int, np.ndarray]], spacing: tuple[float, ...],
    dtype: np.dtype, description: str,
) -> bytes:  # fmt: skip
    """The header of a single NIfTI file, and the padding up to its voxels: NIfTI-1, or NIfTI-2 for axes over 32,767 voxels.

    affines: qform and sform, each its code and 4x4 to RAS mm (not used where the code is 0).
    """
    (qform_code, qform), (sform_code, sform) = affines
    kind = next(number for number, name in TYPES.items() if name == dtype.str[1:])
    rotation, qfac = np.eye(3), 1.0
    offsets = np.zeros(3)
    if qform_code:
        rotation = qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0)
        if np.linalg.det(rotation) < 0:
            rotation, qfac = rotation * (1, 1, -1), -1.0
        offsets = qform[:3, 3]
    rest = [*quaternion_of(rotation), *offsets] if qform_code else [0.0] * 6
    rows = sform[:3].ravel() if sform_code else np.zeros(12)
    dim, pixdim = (3, *size, 1, 1, 1, 1), (qfac, *spacing, 0.0, 0.0, 0.0, 0.0)
    text = description.encode("utf-8")[:79]
    if max(size) <= 32767:
        return struct.pack(
            "<i36x8h14xhhh8f3fhBB4f2i80s24x2h18f16s4sI", 348, *dim, kind, 8 * dtype.itemsize, 0, *pixdim, 352.0, 1.0, 0.0, 0, 0, 2,
            0.0, 0.0, 0.0, 0.0, 0, 0, text, qform_code, sform_code, *rest, *rows, b"", b"n+1\0", 0,
        )  # fmt: skip
    return struct.pack(
        "<i8shh8q3d8dq2d2d2d2q80s24x2i18diii16sB15xI", 540, b"n+2\0\r\n\x1a\n", kind, 8 * dtype.itemsize, *dim, 0, 0, 0, *pixdim,
        544, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, text, qform_code, sform_code, *rest, *rows, 0, 2, 0, b"", 0, 0,
    )  # fmt: skip
