"""FASR-Net: super-resolution guided by a sharp image of the same anatomy in another contrast.

Liu, Zhang, Zhang, Hou, Liu, Lian, Jiang: "Flexible alignment super-resolution network for multi-contrast MRI", section III. Three
parts: a VGG-19 texture extractor (eqs. 4-6), flexible alignment by hard attention (S-A, eqs. 7-13; M-A, eqs. 14-16), and cross-
hierarchical progressive fusion with soft attention (CHPF, eqs. 17-21).

Where the paper is silent, this is how it is read here. A token is a patch of `patch` x `patch` pixels, cut without overlap
("unfold" with a stride of the patch), at every scale. In S-A a token's value is embedded ("linear") to the patch that the same
place has at the value's own scale, so that eq. 17 can concatenate it with M-A's. In M-A values are cut so that every scale has as
many tokens as the 4x one, which lets one index map warp them all. The "matrix multiplication" of eq. 21 is element by element, as
its sizes demand.
Eqs. 17-21 never say where the low-resolution image's own features enter: they are added to what the fusion transfers.
The inner products of eqs. 10 and 14 are divided by the root of the tokens' length, and S_MA of eq. 19, a maximum of sums of three,
by 3. The features of eq. 23 are those after relu3_2. Images span about [0, 1], the paper's [-1, 1].

Ours beyond the paper, all off by default: a prior that prefers matches near the same place, because a clinical reference has been
registered (`prior`); cosine similarity; soft attention applied before the fusion, which then also sees the image's own features and
so is a whole network when there is no reference (`modulate="input"`); the interpolated input added to the output (`skip`).

Ours too, and what the shipped models are: a single-image network inside (`base`), frozen, whose answer takes the place of the
interpolated input, as its answer to the degraded reference takes that of the interpolated reference. The rest then learns only what
the reference adds, starts at nothing, and is exactly nothing where no reference is valid. With `hints` the fusion also sees a guess
of that, as a guided filter would make it (He, Sun, Tang 2013): what the base misses in the reference, times the local slope
between the two contrasts, and the local correlation that says how far to trust it. No gain or offset of the reference changes it.
With both, what the reference adds fades where the two images do not correlate (`trust_map`). With `detail`, it loses what it would
be when made coarse again: low frequencies are the scan's own to tell. With `room`, it fades where the scan's own spectrum says that
there is little more: scans that a scanner has interpolated are not to be sharpened (`room_for_detail`).
"""

from __future__ import annotations

from .extractor import TextureExtractor
from .hints import HINT_CHANNELS
from .network import FASR, SIZES, build

__all__ = ["FASR", "HINT_CHANNELS", "SIZES", "TextureExtractor", "build"]
