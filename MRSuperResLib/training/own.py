"""The card of a model that a user trained on data of his own: its id, sources, contrasts and voxels are theirs, not ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contrasts import CONTRASTS
from ..documents import BadDocument, decode, encode
from ..errors import UsageError
from ..models import Source
from .card import with_notes
from .pack import Pack, contents
from .recipes import FOLDER, Recipe, load_recipe, tomllib

NOT_STATED = "not stated"


def parsed_sources(given: Sequence[str]) -> tuple[Source, ...]:
    """What was trained on: each of `given` is "NAME; LICENCE; USE", of which the name is enough, or a TOML file with `sources`.

    Raises `UsageError` for a file that is no such list.
    """
    found: list[Source] = []
    for one in given:
        if one.endswith(".toml"):
            try:
                listed = tomllib.loads(Path(one).read_text(encoding="utf-8"))["sources"]
                found += [decode(Source, source, "sources") for source in listed]
            except (OSError, KeyError, tomllib.TOMLDecodeError, BadDocument) as error:
                raise UsageError(
                    f"{one} is no list of sources ({error}); expected sources = [{{ name = ..., licence = ..., use = ... }}]"
                ) from error
        else:
            name, licence, use, *_ = [*(part.strip() for part in one.split(";")), "", ""]
            found.append(Source(name, licence or NOT_STATED, use or "training"))
    return tuple(found)


def own_card(
    fields: dict[str, Any], plan: Recipe, packed: Pack, id: str | None, sources: Sequence[Source]
) -> dict[str, Any]:
    """The fields of a card for a training on `packed`, which is not the recipe's data. id, sources: where the user gave them.

    The paper stays where size, losses and optimisation are the paper's; elsewhere a note says after whom the network is made.
    """
    images = [entry for entry in packed.entries if not entry.labels]
    contrasts = [name for name in CONTRASTS if any(entry.contrast == name for entry in images)]
    if not sources:
        sources = (Source(f"data of the user's own: {contents(packed)[0]}", NOT_STATED),)
    own = {
        **fields,
        "id": id or f"{fields['id']}-own",
        "version": "1",
        "title": f"{fields['title']}, own training",
        "licence": NOT_STATED,
        "sources": encode(sources),
        "spacing": covered_spacing(plan, packed),
    }
    if contrasts and len(images) == len(packed.entries):
        for key in ("contrasts", "reference_contrasts", "target_contrasts"):
            if key in fields:
                own[key] = contrasts
    paper = own.pop("paper", None)
    if paper and is_published(plan):
        own["paper"] = paper
    elif paper:
        own = with_notes(own, [f"network after {paper.get('authors')} {paper.get('year')}, {paper.get('title')}"])
    return own


def is_published(plan: Recipe) -> bool:
    """Whether a recipe that ships and is the paper's trains this network in this way."""
    for path in FOLDER.glob("*.toml"):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if document.get("published") and document.get("architecture") == plan.architecture:
            paper = load_recipe(path)[0]
            if all(getattr(paper, key) == getattr(plan, key) for key in ("method", "network", "loss", "optimisation")):
                return True
    return False


def covered_spacing(plan: Recipe, packed: Pack) -> dict[str, list[float]]:
    """The voxels (mm) of the coarse scans that a training shows, in plane and between slices, as a card's [spacing]."""
    factors = plan.card.get("factors") or [1, 1]
    smallest, largest = getattr(plan.data.augmentation, "zoom", (1.0, 1.0))
    within: list[float] = []
    between: list[float] = []
    for entry in packed.entries:
        spacing = sorted(entry.grid.spacing)
        within += spacing if entry.is_isotropic else spacing[:2]
        between += spacing if entry.is_isotropic else spacing[2:]
    if plan.card.get("plane") == "through-plane":
        between = [mm * factors[0] for mm in within]
    else:
        within = [mm * max(factors) for mm in within]
    return {
        "in_plane": [_rounded(min(within) * smallest), _rounded(max(within) * largest)],
        "through_plane": [_rounded(min(between) * smallest), _rounded(max(between) * largest)],
    }


def _rounded(mm: float) -> float:
    return float(f"{mm:.3g}")
