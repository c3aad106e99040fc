"""Networks kept in memory between jobs of one process, which a worker that serves many asks for."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from .card import ModelEntry
from .package import load_network

if TYPE_CHECKING:
    from torch import nn

_kept: OrderedDict[str, nn.Module] = OrderedDict()
_most = 0


def keep_networks(most: int) -> None:
    """Keep the `most` networks that were used last, wherever they are (CPU or GPU); 0 forgets them all."""
    global _most
    _most = most
    while len(_kept) > _most:
        _kept.popitem(last=False)


def kept_network(entry: ModelEntry) -> nn.Module:
    """The network of `entry` for inference, in evaluation mode: the one kept, or loaded. Raises what `load_network` raises.

    The file's digest, not its name, tells whether it is the same network.
    """
    network = _kept.pop(entry.digest, None) or load_network(entry)
    if _most:
        _kept[entry.digest] = network
        keep_networks(_most)
    return network
