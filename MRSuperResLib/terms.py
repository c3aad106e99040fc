"""The words of a request, each list written once: tasks, planes, slice profiles, precisions; and what scores mean."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["super-resolve", "reference-guided", "translate"]
# a prior is another model's first stage; what flags, and what knows of errors, goes with translations
ModelTask = Literal["super-resolve", "reference-guided", "translate", "prior", "flag", "error"]
Plane = Literal["in-plane", "through-plane"]
ModelPlane = Literal["in-plane", "through-plane", "any"]
Profile = Literal["gaussian", "box", "sinc", "kspace", "bicubic"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

TASKS: tuple[Task, ...] = get_args(Task)
PROFILES: tuple[Profile, ...] = get_args(Profile)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PLANES: dict[str, Plane] = {  # how a plane may be written
    "in-plane": "in-plane",
    "inplane": "in-plane",
    "through-plane": "through-plane",
    "through": "through-plane",
}

TRANSLATION_SCORES = """\
answer: "mean of N" is the result; "input" is the scan as it is, "matched input" with its histogram made the truth's.
PSNR, SSIM, NMSE: in the head's box. PSNR/slice: the mean over slices. fit dB, fit SSIM: after the linear change of brightness
and contrast that fits the truth best inside the head. coherence: how much neighbouring slices differ, over the truth's: 1 is as
in the truth, more is flicker from slice to slice; smoothed: the same without noise, after a blur within the slices.
uncertainty: does the map tell the error? It is an error network's where one is installed for the model, else the samples'
deviation. Spearman: rank correlation of map and error (1 at best); scale: error over map, or over the deviation; gap: what is
left between both after scaling; 90 % intervals should hold 90 %, the narrower the better. Dice: of tissues found in the result
and in the truth (1 at best). realism: distance of samples to the truth (small is good); diversity: between samples."""
