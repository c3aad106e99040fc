"""The model card: what a model is, what it was made from and what it may be used on. Typed, and checked when it is made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents import BadDocument, decode, encode
from ..errors import ModelError
from ..terms import ModelPlane as Plane
from ..terms import ModelTask as Task

SCHEMA = 1
INTERPOLATION = "interpolation"  # the architecture of the baselines, which have no weights
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class SpacingRange:
    """Voxel spacings (mm, lowest and highest) of the input volumes a model was trained for.

    thickness: of the slices over their spacing, below 1 with gaps; None for as thick as they are apart, and not checked.
    """

    in_plane: tuple[float, float]
    through_plane: tuple[float, float]
    thickness: tuple[float, float] | None = None


@dataclass(frozen=True)
class Source:
    """Data a model was trained on; `use` says as what, e.g. "truth" or "label maps for synthesis"."""

    name: str
    licence: str
    use: str = "training"


@dataclass(frozen=True)
class Training:
    """How a model was trained: recipe, steps taken, minutes of which machine, ISO date."""

    recipe: str = ""
    steps: int = 0
    minutes: float = 0.0
    machine: str = ""
    date: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Score:
    """A model on one held-out scan, in the head's box; `baseline` maps a baseline's name to its (PSNR, SSIM) on the same scan.

    brain_psnr, brain_baseline: PSNR inside the brain, 4 mm and more from its surface; None and empty where no brain was found.
    """

    scan: str
    plane: str
    degradation: str
    psnr: float
    ssim: float
    nmse: float
    baseline: dict[str, tuple[float, float]] = field(default_factory=dict)
    brain_psnr: float | None = None
    brain_baseline: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """The publication a model implements, and the gain it prints there, e.g. "+3.4 dB PSNR over bicubic, x4"."""

    title: str
    authors: str
    year: int
    reference: str = ""
    published_gain: str = ""


@dataclass(frozen=True)
class Requirements:
    """What a network needs from its caller.

    smallest: rows and columns at least, in input pixels. multiple_of: rows and columns are padded to a multiple of it,
    and tiles start at multiples of it. halo: input pixels around a pixel that matter to it, the overlap of tiles.
    tiling: false for a network to which the whole slice matters: it is cut only when memory cannot hold one, and the user
    is told. latent: length of the vector z a sampled network draws, 0 for none. uncertainty_scale: factor from the
    samples' standard deviation to the expected error. memory: bytes of activations per pixel of the network's input at
    fp32, 0 when not measured. interpolated: it takes slices that are bicubically interpolated to the answer's size
    already, and keeps their size. bf16: its answers in bfloat16 were compared with those in float32, and their PSNR
    differs by less than 0.01 dB: processors that have that type by nature then use it.
    input_size: rows and columns, exactly, of the network's input, 0 for any: smaller slices lie in the middle of air, which
    begins beyond the halo; larger ones are cut into overlapping parts; halo counts in its pixels.
    """

    smallest: int = 8
    multiple_of: int = 1
    halo: int = 16
    tiling: bool = True
    latent: int = 0
    uncertainty_scale: float | None = None
    memory: float = 0.0
    interpolated: bool = False
    input_size: int = 0
    bf16: bool = False


@dataclass(frozen=True)
class ModelCard:
    """What a model is, what it was made from and what it may be used on.

    factors: enlargement along the network's rows and columns; through-plane networks get the slice axis as rows, (s,
    1). None: any factor (the baselines), or none at all (priors). Contrasts: "T1w", "T2w", "FLAIR", "PDw", or "any".
    anatomy: "any", or what it is for. ages: youngest and oldest of the people it was trained on, years; None: not told.
    judges: id and version, with a space between, of the translator whose errors an error network knows; "" for other models.
    """

    id: str
    title: str
    version: str
    architecture: str
    task: Task
    plane: Plane
    factors: tuple[float, float] | None
    contrasts: tuple[str, ...]
    spacing: SpacingRange | None
    licence: str
    intended_use: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    reference_contrasts: tuple[str, ...] = ()
    target_contrasts: tuple[str, ...] = ()
    anatomy: str = "brain"
    ages: tuple[float, float] | None = None
    sources: tuple[Source, ...] = ()
    training: Training = field(default_factory=Training)
    metrics: tuple[Score, ...] = ()
    paper: Paper | None = None
    requirements: Requirements = field(default_factory=Requirements)
    judges: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        complaint = _complaint(self)
        if complaint:
            raise ModelError(f"model card '{self.id}': {complaint}", code="bad-card")

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, Any]) -> ModelCard:
        """The card in `document` (JSON text, or the object it holds).

        Raises `ModelError` naming the first field that is wrong.
        """
        try:
            value = json.loads(document) if isinstance(document, (str, bytes)) else document
        except (ValueError, RecursionError) as error:
            raise ModelError(f"model card: not valid JSON ({error})", code="bad-card") from error
        if isinstance(value, Mapping) and isinstance(value.get("schema"), int) and value["schema"] > SCHEMA:
            raise ModelError(
                f"model card '{value.get('id')}' has schema {value['schema']}, this version reads up to {SCHEMA}; "
                "update MRSuperRes",
                code="bad-card",
            )
        try:
            return decode(cls, value)
        except BadDocument as error:
            raise ModelError(f"model card: {error}", code="bad-card") from error

    def to_json(self, indent: int | None = None) -> str:
        """The card as JSON text; `from_json` gives it back equal."""
        return json.dumps(encode(self), indent=indent, ensure_ascii=False, allow_nan=False)

    @property
    def is_baseline(self) -> bool:
        """Whether this is interpolation, without weights."""
        return self.architecture == INTERPOLATION

    @property
    def factor(self) -> float | None:
        """The largest enlargement along an axis, None for any."""
        return None if self.factors is None else max(self.factors)


@dataclass(frozen=True)
class ModelEntry:
    """A model in the list: its card, its file (None for the baselines) and the digest the file states."""

    card: ModelCard
    path: Path | None
    digest: str


def _complaint(card: ModelCard) -> str | None:
    """What makes a card's values impossible, beyond their types; None for a sound card."""
    if card.schema != SCHEMA:
        return f"schema is {card.schema}, expected {SCHEMA}"
    if not IDENTIFIER.fullmatch(card.id):
        return "id must be lower-case letters, digits, '.', '_' and '-'"
    if card.factors is None and not card.is_baseline and card.task != "prior":
        return "factors are missing; only interpolation serves any factor"
    if card.factors is not None and not all(f >= 1 and float(f).is_integer() for f in card.factors):
        return f"factors are {card.factors}, expected whole numbers of at least 1"
    if not card.contrasts:
        return "contrasts are missing"
    if card.task == "translate" and not card.target_contrasts:
        return "target_contrasts are missing, and its task is to translate"
    if (card.task == "error") != bool(card.judges):
        return "judges names the translator whose errors an error network knows, and is for that task alone"
    if card.spacing is not None:
        for low, high in (card.spacing.in_plane, card.spacing.through_plane, card.spacing.thickness or (1.0, 1.0)):
            if not 0 < low <= high:
                return f"a spacing range is {low} to {high} mm, expected 0 < lowest <= highest"
    needs = card.requirements
    if needs.smallest < 1 or needs.multiple_of < 1 or min(needs.halo, needs.latent, needs.memory, needs.input_size) < 0:
        return "requirements must not be negative"
    if needs.input_size and 4 * needs.halo > needs.input_size:
        return f"halo is {needs.halo}, expected at most a quarter of input_size, {needs.input_size}"
    return None
