"""What the module's logic says before a run: which models suit, what they need, which contrast, which names, what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
import vtk  # noqa: E402
from panel.nodes import volume  # noqa: E402

pytestmark = pytest.mark.usefixtures("scene")


def test_models_offered_suit_the_task_and_say_why_not(logic: Any) -> None:
    node = volume()
    offered, _ = logic.suitable(node, "through-plane", "T2w")
    assert {"linear", "bspline", "lanczos"} <= {entry.card.id for entry in offered}
    assert all(entry.card.plane in ("any", "through-plane") for entry in offered)
    shipped = [entry for entry in logic.models() if not entry.card.is_baseline and entry.card.task == "super-resolve"]
    node = volume("wide", size=(80, 80, 12))
    for entry in shipped:
        task, covered = entry.card.plane, entry.card.spacing
        node.SetSpacing(*[sum(covered.in_plane) / 2] * 2, covered.through_plane[1])
        assert entry in logic.suitable(node, task, entry.card.contrasts[0])[0]
        hidden = {other.card.id: reason for other, reason in logic.suitable(node, task, "PDw")[1]}
        if "PDw" not in entry.card.contrasts:
            assert "this scan is PDw" in hidden[entry.card.id]
        node.SetSpacing(*[covered.in_plane[1] * 3] * 2, covered.through_plane[1] * 3)
        hidden = {other.card.id: reason for other, reason in logic.suitable(node, task)[1]}
        assert f"trained on slices of {covered.through_plane[0]:g} to" in hidden[entry.card.id]
        assert "Research use only" in logic.describe(entry)
    assert "for comparison" in logic.describe(offered[-1])


def test_size_memory_and_overlap_are_known_before_running(logic: Any) -> None:
    from MRSuperResLib.errors import MRSuperResError

    node, other = volume(), volume("other")
    found = logic.estimate(node, "bspline", factor=2, plane="through-plane")
    assert found.grid.size == (14, 12, 16) and found.memory > 0
    with pytest.raises(MRSuperResError):
        logic.estimate(node, "bspline", factor=1, plane="through-plane")
    assert logic.overlap(node, other) == 1.0
    toRAS = vtk.vtkMatrix4x4()
    other.GetIJKToRASMatrix(toRAS)
    toRAS.SetElement(0, 3, toRAS.GetElement(0, 3) + 7.0)
    other.SetIJKToRASMatrix(toRAS)
    assert 0.4 < logic.overlap(node, other) < 0.6


def test_the_memory_of_a_translation_is_that_of_its_largest_step_and_its_samples(logic: Any) -> None:
    node, size = volume(size=(64, 60, 10)), {"factor": 4, "plane": "in-plane"}
    first = logic.estimate(node, "rdst-e-inplane-x4", **size)
    both = logic.estimate(node, "mtsr-mt-s", **size, firstModel="rdst-e-inplane-x4")
    assert both.grid == first.grid and both.memory >= first.memory
    assert both.memory > logic.estimate(node, "mtsr-mt-s").memory
    kept = logic.estimate(node, "mtsr-mt-s", **size, firstModel="rdst-e-inplane-x4", keptSamples=10**4)
    voxels = 10**4 * int(np.prod(first.grid.size))
    assert 4 * voxels < kept.memory <= both.memory + 4 * voxels


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_T1w", "T1w"), ("Ax T2 FSE", "T2w"), ("t2_flair_3d", "FLAIR"), ("MPRAGE sag", "T1w"), ("3: T1 post", "T1w"),
        ("PD TSE", "PDw"), ("proton density", "PDw"), ("localizer", ""), ("ep2d_bold", ""), ("MRBrainTumor1", ""),
        ("sub-01_T2w_space-T1w", "T2w"), ("sub-01_space-T1w_T2w", "T2w"), ("T2 registered to T1", "T2w"),
        ("t2 space sag", "T2w"), ("T2 FLAIR", "FLAIR"), ("PD_T2", ""), ("T1 head as T2w (mtsr-mt-s)", ""),
    ],
)  # fmt: skip
def test_contrast_is_guessed_from_the_name(logic: Any, name: str, contrast: str) -> None:
    assert logic.guessContrast(volume(name)) == contrast


def test_names_of_results() -> None:
    from MRSuperResSupport.scene import resultName

    assert resultName("T2 thick", "rdst-e-through-x4", 4.0) == "T2 thick SR x4 (rdst-e)"
    assert resultName("scan", "rdst-e-inplane-x2", 1.5) == "scan SR x1.5 (rdst-e)"
    assert resultName("T1", "mtsr-mt", target="T2") == "T1 as T2w (mtsr-mt)"
    assert resultName("T1", "mtsr-mt", 4.0, "T2w", "rdst-e-inplane-x4") == "T1 SR x4 (rdst-e) as T2w (mtsr-mt)"


def test_nothing_is_installed_for_interpolation_and_missing_parts_are_explained(
    logic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MRSuperResSupport import requirements

    from MRSuperResLib.errors import MissingRequirement
    from MRSuperResLib.models import find_model

    monkeypatch.setattr(requirements, "_installed", lambda text: False)
    requirements.ensure(find_model("linear"))
    networks = [entry for entry in logic.models() if not entry.card.is_baseline]
    if networks:
        with pytest.raises(MissingRequirement, match=r"5\.12"):
            requirements.ensure(networks[0])
        monkeypatch.setattr(requirements, "_installed", lambda text: not text.startswith("torch"))
        with pytest.raises(MissingRequirement, match="PyTorch extension"):
            requirements.ensure(networks[0])


def test_what_is_installed_is_recognised() -> None:
    from MRSuperResSupport import requirements

    assert requirements._installed("einops>=0.7") and not requirements._installed("einops>=99")
    assert not requirements._installed("no-such-package-anywhere>=1")
