"""The words of a request, each list written once: tasks, planes, slice profiles, precisions."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["super-resolve", "reference-guided", "translate"]
# a prior is another model's first stage; what flags goes with translations
ModelTask = Literal["super-resolve", "reference-guided", "translate", "prior", "flag"]
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
