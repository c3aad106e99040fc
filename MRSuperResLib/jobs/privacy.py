"""Records without names: paths and file names, which may name a patient, are replaced by what the files are."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..contrasts import CONTRASTS
from .job import Job

PLAIN = {"scan", "input", "reference", "truth", *CONTRASTS}  # words of our warnings: a file called so names nobody


def without_names(message: str, job: Job) -> str:
    """`message` with the job's paths and volumes' names, which may name a patient, replaced by what they are."""
    from ..io.formats import volume_name

    roles: dict[str, str] = {}
    for role in ("input", "reference", "truth", "output"):
        path = getattr(job, role)
        if path:
            stem = {volume_name(path)} - PLAIN if role != "output" else set()
            roles |= dict.fromkeys({path, str(Path(path)), Path(path).name} | stem, role)
            if role == "input" and os.path.isdir(path):  # files of a DICOM series may be called after the patient
                roles |= {name: "input's file" for name in os.listdir(path) if name in message}
    names = "|".join(re.escape(name) for name in sorted(roles, key=len, reverse=True) if name)
    whole = rf"(?:the ({'|'.join(set(roles.values()))}) )?(?<![^\W_])({names})(?![^\W_])"
    return re.sub(whole, lambda found: f"the {found[1] or roles[found[2]]}", message)
