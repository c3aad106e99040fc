"""Where a result came from: what is written into its header, and beside it as a JSON sidecar.

Never who the patient is.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import importlib.metadata
import json
import platform
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import __version__
from .documents import encode
from .errors import BadVolume
from .models import ModelCard, ModelEntry
from .volume import WRITABLE

STATEMENT = "Made by a model; details may not be the patient's. Research use only."
MARK = "MRSuperRes_model"  # a field in the header of every result
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
    inputs: Mapping[str, str],
    device: str,
    precision: str,
    timings: Mapping[str, float],
    **more: Any,
) -> dict[str, Any]:
    """The sidecar's content.

    inputs: role to digest, no names of files, because people put patients' names into them.
    """
    return {
        "schema": 1,
        "statement": STATEMENT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": model_record(entry),
        "parameters": encode(dict(parameters)),
        "inputs": {role: {"sha256": digest} for role, digest in inputs.items()},
        "device": device,
        "precision": precision,
        "versions": versions(),
        "timings": {stage: round(seconds, 3) for stage, seconds in timings.items()},
        **more,
    }


def header_fields(entry: ModelEntry, parameters: Mapping[str, Any]) -> dict[str, str]:
    """What travels in a NRRD or NIfTI header, as text."""
    return {
        MARK: f"{entry.card.id} {entry.card.version}",
        "MRSuperRes_version": __version__,
        "MRSuperRes_digest": entry.digest,
        "MRSuperRes_parameters": json.dumps(encode(dict(parameters)), sort_keys=True),
        "MRSuperRes_statement": STATEMENT,
    }


def is_ours(sidecar: str | Path) -> bool:
    """Whether the file at `sidecar` may be overwritten: there is none, or it is such a record (and not, say, a BIDS sidecar)."""
    try:
        return bool(json.loads(Path(sidecar).read_text(encoding="utf-8")).get("statement") == STATEMENT)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False


def sidecar_path(output: str | Path) -> Path:
    """Beside the volume, its suffixes replaced: sr.nii.gz has sr.json; but sr.nrrd.json where sr.json records another result.

    Only results of the same stem in another format share that name, and the second made gives way.
    """
    output = Path(output)
    name = output.name[: -len(".gz")] if output.name.lower().endswith(".gz") else output.name
    usual, own = output.with_name(Path(name).stem + ".json"), output.with_name(output.name + ".json")
    if own.exists():
        return own
    if not usual.exists() or not is_ours(usual) or _is_result(output):
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
