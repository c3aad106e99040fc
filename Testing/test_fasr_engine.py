"""Guided super-resolution from the shell: a reference lying otherwise, references that cannot help, and ones that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors.torch import load_file
from scipy import ndimage

from MRSuperResLib import cli, models, networks
from MRSuperResLib.acquisition import acquire
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, planning
from MRSuperResLib.inference.options import Aligned
from MRSuperResLib.inference.registration import moved
from MRSuperResLib.inference.super_resolution import answering, super_resolve
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.models import ModelCard, Requirements, Score, read_entry
from MRSuperResLib.provenance import sidecar_path
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume

BASE = {"blocks": 1, "width": 8, "heads": 2, "growth": 4, "window": 4, "skip": "bicubic"}
GUIDED = {"size": "s", "widths": [4, 4, 4], "stages": 1, "embedding": 4, "hints": True}
GRID = Grid((64, 72, 20), (1.5, 1.5, 4.0), (-47.0, -53.0, -38.0))


def save(folder: Path, name: str, architecture: str, hyperparameters: dict[str, Any], **changes: Any) -> Path:
    """A package of weights that do something, small enough to run in a blink; a guided one without `changes` has a base."""
    import torch

    torch.manual_seed(1)
    network = networks.build(architecture, hyperparameters)
    guided = architecture == "fasr"
    torch.nn.init.normal_((network.decoder if guided else network).tail.weight, std=0.05)
    if hyperparameters.get("base") and (folder / "single.safetensors").exists():
        network.base.load_state_dict(load_file(folder / "single.safetensors"))  # type: ignore[union-attr]
    card = ModelCard(
        **{
            "id": name,
            "title": "Tiny",
            "version": "1",
            "architecture": architecture,
            "hyperparameters": hyperparameters,
            "task": "reference-guided" if guided else "super-resolve",
            "plane": "in-plane",
            "factors": (2, 2),
            "contrasts": ("any",),
            "reference_contrasts": ("any",) if guided else (),
            "spacing": None,
            "licence": "Apache-2.0",
            "intended_use": "Tests",
            "requirements": Requirements(smallest=4, multiple_of=4),
        }
        | changes
    )
    path = folder / f"{name}.safetensors"
    models.save_model(path, card, network.state_dict())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head in two contrasts, the first coarse; models with and without a base; a single-image model for in-plane x2."""
    folder = tmp_path_factory.mktemp("engine")
    rng = np.random.default_rng(0)
    k, j, i = np.meshgrid(*((np.arange(n) - n / 2) / (n / 2) for n in GRID.shape), indexing="ij")
    inside = (k / 0.9) ** 2 + (j / 0.8) ** 2 + (i / 0.7) ** 2 < 1
    inside &= ~((j > 0.3) & (i > 0.2))  # no symmetry: a flipped head is another head
    tissue = ndimage.gaussian_filter(rng.standard_normal(GRID.shape), (0.8, 2.0, 2.0))
    tissue = inside * (1.5 + tissue / tissue.std())
    truth = Volume(np.where(inside, 400 + 150 * tissue, 0).astype(np.float32), GRID, "T2w")
    other = Volume(np.where(inside, 500 - 200 * np.abs(tissue - 1.0), 0).astype(np.float32), GRID, "T1w")
    write_volume(truth, folder / "truth.nii.gz")
    write_volume(acquire(truth, (2.0, 2.0, 1.0)), folder / "scan.nii.gz")
    write_volume(other, folder / "reference.nii.gz")
    (folder / "models").mkdir()
    base = {**BASE, "factors": [2, 2]}
    best = Score("scan", "in-plane", "bicubic", 90.0, 0.9, 0.01, {"bspline": (30.0, 0.8)})  # beside whatever ships
    save(folder / "models", "single", "rdst", base, metrics=(best,))
    around = {**GUIDED, "factors": [2, 2], "base": {"architecture": "rdst", "hyperparameters": base}}
    save(folder / "models", "guided", "fasr", around)
    save(folder / "models", "bare", "fasr", {**GUIDED, "factors": [2, 2]})
    return folder


def run(
    folder: Path, out: Path, reference: Path | str, *more: str, model: str = "guided"
) -> tuple[int, dict[str, Any]]:
    """The exit code of `mrsuperres run`, and the sidecar of its result."""
    code = cli.main(
        [
            "run", str(folder / "scan.nii.gz"), "-o", str(out), "--model", model, "--reference", str(reference),
            "--models", str(folder / "models"), "--device", "cpu", "--threads", "1", *more,
        ]
    )  # fmt: skip
    sidecar = Path(sidecar_path(str(out)))
    return code, json.loads(sidecar.read_text()) if sidecar.exists() else {}


def codes(record: dict[str, Any]) -> set[str]:
    return {warning["code"] for warning in record["warnings"]}


def test_a_reference_on_another_grid_and_orientation_and_field_of_view_guides_as_on_the_same_one(
    folder: Path, tmp_path: Path
) -> None:
    """Stored sagittally, finer, and cut: where it has data the answer is what the plain reference gives."""
    code, plain = run(folder, tmp_path / "plain.nii.gz", folder / "reference.nii.gz")
    assert code == 0 and plain["registration"]["used"] and "answered_by" not in plain["registration"]
    there = read_volume(folder / "reference.nii.gz")
    fine = resample(there, there.grid.refine((1.0, 1.0, 2.0)), "bspline").crop((0, 0, 0), (64, 60, 40))
    image = sitk.GetImageFromArray(fine.array)
    image.SetSpacing(fine.grid.spacing)
    image.SetOrigin(fine.grid.origin)
    image.SetDirection(fine.grid.direction)
    sitk.WriteImage(sitk.DICOMOrient(image, "PIR"), str(tmp_path / "sagittal.nrrd"))
    code, record = run(folder, tmp_path / "sagittal.nii.gz", tmp_path / "sagittal.nrrd")
    assert code == 0 and record["registration"]["used"] and 0.7 < record["registration"]["overlap"] < 1
    one, other = read_volume(tmp_path / "plain.nii.gz"), read_volume(tmp_path / "sagittal.nii.gz")
    assert other.grid.same_as(one.grid) and one.grid.size == (64, 72, 20)
    alone = super_resolve(
        read_volume(folder / "scan.nii.gz"),
        read_entry(folder / "models" / "single.safetensors"),
        warn=lambda c, m: None,
    )
    added = [(answer.array - alone.array)[2:-2, :40].ravel() for answer in (one, other)]
    assert np.corrcoef(added)[0, 1] > 0.9 and np.abs(added[0]).max() > 50
    np.testing.assert_allclose(other.array[:, 61:], alone.array[:, 61:], atol=1e-2)  # there is no reference there


def test_a_patient_who_moved_is_registered_unless_told_not_to(folder: Path, tmp_path: Path) -> None:
    shift = np.eye(4)
    shift[:3, 3] = (4.5, 3.0, 0.0)
    write_volume(moved(read_volume(folder / "reference.nii.gz"), shift), tmp_path / "moved.nii.gz")
    code, record = run(folder, tmp_path / "a.nii.gz", tmp_path / "moved.nii.gz")
    assert code == 0 and record["registration"]["moved"] and "reference-moved" in codes(record)
    assert record["registration"]["shift_mm"] == pytest.approx(np.hypot(4.5, 3.0), abs=1.0)
    code, record = run(folder, tmp_path / "b.nii.gz", tmp_path / "moved.nii.gz", "--no-register")
    assert code == 0 and not record["registration"]["moved"] and record["registration"]["searched"] is False


@pytest.mark.parametrize(("model", "answers"), [("guided", "guided"), ("bare", "single")])
def test_a_strangers_reference_costs_nothing_and_is_told(
    model: str, answers: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise, and the same head upside down, as a wrongly written orientation leaves it: the single-image answer comes out."""
    alone = tmp_path / "alone.nii.gz"
    single = [
        "run",
        str(folder / "scan.nii.gz"),
        "-o",
        str(alone),
        "--model",
        "single",
        "--models",
        str(folder / "models"),
    ]
    assert cli.main([*single, "--device", "cpu"]) == 0
    reference = read_volume(folder / "reference.nii.gz")
    noise = np.random.default_rng(3).random(reference.array.shape).astype(np.float32)
    for name, array in {"noise": noise, "flipped": reference.array[:, ::-1]}.items():
        write_volume(Volume(np.ascontiguousarray(array), reference.grid), tmp_path / f"{name}.nii.gz")
        capsys.readouterr()
        code, record = run(
            folder, tmp_path / f"out-{name}.nii.gz", tmp_path / f"{name}.nii.gz", "--no-register", model=model
        )
        assert code == 0 and {"reference-unlike", "without-reference"} <= codes(record)
        assert record["registration"]["used"] is False and record["registration"].get("answered_by", model) == answers
        assert "no reference is used" in capsys.readouterr().err
        np.testing.assert_array_equal(read_volume(tmp_path / f"out-{name}.nii.gz").array, read_volume(alone).array)


def test_the_contrast_of_a_reference_is_checked_as_that_of_the_scan(folder: Path, tmp_path: Path) -> None:
    """By the file's name unless it is said; a reference of the scan's own contrast adds little, and that is said too."""
    (tmp_path / "models").mkdir()
    save(tmp_path / "models", "strict", "fasr", {**GUIDED, "factors": [2, 2]}, reference_contrasts=("T1w", "FLAIR"))
    proton = tmp_path / "sub-01_PDw.nii.gz"
    proton.write_bytes((folder / "reference.nii.gz").read_bytes())
    more = ["--models", str(tmp_path / "models"), "--no-register"]

    def told(*options: str) -> str:
        code, record = run(folder, tmp_path / "sr.nii.gz", proton, *more, *options, model="strict")
        assert code == 0
        return " ".join(warning["message"] for warning in record["warnings"] if warning["code"] == "outside-training")

    assert "references of T1w and FLAIR, this one is PDw" in told("--contrast", "T2w")
    assert told("--contrast", "T2w", "--reference-contrast", "t1") == ""
    assert "one of T1w too adds little but sharpness" in told("--contrast", "T1w", "--reference-contrast", "T1w")
    assert run(folder, tmp_path / "sr.nii.gz", proton, *more, "--reference-contrast", "x", model="strict")[0] == 2


def test_the_shell_says_in_one_line_what_became_of_the_reference(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = read_volume(folder / "reference.nii.gz")
    shift = np.eye(4)
    shift[:3, 3] = (4.5, 3.0, 0.0)
    write_volume(moved(reference, shift), tmp_path / "moved.nii.gz")
    for path, options, expected in (
        (folder / "reference.nii.gz", (), r"registered, its header was right; similarity 0\.\d{3}"),
        (tmp_path / "moved.nii.gz", (), r"registered, moved by 5\.\d mm and 0\.\d degrees; similarity 0\.\d{3}"),
        (tmp_path / "moved.nii.gz", ("--no-register",), r"its header is trusted; similarity 0\.\d{3}; not used"),
    ):
        capsys.readouterr()
        run(folder, tmp_path / "sr.nii.gz", path, *options)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("reference: ")]
        assert len(lines) == 1 and re.fullmatch(f"reference: {expected}", lines[0]), lines


def test_of_several_single_image_models_the_one_that_gained_most_answers(folder: Path, tmp_path: Path) -> None:
    for name, psnr in {"worse": 90.0, "better": 91.0}.items():
        score = Score("scan", "in-plane", "bicubic", psnr, 0.9, 0.01, {"bspline": (30.0, 0.8)})
        save(tmp_path, name, "rdst", {**BASE, "factors": [2, 2]}, metrics=(score,))
    save(tmp_path, "other-factor", "rdst", {**BASE, "factors": [3, 3]}, factors=(3, 3))
    bare = read_entry(folder / "models" / "bare.safetensors")
    nothing = Aligned(read_volume(folder / "reference.nii.gz"), np.zeros(GRID.shape, dtype=bool))
    options = Options(model_folders=(str(tmp_path),))
    assert answering(bare, nothing, options).card.id == "better"
    assert answering(bare, Aligned(nothing.volume, ~nothing.valid), options) is bare
    odd = read_entry(save(tmp_path, "odd", "fasr", {**GUIDED, "factors": [5, 5]}, factors=(5, 5)))
    assert answering(odd, nothing, options) is odd  # no single-image model has that factor


def test_a_coarse_matrix_is_refined_within_its_slices() -> None:
    """Slices thinner than their pixels, a few only: the slice axis is the one across square pixels, not the coarsest."""
    card = next(e.card for e in models.list_models() if e.card.plane == "in-plane" and e.card.factors == (4, 4))
    for size, spacing, axis in (
        ((40, 48, 4), (2.88, 2.88, 1.0), 2),
        ((4, 48, 40), (1.0, 4.0, 4.0), 0),
        ((40, 4, 48), (3.0, 1.2, 3.0), 1),
        ((64, 64, 20), (0.7, 0.7, 4.0), 2),
        ((64, 20, 64), (0.7, 4.0, 0.9), 1),
        ((64, 64, 64), (1.0, 1.0, 1.0), 2),
    ):
        made = planning.plan(Grid(size, spacing), card)
        assert made.slice_axis == axis and made.target.size[axis] == size[axis]
        assert all(made.target.size[other] == 4 * size[other] for other in range(3) if other != axis)
    assert planning.plan(Grid((40, 48, 16), (2.88, 2.88, 1.0)), card, slice_axis=0).slice_axis == 0


def test_a_whole_scan_of_few_slices_is_guided_within_them(folder: Path, tmp_path: Path) -> None:
    scan = read_volume(folder / "scan.nii.gz")
    grid = Grid((32, 36, 6), (3.0, 3.0, 1.0), scan.grid.origin)
    write_volume(Volume(scan.array[7:13], grid), tmp_path / "few.nii.gz")
    fine = Grid((64, 72, 6), (1.5, 1.5, 1.0), GRID.origin)
    write_volume(Volume(read_volume(folder / "reference.nii.gz").array[7:13], fine), tmp_path / "ref.nii.gz")
    base = ["run", str(tmp_path / "few.nii.gz"), "--model", "guided", "--reference", str(tmp_path / "ref.nii.gz")]
    base += ["--models", str(folder / "models"), "--device", "cpu", "--no-register"]
    assert cli.main([*base, "-o", str(tmp_path / "sr.nii.gz")]) == 0
    assert read_volume(tmp_path / "sr.nii.gz").grid.size == (64, 72, 6)
    assert cli.main([*base, "-o", str(tmp_path / "sr0.nii.gz"), "--slice-axis", "0"]) == 0
    assert read_volume(tmp_path / "sr0.nii.gz").grid.size == (32, 72, 12)


def test_thick_slices_are_guided_through_the_plane(folder: Path, tmp_path: Path) -> None:
    """Factors (4, 1), as the single-image models': both orthogonal views see the reference, and their answers are fused."""
    base = {**BASE, "factors": [4, 1]}
    hyper = {**GUIDED, "factors": [4, 1], "base": {"architecture": "rdst", "hyperparameters": base}}
    (tmp_path / "models").mkdir()
    save(tmp_path / "models", "thick", "fasr", hyper, plane="through-plane", factors=(4, 1))
    truth, reference = read_volume(folder / "truth.nii.gz"), read_volume(folder / "reference.nii.gz")
    iso = Grid((32, 36, 80), (3.0, 3.0, 1.0), GRID.origin)
    low = acquire(resample(truth, iso, "linear"), (1.0, 1.0, 4.0))
    write_volume(low, tmp_path / "thick.nii.gz")
    sharp = resample(reference, iso, "linear")
    write_volume(sharp, tmp_path / "sharp.nii.gz")
    common = [
        "run",
        str(tmp_path / "thick.nii.gz"),
        "--model",
        "thick",
        "--models",
        str(tmp_path / "models"),
        "--device",
        "cpu",
    ]
    code = cli.main([*common, "--reference", str(tmp_path / "sharp.nii.gz"), "-o", str(tmp_path / "sr.nii.gz")])
    assert code == 0
    answer = read_volume(tmp_path / "sr.nii.gz")
    assert answer.grid.size == (32, 36, 80) and answer.grid.spacing == pytest.approx((3.0, 3.0, 1.0))
    changed = Volume(sharp.array * (1 + 0.3 * np.sin(np.arange(80)))[:, None, None].astype(np.float32), iso)
    write_volume(changed, tmp_path / "changed.nii.gz")
    changed_code = cli.main(
        [*common, "--reference", str(tmp_path / "changed.nii.gz"), "-o", str(tmp_path / "sr2.nii.gz"), "--no-register"]
    )
    assert changed_code == 0 and np.abs(read_volume(tmp_path / "sr2.nii.gz").array - answer.array).max() > 1.0


def _labels(folder: Path) -> sitk.Image:
    return sitk.Cast(sitk.ReadImage(str(folder / "reference.nii.gz")) > 300, sitk.sitkUInt8) * 3


def _four(folder: Path) -> sitk.Image:
    image = sitk.ReadImage(str(folder / "reference.nii.gz"))
    return sitk.JoinSeries([image, image, image])


def _constant(folder: Path) -> sitk.Image:
    return sitk.ReadImage(str(folder / "reference.nii.gz")) * 0.0


def _far(folder: Path) -> sitk.Image:
    image = sitk.ReadImage(str(folder / "reference.nii.gz"))
    image.SetOrigin((900.0, 0.0, 0.0))
    return image


def _coarse(folder: Path) -> sitk.Image:
    image = sitk.ReadImage(str(folder / "scan.nii.gz"))
    return sitk.Shrink(image, (2, 2, 1))


@pytest.mark.parametrize(
    ("made", "expected", "exit_code"),
    [
        (None, "does not exist", 3),
        ("empty", "is empty (0 bytes)", 3),
        (_constant, "the same value", 3),
        (_far, "different places", 3),
        (_coarse, "must be finer than the scan", 3),
        (_four, "4D", 3),
        (_labels, "label map", 3),
    ],
)
def test_a_reference_that_cannot_be_one_is_refused_in_one_line(
    made: Any, expected: str, exit_code: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.nii.gz"
    if made == "empty":
        path.touch()
    elif made is not None:
        sitk.WriteImage(made(folder), str(path))
    capsys.readouterr()
    code, record = run(folder, tmp_path / "sr.nii.gz", path)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code != 0 and len(lines) == 1 and expected in lines[0] and "reference" in lines[0], said
    assert "Traceback" not in said and not record and not (tmp_path / "sr.nii.gz").exists()
    assert code == exit_code


def test_a_scan_finer_than_what_is_asked_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = run(folder, tmp_path / "sr.nii.gz", folder / "reference.nii.gz", "--spacing", "4", "4", "4")
    said = capsys.readouterr().err
    assert code != 0 and said.count("error: ") == 1 and "nothing to refine" in said and "Traceback" not in said
