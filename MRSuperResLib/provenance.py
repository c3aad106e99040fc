"""Where a result came from: what is written into its header, and beside it as a JSON sidecar.

Never who the patient is.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .documents import encode
from .errors import BadVolume
from .io.formats import WRITABLE
from .io.sidecar import fields_beside
from .models import ModelCard, ModelEntry

STATEMENT = "Made by a model; details may not be the patient's. Research use only."
MARK = "MRSuperRes_model"  # a field in the header of every result
LONGEST_RECORD = 2**24  # bytes
MOST_EARLIER = 40  # files of replaced records that a record vouches for
HEADER = 2048  # bytes at its beginning among which that field is
PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "safetensors")


def digest_of(path: str | Path) -> str:
    """SHA-256 (hex) of a file, or of all the files in a folder whatever their names (a DICOM series)."""
    path = Path(path)
    try:
        if path.is_dir():
            inside = sorted(digest_of(file) for file in path.rglob("*") if file.is_file())
            return hashlib.sha256("".join(inside).encode()).hexdigest()
        with path.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(2**20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise BadVolume(f"{path} cannot be read: {error.strerror}") from error


def versions() -> dict[str, str]:
    """Versions of this library, of Python and of the packages that shape a result; those not installed are left out."""
    found = {"MRSuperRes": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def model_record(entry: ModelEntry) -> dict[str, Any]:
    """Which model, so that it can be found again."""
    card: ModelCard = entry.card
    paper = card.paper.reference or card.paper.title if card.paper else None
    return {"id": card.id, "version": card.version, "digest": entry.digest, "title": card.title, "paper": paper}


def record(
    entry: ModelEntry,
    *,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, str]],
    device: str,
    precision: str,
    timings: Mapping[str, float],
    **more: Any,
) -> dict[str, Any]:
    """The sidecar's content.

    inputs: see `inputs_record`.
    """
    return {
        "schema": 1,
        "statement": STATEMENT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": model_record(entry),
        "parameters": encode(dict(parameters)),
        "inputs": encode(dict(inputs)),
        "device": device,
        "precision": precision,
        "versions": versions(),
        "timings": {stage: round(seconds, 3) for stage, seconds in timings.items()},
        **more,
    }


def inputs_record(paths: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Digests of the inputs by role: of the file or folder, and of what a sidecar beside it tells, where there is one.

    No names of files, because people put patients' names into them.
    """
    found = {role: {"sha256": digest_of(path)} for role, path in paths.items()}
    for role, path in paths.items():
        told = {} if os.path.isdir(path) else fields_beside(Path(path))
        if told:
            found[role]["sidecar_sha256"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return found


def header_fields(entry: ModelEntry, parameters: Mapping[str, Any]) -> dict[str, str]:
    """What travels in a NRRD or NIfTI header, as text."""
    return {
        MARK: f"{entry.card.id} {entry.card.version}",
        "MRSuperRes_version": __version__,
        "MRSuperRes_digest": entry.digest,
        "MRSuperRes_parameters": json.dumps(encode(dict(parameters)), sort_keys=True),
        "MRSuperRes_statement": STATEMENT,
    }


def read_record(sidecar: str | Path) -> dict[str, Any] | None:
    """The record at `sidecar`; None if there is none, or something else (a BIDS sidecar, say)."""
    try:
        if not stat.S_ISREG(os.stat(sidecar).st_mode) or os.path.getsize(sidecar) > LONGEST_RECORD:
            return None
        record = json.loads(Path(sidecar).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(record, dict) and record.get("statement") == STATEMENT
    expected = {"model": dict, "files": dict, "earlier_files": list}
    return (
        record if ours and all(isinstance(record.get(name, kind()), kind) for name, kind in expected.items()) else None
    )


def is_ours(sidecar: str | Path) -> bool:
    """Whether the file at `sidecar` may be overwritten: there is none, or it is such a record."""
    return not os.path.lexists(sidecar) or read_record(sidecar) is not None


def files_record(places: Mapping[str, Path]) -> dict[str, Any]:
    """For the record: the digests of the volumes at `places`, by role, by which they are known again."""
    return {role: {"sha256": digest_of(path)} for role, path in places.items() if path.is_file()}


def earlier_files(sidecar: str | Path, written: Mapping[str, Any]) -> dict[str, Any]:
    """For a record that takes the place of the one at `sidecar`: digests of what that vouched for and is not `written` anew.

    Maps of an earlier run stay where they are, and are still known as made here.
    """
    before = read_record(sidecar) or {}
    files = [*before.get("files", {}).values(), *before.get("earlier_files", [])]
    kept = [file for file in files if isinstance(file, dict) and file not in written.values()][:MOST_EARLIER]
    return {"earlier_files": kept} if kept else {}


def vouched(path: str | Path, record: Mapping[str, Any] | None) -> bool:
    """Whether the record of a result, or the one beside it, says that the volume at `path` was made here and is unchanged.

    Records of versions before digests were kept vouch for volumes whose header names a model of ours.
    """
    return _vouched(path, [one for one in (record, read_record(sidecar_path(path))) if one is not None])


def vouched_in(path: str | Path, folders: Iterable[str | Path]) -> bool:
    """Whether any record in `folders` says that the volume at `path` was made here and is unchanged: a map of another result."""
    return any(
        _vouched(path, [record])
        for folder in folders
        for sidecar in Path(folder).glob("*.json")
        if (record := read_record(sidecar)) is not None and "files" in record
    )


def _vouched(path: str | Path, records: Sequence[Mapping[str, Any]]) -> bool:
    told = [file for one in records for file in (*one.get("files", {}).values(), *one.get("earlier_files", []))]
    made = [file for file in told if isinstance(file, dict)]
    digests = {file.get("sha256") for file in made}
    if any("files" not in one for one in records) and _is_result(Path(path)):
        return True
    return bool(digests) and os.path.isfile(path) and digest_of(path) in digests


def made_by(volume: str | Path) -> str | None:
    """The model that made the volume at `volume`, as its header or the record beside it says; None for a scan."""
    volume = Path(volume)
    record = read_record(sidecar_path(volume)) if volume.is_file() else None
    if record is not None and ("files" not in record or vouched(volume, record)):
        return str(record.get("model", {}).get("id", "a model"))
    return "a model" if volume.is_file() and _is_result(volume) else None


def sidecar_path(output: str | Path) -> Path:
    """Beside the volume, its suffixes replaced: sr.nii.gz has sr.json; but sr.nrrd.json where sr.json records another result.

    Only results of the same stem in another format share that name, and the second made gives way.
    """
    output = Path(output)
    name = output.name[: -len(".gz")] if output.name.lower().endswith(".gz") else output.name
    usual, own = output.with_name(Path(name).stem + ".json"), output.with_name(output.name + ".json")
    if os.path.exists(own):  # False also for a name too long to be one
        return own
    if not os.path.exists(usual) or not is_ours(usual) or _is_result(output):
        return usual
    others = (output.with_name(Path(name).stem + suffix) for suffix in WRITABLE)
    return own if any(_is_result(other) for other in others if other != output) else usual


def _is_result(volume: Path) -> bool:
    """Whether there is such a file, and its header says that it was made here."""
    try:
        with (gzip.open if volume.name.lower().endswith(".gz") else open)(volume, "rb") as stream:
            return MARK.encode() in stream.read(HEADER)
    except (OSError, EOFError, zlib.error):
        return False
