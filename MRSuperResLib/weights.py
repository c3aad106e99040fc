"""Somebody else's weights: a local safetensors file whose digest is checked, never a pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MissingRequirement, ModelError

if TYPE_CHECKING:
    import torch


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
