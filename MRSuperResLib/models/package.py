"""A model's file: a `.safetensors` whose metadata carries the card and the digest of card and weights.

The card is read without torch (a safetensors file begins with the length of a JSON header, and the header). Weights are read only
by `load_network`, never unpickled, and only after their digest has been checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..documents import canonical
from ..errors import ModelError
from ..staging import write_whole
from .card import INTERPOLATION, ModelCard, ModelEntry

if TYPE_CHECKING:
    import torch
    from torch import nn

SUFFIX = ".safetensors"
LONGEST_HEADER = 16 * 2**20  # bytes; ours take a few hundred kB, more means a file that is not what it says
LARGEST_FILE = 2**31  # bytes
LARGEST_SIZE = 2**14  # of a hyperparameter: channels, blocks, pixels
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"F64": 64, "I64": 64, "U64": 64}


def read_entry(path: str | os.PathLike[str]) -> ModelEntry:
    """The model in the file at `path`; its header is checked, its weights are not read (see `verify`)."""
    path = Path(path)
    try:
        path = path.resolve()
        status = path.stat()
    except (OSError, RuntimeError) as error:  # a link that leads to itself is a RuntimeError before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else "it is a link that leads to itself"
        raise ModelError(f"{path} cannot be read: {reason}", code="unknown-model") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited on
        raise ModelError(f"{path.name} is no regular file", code="damaged-model")
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
    write_whole(path, blob)
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

    from .. import networks

    if entry.path is None:
        raise ModelError(f"'{entry.card.id}' is interpolation and has no network", code="no-weights")
    blob = _read_verified(entry)
    _check_sizes(entry)
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
        network = cast(Any, network).for_inference()
    return network.to(memory_format=torch.channels_last) if _convolutional(network) else network  # type: ignore[call-overload]


def _check_sizes(entry: ModelEntry) -> None:
    """Raise `ModelError` for hyperparameters that no network of a sane size has: building it would fill the memory."""
    waiting: list[Any] = [entry.card.hyperparameters]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list, tuple)):
            inside = list(value.values()) if isinstance(value, dict) else list(value)
            waiting += inside
            value = len(inside)
        if isinstance(value, (int, float)) and not abs(value) <= LARGEST_SIZE:
            text = f"'{entry.card.id}': its card has a hyperparameter of {value}, expected {LARGEST_SIZE} at most"
            raise ModelError(text, code="bad-card")


def _convolutional(network: nn.Module) -> bool:
    """Whether most weights are 2D convolutions': those run 10 to 20 % faster channels-last, transformers 3 % slower."""
    sizes = [(tensor.ndim == 4 and tensor.shape[-1] > 1, tensor.numel()) for tensor in network.parameters()]
    return 2 * sum(size for spatial, size in sizes if spatial) > sum(size for _, size in sizes)


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
    if isinstance(metadata, dict) and "progress" in metadata:
        raise ModelError(
            f"{path.name} is the checkpoint of a training, from which 'mrsuperres train --resume' goes on; the models to run are "
            "the .safetensors files beside it",
            code="foreign-model",
        )
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
        if entry.path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{entry.path.name} is larger than {LARGEST_FILE // 2**30} GiB", code="damaged-model")
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
