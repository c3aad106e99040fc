"""Which models there are: the files in `default_folders()` and the baselines. A model is added by dropping its file there."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ..documents import canonical
from ..errors import ModelError, UsageError
from .card import INTERPOLATION, ModelCard, ModelEntry, Requirements
from .package import SUFFIX, read_entry

BASELINES = ("linear", "bspline", "lanczos", "bicubic", "zerofill")
Warn = Callable[[str, str], None]  # (stable code, one line for people)


def list_models(folders: Iterable[str | os.PathLike[str]] | None = None, warn: Warn | None = None) -> list[ModelEntry]:
    """Every model found in `default_folders()` and then in `folders`, the baselines first, otherwise by id.

    Files that are no sound model are left out and told to `warn`. Of two files with one id the higher version is kept,
    at equal versions the one found first, and `warn` hears of it. Raises `UsageError` for one of `folders` that is not
    there; default ones need not be. A model in the user's own folder is left out, and told, if a shipped one has its id.
    """
    found, broken = _scan(folders)
    for path, error in broken:
        if warn:
            warn(error.code, f"{path.name} is ignored: {error.message}")
    for hidden, shipped in _shadows(found):
        found.remove(hidden)
        if warn:
            warn(
                "shadowed-model",
                f"{hidden.path} is ignored: '{shipped.card.id}' is a model that ships; name the file to use it",
            )
    kept: dict[str, ModelEntry] = {}
    for entry in found:
        rival = kept.setdefault(entry.card.id, entry)
        if rival.digest == entry.digest:
            continue
        winner, loser = (entry, rival) if _version(entry.card) > _version(rival.card) else (rival, entry)
        kept[entry.card.id] = winner
        if warn:
            warn(
                "duplicate-model",
                f"two models are called '{entry.card.id}': using {winner.path} (version {winner.card.version}), "
                f"not {loser.path} (version {loser.card.version})",
            )
    return [*baselines(), *(kept[name] for name in sorted(kept))]


def find_model(
    id_or_path: str | os.PathLike[str],
    folders: Iterable[str | os.PathLike[str]] | None = None,
    warn: Warn | None = None,
) -> ModelEntry:
    """The model with that id, or in that file.

    Raises `ModelError`: unknown (close names are listed), or the file is no sound model.
    """
    name = os.fspath(id_or_path)

    def warn_of_it(code: str, message: str) -> None:
        if warn and code == "duplicate-model" and f"'{name}'" in message:
            warn(code, message)

    hidden = next((mine for mine, shipped in _shadows(_scan(folders)[0]) if shipped.card.id == name), None)
    if hidden is not None:
        raise ModelError(
            f"two models are called '{name}': one ships with the program, the other is {hidden.path}: give that one another "
            "id, or the path of the file that you mean",
            code="shadowed-model",
        )
    entries = list_models(folders, warn_of_it)
    for entry in entries:
        if entry.card.id == name:
            return entry
    path = Path(os.path.expanduser(name))
    if os.path.lexists(path):
        return read_entry(path)
    if path.suffix == SUFFIX or path.parent != Path("."):
        raise ModelError(f"no model file at {path}", code="unknown-model")
    for damaged, error in _scan(folders)[1]:
        if damaged.stem == name:
            raise error
    names = [entry.card.id for entry in entries]
    close = (
        difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        or [other for other in names if name and name in other][:3]
    )
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
    raise ModelError(f"no model is called '{name}'; {hint}", code="unknown-model")


def default_folders() -> tuple[Path, ...]:
    """Where models are looked for: beside the library (checkout, extension), inside it (pip), the user's own folder."""
    package = Path(__file__).resolve().parents[1]
    own = user_folder()
    shipped = (package.parent / "Resources" / "Models", package / "Resources" / "Models")
    return shipped if own is None else (*shipped, own)


def user_folder() -> Path | None:
    """A user's own models: the environment's MRSUPERRES_MODELS, else the platform's place for user data; None without a home."""
    chosen = os.environ.get("MRSUPERRES_MODELS")
    if chosen:
        return Path(chosen)
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    return base / "MRSuperRes" / "Models"


def baselines() -> tuple[ModelEntry, ...]:
    """Interpolation as models: what is there today, for comparison, at any factor and on any volume."""
    titles = {
        "linear": "Linear interpolation",
        "bspline": "Cubic B-spline interpolation",
        "lanczos": "Lanczos interpolation",
        "bicubic": "Bicubic interpolation, as papers use it",
        "zerofill": "Zero-filling of k-space",
    }
    cards = (
        ModelCard(
            id=name,
            title=titles[name],
            version="1",
            architecture=INTERPOLATION,
            task="super-resolve",
            plane="any",
            factors=None,
            contrasts=("any",),
            spacing=None,
            anatomy="any",
            licence="Apache-2.0",
            intended_use="Comparison. Research use only.",
            requirements=Requirements(smallest=1, halo=0, tiling=False),
        )
        for name in BASELINES
    )
    return tuple(ModelEntry(card, None, hashlib.sha256(canonical(card)).hexdigest()) for card in cards)


def _scan(
    folders: Iterable[str | os.PathLike[str]] | None,
) -> tuple[list[ModelEntry], list[tuple[Path, ModelError]]]:
    """Sound models and broken files, in the order of the search."""
    found: list[ModelEntry] = []
    broken: list[tuple[Path, ModelError]] = []
    seen: set[Path] = set()
    named = [Path(os.path.expanduser(folder)) for folder in folders or ()]
    missing = next((folder for folder in named if not os.path.isdir(folder)), None)
    if missing is not None:
        raise UsageError(f"there is no folder {missing} to look for models in", code="no-model-folder")
    for folder in (*default_folders(), *named):
        if not os.path.isdir(folder):
            continue
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            whole = Path(os.path.realpath(path))
            if path.name.startswith(".") or whole in seen:
                continue
            seen.add(whole)
            try:
                entry = read_entry(path)
                if entry.card.id in BASELINES:
                    raise ModelError(
                        f"{path.name} calls itself '{entry.card.id}', the name of a baseline", code="bad-card"
                    )
                found.append(entry)
            except ModelError as error:
                broken.append((path, error))
    return found, broken


def _shadows(found: Iterable[ModelEntry]) -> list[tuple[ModelEntry, ModelEntry]]:
    """(entry, the shipped one) for models in the user's own folder that have the id, and not the content, of a shipped one."""
    own = user_folder()
    shipped_folders = {Path(os.path.realpath(folder)) for folder in default_folders() if folder != own}
    shipped = {
        entry.card.id: entry for entry in found if entry.path is not None and entry.path.parent in shipped_folders
    }
    mine = [
        entry
        for entry in found
        if own is not None and entry.path is not None and entry.path.parent == Path(os.path.realpath(own))
    ]
    pairs = [(entry, shipped[entry.card.id]) for entry in mine if entry.card.id in shipped]
    return [(entry, other) for entry, other in pairs if entry.digest != other.digest]


def _version(card: ModelCard) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", card.version))
