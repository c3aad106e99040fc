"""Models as data: one `.safetensors` file each, whose metadata carries the card that says what the model is for.

The card is read without torch (a safetensors file begins with the length of a JSON header, and the header), so that
listing models is cheap anywhere, Slicer's own process included. Weights are read only by `load_network`, never
unpickled, and only after their digest has been checked. A model is added by dropping its file into one of
`default_folders()`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .documents import BadDocument, canonical, decode, encode
from .errors import MissingRequirement, ModelError, OutputError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .volume import Grid

SCHEMA = 1
SUFFIX = ".safetensors"
INTERPOLATION = "interpolation"  # the architecture of the baselines, which have no weights
BASELINES = ("linear", "bspline", "lanczos")
LONGEST_HEADER = 16 * 2**20  # bytes; ours take a few hundred kB, more means a file that is not what it says
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"F64": 64, "I64": 64, "U64": 64}
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]*")
TOLERANCE = 1.02  # of a spacing range's ends: headers print spacings rounded

Task = Literal["super-resolve", "reference-guided", "translate"]
Plane = Literal["in-plane", "through-plane", "any"]
Warn = Callable[[str, str], None]  # (stable code, one line for people)


@dataclass(frozen=True)
class SpacingRange:
    """Voxel spacings (mm, lowest and highest) of the input volumes a model was trained for."""

    in_plane: tuple[float, float]
    through_plane: tuple[float, float]


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
    """A model on one held-out scan; `baseline` maps a baseline's name to its (PSNR, SSIM) on the same scan."""

    scan: str
    plane: str
    degradation: str
    psnr: float
    ssim: float
    nmse: float
    baseline: dict[str, tuple[float, float]] = field(default_factory=dict)


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
    tiling: whether a slice may be cut at all. latent: length of the vector z a sampled network draws, 0 for none.
    uncertainty_scale: factor from the samples' standard deviation to the expected error. memory: bytes of activations
    per input pixel at fp32, 0 when not measured.
    """

    smallest: int = 8
    multiple_of: int = 1
    halo: int = 16
    tiling: bool = True
    latent: int = 0
    uncertainty_scale: float | None = None
    memory: float = 0.0


@dataclass(frozen=True)
class ModelCard:
    """What a model is, what it was made from and what it may be used on.

    factors: enlargement along the network's rows and columns; through-plane networks get the slice axis as rows, (s,
    1). None: any factor (the baselines). Contrasts: "T1w", "T2w", "FLAIR", "PDw", or "any".
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
    sources: tuple[Source, ...] = ()
    training: Training = field(default_factory=Training)
    metrics: tuple[Score, ...] = ()
    paper: Paper | None = None
    requirements: Requirements = field(default_factory=Requirements)
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
        except ValueError as error:
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


def list_models(folders: Iterable[str | os.PathLike[str]] | None = None, warn: Warn | None = None) -> list[ModelEntry]:
    """Every model found in `default_folders()` and then in `folders`, the baselines first, otherwise by id.

    Files that are no sound model are left out and told to `warn`. Of two files with one id the higher version is kept,
    at equal versions the one found first, and `warn` hears of it. Raises `UsageError` for one of `folders` that is not
    there; default ones need not be.
    """
    found, broken = _scan(folders)
    for path, error in broken:
        if warn:
            warn(error.code, f"{path.name} is ignored: {error.message}")
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

    entries = list_models(folders, warn_of_it)
    for entry in entries:
        if entry.card.id == name:
            return entry
    path = Path(name).expanduser()
    if path.is_file():
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
    raise ModelError(f"no model is called '{name}'; {hint} (see 'mrsuperres models')", code="unknown-model")


def default_folders() -> tuple[Path, ...]:
    """Where models are looked for: beside the library (checkout, extension), inside it (pip), the user's own folder."""
    package = Path(__file__).resolve().parent
    return (package.parent / "Resources" / "Models", package / "Resources" / "Models", user_folder())


def user_folder() -> Path:
    """A user's own models: the environment's MRSUPERRES_MODELS, else the platform's place for user data."""
    chosen = os.environ.get("MRSUPERRES_MODELS")
    if chosen:
        return Path(chosen)
    home = Path.home()
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


def read_entry(path: str | os.PathLike[str]) -> ModelEntry:
    """The model in the file at `path`; its header is checked, its weights are not read (see `verify`)."""
    path = Path(path).resolve()
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", code="unknown-model") from error
    return _read_entry(path, status.st_mtime_ns, status.st_size)


def verify(entry: ModelEntry) -> None:
    """Read the whole file and compare its digest with the one it states.

    Raises `ModelError` if anything was changed.
    """
    if entry.path is not None:
        _read_verified(entry)


def save_model(path: str | os.PathLike[str], card: ModelCard, state_dict: Mapping[str, torch.Tensor]) -> ModelEntry:
    """Write `card` and the weights, as fp16, to one file; under a temporary name until it is whole.

    Raises `ModelError` if a weight is not finite in fp16, `OutputError` if the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in state_dict.items():
        weights = tensor.detach().cpu()
        weights = weights.to(torch.float16) if weights.is_floating_point() else weights
        if not bool(torch.isfinite(weights).all()):
            raise ModelError(
                f"weights '{name}' of '{card.id}' are not finite as fp16; the training diverged", code="bad-weights"
            )
        tensors[name] = weights.clone(memory_format=torch.contiguous_format)
    header, data = _split(save(tensors), Path(path))
    text = canonical(ModelCard.from_json(card.to_json())).decode()
    blob = save(tensors, metadata={"format": "pt", "card": text, "digest": _digest(text, header, data)})
    path = Path(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
            try:
                temporary.write(blob)
                temporary.close()
                os.chmod(temporary.name, 0o644)
                os.replace(temporary.name, path)
            except BaseException:
                os.unlink(temporary.name)
                raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    return read_entry(path)


def load_network(
    entry: ModelEntry,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    for_inference: bool = True,
) -> nn.Module:
    """The network of `entry` on `device`, in evaluation mode, `dtype` float32 unless said; its digest is checked first.

    for_inference: let a network that has a method of that name make itself faster; False keeps the weights as the file has them.

    Raises `ModelError` saying what is wrong with the file.
    """
    import torch
    from safetensors.torch import load

    from . import networks

    if entry.path is None:
        raise ModelError(f"'{entry.card.id}' is interpolation and has no network", code="no-weights")
    blob = _read_verified(entry)
    network = networks.build(entry.card.architecture, entry.card.hyperparameters)
    weights = load(blob)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{entry.path.name}: the weights do not fit its card's network: {reason}", code="bad-weights"
        ) from error
    network = network.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)
    if for_inference and hasattr(network, "for_inference"):
        network = network.for_inference()
    return network.to(memory_format=torch.channels_last) if _convolutional(network) else network  # type: ignore[call-overload]


def read_weights(path: Path, digest: str | None, what: str, code: str) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of somebody else's weights, a local safetensors file, and its SHA-256 (hex).

    digest: the SHA-256 it must have; None if any will do. what: to be put there, if it does not exist. code: ends the codes of the
    errors. Published weights are often pickles, which can run code when they are read: the message says how to convert one.
    Raises `MissingRequirement` without the file, `ModelError` if it is another one than said or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise MissingRequirement(f"{path} does not exist: put {what}", code=f"no-{code}")
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", code=f"bad-{code}") from error
    found = hashlib.sha256(blob).hexdigest()
    if digest is not None and found != digest.lower():
        said = digest or "one, and none was given"
        raise ModelError(f"{path.name} has the SHA-256 {found}, expected {said}", code=f"bad-{code}")
    try:
        return load(blob), found
    except SafetensorError as error:
        raise ModelError(
            f"{path.name} is no safetensors file ({error}); convert a .pth file with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')",
            code=f"bad-{code}",
        ) from error


def coverage(
    card: ModelCard,
    grid: Grid,
    contrast: str | None = None,
    factors: float | Sequence[float] | None = None,
    slice_axis: int | None = None,
) -> list[str]:
    """Plain-language reasons why `card` does not cover a scan on `grid`; empty when it does.

    contrast: of the scan, None if not known. factors: the enlargement asked for, one number or one per axis.
    slice_axis: 0..2, None for the one that the model would take.
    """
    reasons = contrast_coverage(card, contrast)
    plane = "in-plane" if card.task == "translate" else card.plane
    axis = grid.slice_axis_for(plane) if slice_axis is None else slice_axis
    if card.spacing is not None:
        within = [spacing for other, spacing in enumerate(grid.spacing) if other != axis]
        reasons += _beyond("in-plane voxels", (min(within), max(within)), card.spacing.in_plane)
        reasons += _beyond("slices", (grid.spacing[axis],) * 2, card.spacing.through_plane)
    if factors is not None and card.factor is not None:
        asked = max(factors) if isinstance(factors, Sequence) else factors
        if asked > card.factor * TOLERANCE:
            reasons.append(f"made for x{card.factor:g}, x{asked:g} is asked")
    smallest = min(size for other, size in enumerate(grid.size) if other != axis)
    if smallest < card.requirements.smallest:
        reasons.append(f"needs at least {card.requirements.smallest} voxels a side, this scan has {smallest}")
    return reasons


def contrast_coverage(card: ModelCard, contrast: str | None) -> list[str]:
    """The reasons of `coverage` that a scan's contrast gives, whatever its voxels."""
    if contrast and "any" not in card.contrasts and contrast not in card.contrasts:
        return [f"trained on {_listed(card.contrasts)}, this scan is {contrast}"]
    return []


def reference_coverage(card: ModelCard, contrast: str | None, reference_contrast: str | None) -> list[str]:
    """As `coverage`, of a reference of `reference_contrast` beside a scan of `contrast`; None: not known."""
    reasons = []
    covered = card.reference_contrasts
    if reference_contrast and covered and "any" not in covered and reference_contrast not in covered:
        reasons.append(f"trained with references of {_listed(covered)}, this one is {reference_contrast}")
    if reference_contrast and reference_contrast == contrast:
        reasons.append(
            f"trained with references of another contrast than the scan's: one of {contrast} too adds little but sharpness"
        )
    return reasons


def _convolutional(network: nn.Module) -> bool:
    """Whether most weights are 2D convolutions': those run 10 to 20 % faster channels-last, transformers 3 % slower."""
    sizes = [(tensor.ndim == 4 and tensor.shape[-1] > 1, tensor.numel()) for tensor in network.parameters()]
    return 2 * sum(size for spatial, size in sizes if spatial) > sum(size for _, size in sizes)


def _beyond(what: str, found: tuple[float, float], covered: tuple[float, float]) -> list[str]:
    if found[0] * TOLERANCE >= covered[0] and found[1] <= covered[1] * TOLERANCE:
        return []
    size = f"{found[0]:.3g}" if found[1] - found[0] < 0.01 * found[1] else f"{found[0]:.3g} x {found[1]:.3g}"
    return [f"trained on {what} of {covered[0]:g} to {covered[1]:g} mm, this scan has {size} mm"]


def _complaint(card: ModelCard) -> str | None:
    """What makes a card's values impossible, beyond their types; None for a sound card."""
    if card.schema != SCHEMA:
        return f"schema is {card.schema}, expected {SCHEMA}"
    if not IDENTIFIER.fullmatch(card.id):
        return "id must be lower-case letters, digits, '.', '_' and '-'"
    if card.factors is None and not card.is_baseline:
        return "factors are missing; only interpolation serves any factor"
    if card.factors is not None and not all(f >= 1 and float(f).is_integer() for f in card.factors):
        return f"factors are {card.factors}, expected whole numbers of at least 1"
    if not card.contrasts:
        return "contrasts are missing"
    if card.task == "translate" and not card.target_contrasts:
        return "target_contrasts are missing, and its task is to translate"
    if card.spacing is not None:
        for low, high in (card.spacing.in_plane, card.spacing.through_plane):
            if not 0 < low <= high:
                return f"a spacing range is {low} to {high} mm, expected 0 < lowest <= highest"
    needs = card.requirements
    if needs.smallest < 1 or needs.multiple_of < 1 or needs.halo < 0 or needs.latent < 0 or needs.memory < 0:
        return "requirements must not be negative"
    return None


def _scan(
    folders: Iterable[str | os.PathLike[str]] | None,
) -> tuple[list[ModelEntry], list[tuple[Path, ModelError]]]:
    """Sound models and broken files, in the order of the search."""
    found: list[ModelEntry] = []
    broken: list[tuple[Path, ModelError]] = []
    seen: set[Path] = set()
    named = [Path(folder).expanduser() for folder in folders or ()]
    missing = next((folder for folder in named if not folder.is_dir()), None)
    if missing is not None:
        raise UsageError(f"there is no folder {missing} to look for models in", code="no-model-folder")
    for folder in (*default_folders(), *named):
        if not folder.is_dir():
            continue
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.name.startswith(".") or path.resolve() in seen:
                continue
            seen.add(path.resolve())
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


@lru_cache(maxsize=256)
def _read_entry(path: Path, modified: int, size: int) -> ModelEntry:
    """`read_entry` for the file as it was at `modified` (ns) with `size` bytes, which make the cache honest."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ModelError(f"{path.name} is not a safetensors file, or it is truncated", code="damaged-model")
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", code="unknown-model") from error
    header = _parse_header(text, size - 8 - length, path)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get("card"), str):
        raise ModelError(
            f"{path.name} holds weights but no MRSuperRes model card; it was made by another program",
            code="foreign-model",
        )
    if not re.fullmatch("[0-9a-f]{64}", str(metadata.get("digest", ""))):
        raise ModelError(
            f"{path.name} states no digest of its weights, so they cannot be trusted", code="tampered-model"
        )
    try:
        card = ModelCard.from_json(metadata["card"])
    except ModelError as error:
        raise ModelError(f"{path.name}: {error.message}", code=error.code) from error
    if card.is_baseline:
        raise ModelError(
            f"{path.name}: a file of weights cannot have the architecture '{INTERPOLATION}'", code="bad-card"
        )
    return ModelEntry(card, path, metadata["digest"])


def _parse_header(text: bytes, data_bytes: int, path: Path) -> dict[str, Any]:
    """The header, after checking that its tensors fill the `data_bytes` behind it exactly, without overlap."""
    try:
        header = json.loads(text)
        spans = []
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            values = 1
            for length in tensor["shape"]:
                if not isinstance(length, int) or length < 0:
                    raise ValueError(f"'{name}' has the shape {tensor['shape']}")
                values *= length
            if (end - begin) * 8 != values * BITS[tensor["dtype"]]:
                raise ValueError(f"'{name}' does not have the bytes its shape needs")
            spans.append((begin, end))
        position = 0
        for begin, end in sorted(spans):
            if begin != position:
                raise ValueError("its tensors overlap or leave gaps")
            position = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path.name} has a damaged safetensors header: {error}", code="damaged-model") from error
    if position != data_bytes:
        state = "truncated" if position > data_bytes else "longer than its header says"
        raise ModelError(
            f"{path.name} is {state}: {data_bytes} bytes of weights, {position} expected; copy or download it again",
            code="damaged-model",
        )
    return header


def _read_verified(entry: ModelEntry) -> bytes:
    """The bytes of the entry's file, header, card and digest checked."""
    assert entry.path is not None
    try:
        blob = entry.path.read_bytes()
    except OSError as error:
        raise ModelError(f"{entry.path} cannot be read: {error.strerror}", code="unknown-model") from error
    header, data = _split(blob, entry.path)
    metadata = header.pop("__metadata__", {})
    if metadata.get("digest") != entry.digest:
        raise ModelError(f"{entry.path.name} changed after it was listed; try again", code="tampered-model")
    if _digest(metadata["card"], header, data) != entry.digest:
        raise ModelError(
            f"{entry.path.name} is not as it was published: its weights or card were changed (digest differs); "
            "get it again",
            code="tampered-model",
        )
    return blob


def _split(blob: bytes, path: Path) -> tuple[dict[str, Any], memoryview]:
    """A safetensors file's checked header and its data."""
    length = struct.unpack("<Q", blob[:8])[0] if len(blob) >= 8 else 0
    if not 2 <= length <= len(blob) - 8:
        raise ModelError(f"{path.name} is not a safetensors file, or it is truncated", code="damaged-model")
    data = memoryview(blob)[8 + length :]
    return _parse_header(blob[8 : 8 + length], len(data), path), data


def _digest(card: str, header: Mapping[str, Any], data: bytes | memoryview) -> str:
    """SHA-256 (hex) of the card's text, the tensors' names, types, shapes and places, and their bytes.

    The text and not the card it decodes to: a later version of `ModelCard` may have more fields.
    """
    digest = hashlib.sha256(card.encode())
    digest.update(canonical({name: tensor for name, tensor in header.items() if name != "__metadata__"}))
    digest.update(data)
    return digest.hexdigest()


def _version(card: ModelCard) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", card.version))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
