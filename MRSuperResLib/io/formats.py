"""What the readers and writers of volumes share: suffixes and names, errors, and silence of the libraries below."""

from __future__ import annotations

import contextlib
import locale
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import BadVolume
from ..volume import Warn

WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr")
READABLE = (*WRITABLE, ".mgz", ".mgh", ".hdr", ".hdr.gz", ".img", ".img.gz")
POINTER = 1024  # bytes; a pointer of git-annex or Git LFS is shorter
GZIP = b"\x1f\x8b"
APPLE_DOUBLE = b"\x00\x05\x16\x07"

_STANDARD_ERROR = threading.RLock()  # there is one for the whole process


def volume_name(path: str | os.PathLike[str]) -> str:
    """What `read_volume` calls the volume at `path`: the file's name without its suffixes, or the folder's."""
    path = Path(path)
    return path.name if path.is_dir() else stem_of(path)


def suffix_of(path: Path) -> str:
    """The suffix in lower case, ".nii.gz" as one."""
    name = path.name.lower()
    return next((s for s in sorted(READABLE, key=len, reverse=True) if name.endswith(s)), path.suffix.lower())


def stem_of(path: Path) -> str:
    """The file's name without `suffix_of` it."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def check_place(path: Path) -> None:
    """Raise `BadVolume` if there is nothing at `path`, or neither a file nor a folder, saying what is there instead."""
    if "\0" in str(path):
        shown = str(path).replace("\0", "?")
        raise BadVolume(f"{shown} cannot be opened: it holds a NUL character, which no path can", code="not-found")
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name too long, a loop of links, a null character
        raise BadVolume(f"{path} cannot be opened: {reason(error)}", code="not-found") from error
    if not there:
        if path.is_symlink():
            target = os.readlink(path)
            annexed = " (git-annex content that was not fetched: datalad get)" if "annex/objects" in target else ""
            raise BadVolume(f"{path} is a link to {target}, which is not there{annexed}", code="not-found")
        raise BadVolume(f"{path} does not exist", code="not-found")
    if not path.is_file() and not path.is_dir():
        raise BadVolume(f"{path} is neither a file nor a folder (a pipe, or a device?)", code="not-a-volume")


def first_bytes(path: Path, count: int = POINTER) -> bytes:
    """The first `count` bytes of the file. Raises `BadVolume`, with the system's reason, if it cannot be opened."""
    try:
        with open(path, "rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise damaged(path, error) from error


def check_content(path: Path) -> None:
    """Raise `BadVolume` for files that only stand for a volume: empty ones, pointers, macOS's shadows of other files."""
    start = first_bytes(path)
    if not start:
        raise BadVolume(f"{path} is empty (0 bytes); copy or export it again", code="unreadable")
    if start.startswith(b"version https://git-lfs"):
        raise BadVolume(f"{path} is a Git LFS pointer, not the file itself; fetch it (git lfs pull)", code="unreadable")
    if len(start) < POINTER and b"annex/objects" in start:
        raise BadVolume(
            f"{path} is a git-annex pointer, not the file itself; fetch it (git annex get, datalad get)",
            code="unreadable",
        )
    if path.name.startswith("._") and start.startswith(APPLE_DOUBLE):
        raise BadVolume(
            f"{path} is macOS's shadow of {path.name[2:]} (a resource fork), no volume; give {path.name[2:]}",
            code="not-a-volume",
        )


def tell(notes: Iterable[tuple[str, str]], warn: Warn | None) -> None:
    """Give the notes on a file, (code, message) each, to `warn`, if anybody listens."""
    if warn:
        for code, message in notes:
            warn(code, message)


def damaged(path: Path, error: BaseException | None = None) -> BadVolume:
    """The error to raise where `path` cannot be read: the system's reason if `error` has one, or that it is damaged."""
    if isinstance(error, MemoryError):
        return BadVolume(f"{path} needs more memory than there is", code="unreadable")
    if isinstance(error, OSError) and error.errno:
        return BadVolume(f"{path} cannot be opened: {reason(error)}", code="unreadable")
    return BadVolume(f"{path} is damaged or cut short; copy or export it again", code="unreadable")


def cut_short(path: Path, expected: int, found: int) -> BadVolume:
    """The error for a file with fewer bytes than its header promises."""
    return BadVolume(f"{path} is cut short: {found} of {expected} bytes; copy or export it again", code="unreadable")


def no_data_file(header: Path, data: Path) -> BadVolume:
    """The error for a header whose voxels lie in another file, which is not there."""
    return BadVolume(f"{header} keeps its voxels in {data.name}, which is not in {data.parent}", code="unreadable")


def check_text(path: Path, data: Path, voxels: int) -> None:
    """Raise `BadVolume` if `data` is too short for voxels as text, a digit and a blank each: ITK would make room for them first."""
    there = data.stat().st_size
    if there < 2 * voxels - 1:
        raise cut_short(path, 2 * voxels - 1, there)


def bad_spacing(path: Path, found: str) -> BadVolume:
    """The error for spacings that are not above 0."""
    return BadVolume(
        f"{path}: voxel spacing is {found} mm, expected numbers above 0; mend the header", code="bad-spacing"
    )


def three(path: Path, size: Sequence[int]) -> tuple[int, int, int]:
    """`size` as i, j, k; later axes may have one entry each. Raises `BadVolume` (code "2d", "4d"...) for all else."""
    if len(size) > 3 and all(n == 1 for n in size[3:]):
        size = size[:3]
    if len(size) != 3:
        hint = "extract one time point or echo" if len(size) > 3 else "give a whole volume, not one slice"
        raise BadVolume(
            f"{path} is {len(size)}D ({' x '.join(map(str, size))}), expected 3D; {hint}", code=f"{len(size)}d"
        )
    i, j, k = (int(n) for n in size)
    return i, j, k


def not_scalar(path: Path, found: str) -> BadVolume:
    """The error for voxels that hold something other than one intensity."""
    return BadVolume(f"{path} has {found} in each voxel (colour or vectors), expected one intensity", code="not-scalar")


def reason(error: BaseException) -> str:
    """What went wrong, in the system's words without the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what ITK and the libraries below it print off the terminal: the errors that ITK raises say the same, once.

    Numbers have points meanwhile: below ITK they are read and written as the locale of the process has them, which Qt and GTK
    set.
    """
    import SimpleITK as sitk

    with _STANDARD_ERROR:
        before = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _no_standard_error(), _decimal_points():
                yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextlib.contextmanager
def _decimal_points() -> Iterator[None]:
    if locale.localeconv()["decimal_point"] == ".":
        yield
        return
    before = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # closed, as under pythonw: nothing can be printed
        yield
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
