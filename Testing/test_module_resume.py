"""Batches into a folder that are run again: what counts as done, and what is made anew under which name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import save_tiny

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
from panel.nodes import matrix, volume  # noqa: E402

pytestmark = pytest.mark.usefixtures("scene")
HOW = {"factor": 2, "plane": "through-plane"}


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "cut short"])
def test_a_damaged_result_is_made_again_and_kept_for_its_owner_to_see(
    logic: Any, tmp_path: Path, content: bytes | None
) -> None:
    node = volume("T2")
    (first,) = logic.superResolveMany([node], "linear", tmp_path, **HOW)
    damaged = Path(first.output)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-100] if content is None else content)
    (again,) = logic.superResolveMany([node], "linear", tmp_path, **HOW)
    assert again.error is None and not again.skipped
    assert again.output != first.output, "nobody can tell damage from a correction by hand"
    (third,) = logic.superResolveMany([node], "linear", tmp_path, **HOW)
    assert third.skipped and third.output == again.output


def test_a_changed_ground_truth_is_scored_against_and_a_missing_map_is_made(logic: Any, tmp_path: Path) -> None:
    node, truth = volume("T2"), volume("truth", size=(14, 12, 16))
    finer = np.diag([1.0, 1.2, 2.0, 1.0])
    finer[:3, 3] = (12.0, -30.0, 44.0)
    truth.SetIJKToRASMatrix(matrix(finer))
    how = {**HOW, "truth": truth, "errorMap": True}
    (first,) = logic.superResolveMany([node], "linear", tmp_path, **how)
    assert first.error is None
    assert logic.superResolveMany([node], "linear", tmp_path, **how)[0].skipped
    before = json.loads(Path(first.output).with_suffix(".json").read_text())["metrics"]
    slicer.util.arrayFromVolume(truth)[:] += np.arange(14, dtype=np.int16)
    (again,) = logic.superResolveMany([node], "linear", tmp_path, **how)
    assert not again.skipped and again.output == first.output, "the result is the same, its scores are not"
    assert json.loads(Path(first.output).with_suffix(".json").read_text())["metrics"] != before
    (error,) = tmp_path.glob("*_error.nrrd")
    error.unlink()
    assert not logic.superResolveMany([node], "linear", tmp_path, **how)[0].skipped and error.exists()


def test_another_reference_makes_another_result(logic: Any, tmp_path: Path) -> None:
    """Its detail is in the result: neither is the first taken for it, nor lost to it."""
    pytest.importorskip("torch")
    cards = [entry.card for entry in logic.models() if entry.card.task == "reference-guided"]
    guided = next(card.id for card in cards if card.plane == "through-plane")
    node, references = volume("T2", size=(32, 32, 6)), [volume("T1", size=(32, 32, 24)) for _ in range(2)]
    for reference in references:
        reference.SetSpacing(1.0, 1.2, 1.0)
    slicer.util.arrayFromVolume(references[1])[:, ::3] += 40
    first, other, again = (
        logic.superResolveMany([node], guided, tmp_path, reference=reference, register=False, device="cpu")[0]
        for reference in (*references, references[0])
    )
    assert first.error is None and other.error is None, first.error or other.error
    assert not other.skipped and other.output != first.output
    assert again.skipped and again.output == first.output


def test_a_deleted_label_map_of_flags_is_made_again(logic: Any, tmp_path: Path) -> None:
    node = volume("T1w scan", size=(48, 40, 4))
    how = {"target": "T2", "samples": 2}
    (first,) = logic.superResolveMany([node], "mtsr-mt-s", tmp_path, **how)
    assert first.error is None, first.error
    assert logic.superResolveMany([node], "mtsr-mt-s", tmp_path, **how)[0].skipped
    (flags,) = tmp_path.glob("*_flags.nrrd")
    flags.unlink()
    assert not logic.superResolveMany([node], "mtsr-mt-s", tmp_path, **how)[0].skipped and flags.exists()


def test_results_on_cubes_and_with_a_first_model_in_a_file_are_known_again(logic: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    node = volume("T2", size=(32, 32, 6))
    node.SetSpacing(2.0, 2.0, 5.0)
    how = {"toIso": 1.0, "device": "cpu"}
    (first,) = logic.superResolveMany([node], "bspline", tmp_path / "iso", **how)
    assert first.error is None, first.error
    record = json.loads(Path(first.output).with_suffix(".json").read_text())
    assert "super_resolved_with" in record, "a model in the plane goes first, which nobody has named"
    assert logic.superResolveMany([node], "bspline", tmp_path / "iso", **how)[0].skipped
    path = save_tiny(tmp_path)
    node = volume("T1w scan", size=(48, 40, 4))
    how = {"target": "T2", "samples": 1, "superResolveWith": str(path), "device": "cpu"}
    (first,) = logic.superResolveMany([node], "mtsr-mt-s", tmp_path / "two", **how)
    assert first.error is None, first.error
    assert logic.superResolveMany([node], "mtsr-mt-s", tmp_path / "two", **how)[0].skipped
