"""One definition of a job: what the shell, the schema, the checks and Slicer say of a field is what the field says."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import REPOSITORY

from MRSuperResLib import cli, fidelity, jobs, terms
from MRSuperResLib.errors import UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options
from MRSuperResLib.jobs import Job
from MRSuperResLib.jobs.job import FIELDS, fields, schema

PLAIN = {"input": "a.nii", "output": "b.nii", "model": "m"}


def test_every_field_of_a_job_says_what_it_is_and_how_it_is_run_is_a_part_of_it() -> None:
    assert [field.name for field in dataclasses.fields(Job)] == list(FIELDS)
    assert all(len(field.help) > 8 for field in fields())
    assert {field.name for field in dataclasses.fields(Options)} <= set(FIELDS)
    with pytest.raises(UsageError, match="thickness"):
        Job(**PLAIN, thickness=-1.0).check()


def made(command: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job that a command line asks for."""
    asked: list[Job] = []
    monkeypatch.setattr(jobs, "execute", lambda job, *_: asked.append(job) or 0)
    cli.main(command.split())
    return asked[0]


def value_of(field: Any) -> tuple[list[str], Any]:
    """Words for a shell and what they mean, other than the default."""
    if field.kind is bool:
        return [], not field.default
    if field.choices:
        other = next(choice for choice in reversed(field.choices) if choice != field.default)
        return [str(other)], other
    if field.aliases:
        return ["through"], "through-plane"
    value = {str: "x.nii", int: 2, float: 2.5}[field.kind]
    if field.count == 0:
        return [str(value)], (value,)
    return [str(value)] * (field.count or 1), (value,) * field.count if field.count else value


@pytest.mark.parametrize("name", [field.name for field in fields() if field.flags and not field.required])
def test_every_field_can_be_given_in_the_shell_and_in_json_and_means_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """profile, slice_axis, reference_contrast and thickness among them."""
    field = FIELDS[name]
    words, value = value_of(field)
    command = "translate" if "translate" in field.tasks else "run"
    asked = made(f"{command} a.nii -o b.nii -m m {field.flags[0]} {' '.join(words)}", monkeypatch)
    assert getattr(asked, name) == value != field.default
    assert Job.from_json({**json.loads(asked.to_json()), **needed(name)}) == dataclasses.replace(asked, **needed(name))


def needed(name: str) -> dict[str, Any]:
    """What a job with that field cannot do without."""
    more: dict[str, Any] = {"error_map": {"truth": "t.nii"}}.get(name, {})
    if FIELDS[name].tasks == ("reference-guided",):
        more = {"task": "reference-guided", "reference": "r.nii"}
    return more


def test_the_schema_accepts_what_a_job_accepts_and_says_the_same_of_each_field() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "MRSuperResLib", "worker", "--schema"], cwd=REPOSITORY, capture_output=True, text=True
    )
    printed = json.loads(done.stdout)
    assert done.returncode == 0 and printed == json.loads(json.dumps(schema()))
    assert printed["required"] == ["input", "output", "model"] and printed["additionalProperties"] is False
    properties = printed["properties"]
    assert set(properties) == set(FIELDS)
    assert properties["samples"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 100}
    assert properties["factor"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 1}
    assert properties["spacing"]["anyOf"][0]["minItems"] == 3
    assert properties["profile"]["enum"] == list(terms.PROFILES) and properties["profile"]["default"] == "gaussian"
    assert properties["slice_axis"]["anyOf"][0]["enum"] == [0, 1, 2]
    for name, field in FIELDS.items():
        assert properties[name]["description"] == field.help
        if not field.required:
            assert properties[name]["default"] == json.loads(json.dumps(field.default))


def test_fields_are_listed_for_a_task_without_torch() -> None:
    """As Slicer's own process does it."""
    code = (
        "import sys; from MRSuperResLib.jobs.job import fields;"
        "print(*[field.name for field in fields('translate')]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    names, torch = done.stdout.splitlines()
    assert torch == "False", done.stderr
    assert {"target", "samples", "seed"} <= set(names.split()) and "project" not in names.split()


def test_the_home_folder_is_expanded_once_wherever_a_path_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    paths = [name for name, field in FIELDS.items() if field.role in ("input", "output", "model")]
    job = Job(**dict.fromkeys(paths, "~/x.nii"), model_folders=("~/x.nii",))
    assert {getattr(job, name) for name in paths} == {os.path.join(tmp_path, "x.nii")}
    assert job.model_folders == (os.path.join(tmp_path, "x.nii"),)
    assert Job(**PLAIN).input == "a.nii", "a relative path stays as it was given"


def test_a_slice_thinner_than_its_spacing_is_compared_as_one_with_gaps() -> None:
    acquired = Grid((8, 8, 4), (1.0, 1.0, 4.0))
    fine = acquired.refine((1.0, 1.0, 4.0))
    ramp = np.zeros(fine.shape, np.float32)
    ramp[5] = 1.0  # the middle of the second thick slice
    whole = fidelity.acquisition_between(acquired, fine, 2, "box").apply(ramp)
    thin = fidelity.acquisition_between(acquired, fine, 2, "box", 2.0).apply(ramp)
    assert whole[1, 0, 0] == pytest.approx(1 / 4) and thin[1, 0, 0] == pytest.approx(1 / 2)
    with pytest.raises(UsageError, match=r"slice thickness is 40 mm, expected 0\.4 to 16 mm"):
        fidelity.acquisition_between(acquired, fine, 2, "box", 40.0)


def test_what_a_flag_turns_off_is_said_in_its_help() -> None:
    """`--no-register` must not read as its opposite: the text of the field and that of the flag are two."""
    for field in FIELDS.values():
        assert bool(field.off) == (field.kind is bool and field.default is True and bool(field.flags)), field.name
