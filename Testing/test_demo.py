"""The demo: a newcomer's first minute with the project must end in a result, or in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MRSuperResLib import demo, models
from MRSuperResLib.acquisition import acquire
from MRSuperResLib.errors import MissingRequirement, OutputError, UnsuitableVolume, UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.models import ModelCard, ModelEntry
from MRSuperResLib.volume import Volume

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def head(size: tuple[int, int, int] = (40, 44, 41), spacing: float = 1.0) -> Volume:
    """An ellipsoid with folds, off centre in an empty field; (i, j, k) voxels."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in size[::-1]), indexing="ij")
    radius = ((i - 21) / 15) ** 2 + ((j - 23) / 17) ** 2 + ((k - 19) / 16) ** 2
    folds = 1.0 + 0.4 * np.sin(0.9 * i) * np.cos(0.8 * j) * np.sin(1.1 * k)
    array = np.where(radius < 1.0, 800.0 * folds, 0.0).astype(np.float32)
    return Volume(array, Grid(size, (spacing,) * 3, (-20.0, 15.0, 7.0), AXIAL), "head")


@pytest.fixture
def tiny_model(tmp_path: Path) -> ModelEntry:
    """A through-plane x4 package whose untrained network answers with plain bicubic interpolation."""
    from MRSuperResLib import networks

    hyperparameters = {"blocks": 1, "width": 12, "growth": 6, "factors": [4, 1], "skip": "bicubic"}
    card = ModelCard(
        id="tiny-through-x4", title="Tiny", version="1", architecture="rdst", task="super-resolve", plane="through-plane",
        factors=(4.0, 1.0), contrasts=("any",), spacing=None, licence="Apache-2.0", intended_use="Tests",
        hyperparameters=hyperparameters,
    )  # fmt: skip
    folder = tmp_path / "models"
    folder.mkdir()
    return models.save_model(folder / "tiny.safetensors", card, networks.build("rdst", hyperparameters).state_dict())


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with no model but the baselines."""
    monkeypatch.setattr(models.registry, "default_folders", lambda: (tmp_path / "none",))


def test_the_demo_ends_in_volumes_scores_and_a_picture(tmp_path: Path, tiny_model: ModelEntry) -> None:
    source = tmp_path / "head.nii.gz"
    write_volume(head(), source)
    said: list[str] = []
    made = demo.run(
        tmp_path / "out",
        source=source,
        model=str(tiny_model.path),
        block_mm=None,
        device="cpu",
        threads=1,
        say=said.append,
    )
    truth, acquired = read_volume(made.truth), read_volume(made.acquired)
    np.testing.assert_allclose(acquired.grid.spacing, (1.0, 1.0, 4.0), rtol=1e-6)
    np.testing.assert_allclose(acquired.grid.extent, truth.grid.extent, rtol=1e-6)
    assert [answer.model for answer in made.answers] == ["linear", "bspline", "lanczos", "tiny-through-x4"]
    for answer in made.answers:
        result = read_volume(answer.path)
        assert result.grid.same_as(truth.grid)
        error = read_volume(answer.error_map)
        np.testing.assert_allclose(error.array, np.abs(result.array - truth.array), atol=0.5)
        assert np.isfinite(answer.metrics["psnr"])
    assert made.figure is not None and made.figure.read_bytes().startswith(b"\x89PNG")
    printed = "\n".join(said)
    assert all(answer.model in printed for answer in made.answers) and "mrsuperres run" in printed


def test_the_thick_slices_are_what_the_acquisition_model_says(tmp_path: Path, tiny_model: ModelEntry) -> None:
    source = tmp_path / "head.nii.gz"
    write_volume(head(), source)
    made = demo.run(tmp_path / "out", source=source, model=str(tiny_model.path), device="cpu", say=lambda line: None)
    expected = acquire(read_volume(made.truth), (1, 1, 4), "through-gaussian")
    np.testing.assert_allclose(read_volume(made.acquired).array, expected.array, rtol=1e-5, atol=1e-3)


def test_the_block_keeps_every_voxel_where_it_was() -> None:
    volume = head()
    block = demo.head_block(volume, axis=2, factor=4, block_mm=12.0)
    assert block.grid.size[2] % 4 == 0
    assert block.grid.size[1] == 12  # front to back
    centre = block.grid.index_to_world(np.array([[3.0, 4.0, 5.0]]))
    i, j, k = np.round(volume.grid.world_to_index(centre)[0]).astype(int)
    assert block.array[5, 4, 3] == volume.array[k, j, i]


def test_the_whole_head_is_kept_when_no_thickness_is_given() -> None:
    volume = head()
    block = demo.head_block(volume, axis=2, factor=4, block_mm=None)
    assert block.array.sum() == pytest.approx(volume.array.sum(), rel=1e-3)
    assert np.prod(block.grid.size) < np.prod(volume.grid.size)


@pytest.mark.parametrize(("axis", "expected"), [(0, 1), (1, 2), (2, 1)])
def test_slices_along_any_axis_leave_a_front_to_back_axis(axis: int, expected: int) -> None:
    assert demo.front_to_back(head().grid, axis) in {expected, 3 - axis - expected}
    block = demo.head_block(head(), axis=axis, factor=4, block_mm=None)
    assert block.grid.size[axis] % 4 == 0


def test_without_nilearn_the_user_reads_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingRequirement, match=r"nilearn.*--input"):
        demo.sample_volume()


def test_without_a_model_the_user_reads_so(no_models: None) -> None:
    with pytest.raises(MissingRequirement, match="through-plane x4"):
        demo.choose_model()


def test_a_model_dropped_in_a_folder_is_found(no_models: None, tiny_model: ModelEntry) -> None:
    assert tiny_model.path is not None
    assert demo.choose_model(None, [str(tiny_model.path.parent)]).card.id == "tiny-through-x4"


@pytest.mark.parametrize(
    "change", [{"plane": "in-plane"}, {"task": "translate", "target_contrasts": ("T2w",)}, {"task": "reference-guided"}]
)
def test_a_model_of_another_kind_is_refused_before_anything_is_made(
    change: dict[str, Any], tmp_path: Path, tiny_model: ModelEntry
) -> None:
    other = models.save_model(
        tmp_path / "models" / "other.safetensors",
        replace(tiny_model.card, id="other", **change),
        models.load_network(tiny_model).state_dict(),
    )
    write_volume(head(), tmp_path / "head.nii.gz")
    with pytest.raises(UsageError, match=r"through the plane, 'other' is another"):
        demo.run(tmp_path / "out", source=tmp_path / "head.nii.gz", model=str(other.path), say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["linear", "bspline"])
def test_interpolation_named_as_the_model_is_listed_once_and_drawn(name: str, tmp_path: Path) -> None:
    write_volume(head(), tmp_path / "head.nii.gz")
    said: list[str] = []
    made = demo.run(tmp_path / "out", source=tmp_path / "head.nii.gz", model=name, say=said.append)
    listed = [answer.model for answer in made.answers]
    assert sorted(listed) == sorted(demo.BESIDE) and listed[-1] == name
    assert f"--model {name} " in said[-1] and made.figure is not None


def test_the_demo_refines_through_the_plane_whatever_the_model_could(
    tmp_path: Path, tiny_model: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes: list[str | None] = []
    whole = demo.run_job
    monkeypatch.setattr(demo, "run_job", lambda job, *rest: planes.append(job.plane) or whole(job, *rest))
    write_volume(head(), tmp_path / "head.nii.gz")
    demo.run(tmp_path / "out", source=tmp_path / "head.nii.gz", model=str(tiny_model.path), say=lambda line: None)
    assert planes == ["through-plane"] * 4


def test_a_thick_slice_scan_is_no_truth(tmp_path: Path, tiny_model: ModelEntry) -> None:
    fine = head()
    thick = Volume(fine.array, Grid(fine.grid.size, (1.0, 1.0, 5.0), fine.grid.origin, AXIAL))
    write_volume(thick, tmp_path / "thick.nii.gz")
    with pytest.raises(UnsuitableVolume, match="mrsuperres run"):
        demo.run(tmp_path / "out", source=tmp_path / "thick.nii.gz", model=str(tiny_model.path), say=lambda line: None)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, tiny_model: ModelEntry) -> None:
    (tmp_path / "file").write_text("in the way")
    write_volume(head(), tmp_path / "head.nii.gz")
    with pytest.raises(OutputError, match="cannot be made"):
        demo.run(
            tmp_path / "file" / "out",
            source=tmp_path / "head.nii.gz",
            model=str(tiny_model.path),
            say=lambda line: None,
        )


def test_without_matplotlib_the_demo_still_gives_its_volumes(
    tmp_path: Path, tiny_model: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise MissingRequirement("matplotlib draws it and is not installed")

    monkeypatch.setattr(demo, "through_plane_figure", missing)
    write_volume(head(), tmp_path / "head.nii.gz")
    said: list[str] = []
    made = demo.run(tmp_path / "out", source=tmp_path / "head.nii.gz", model=str(tiny_model.path), say=said.append)
    assert made.figure is None and made.answers[-1].path.is_file()
    assert any("matplotlib" in line for line in said)


@pytest.fixture
def template(request: pytest.FixtureRequest) -> Path:
    """The volume the demo uses, where nilearn is installed."""
    try:
        return demo.sample_volume()
    except MissingRequirement as missing:
        pytest.skip(missing.message)


def test_the_packaged_volume_is_a_1_mm_head(template: Path) -> None:
    volume = read_volume(template)
    assert volume.grid.spacing == pytest.approx((1.0, 1.0, 1.0))
    assert min(volume.grid.size) > 180


def test_the_shipped_model_beats_interpolation_on_the_packaged_volume(tmp_path: Path, template: Path) -> None:
    """What README promises, on a thin block so that it is quick."""
    try:
        demo.choose_model()
    except MissingRequirement as missing:
        pytest.skip(missing.message)
    made = demo.run(tmp_path, block_mm=12.0, device="cpu", say=lambda line: None)
    scores = {answer.model: answer.metrics["psnr"] for answer in made.answers}
    model = made.answers[-1].model
    assert all(scores[model] > scores[name] + 1.0 for name in demo.BESIDE)


def test_progress_is_shown_on_a_terminal_and_warnings_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    events: Callable[[dict[str, object]], None] = demo.Progress("rdst", print)
    events({"event": "progress", "stage": "super-resolving", "done": 3, "total": 9, "seconds_left": 4.0})
    events({"event": "warning", "code": "x", "message": "slices are thick"})
    out = capsys.readouterr().out
    assert "33%, 4.0 s left" in out and "slices are thick" in out
