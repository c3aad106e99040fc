"""Packs keep their volumes, whatever format those came in, and tell whose they are only where names say so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from made_files import mgh_file, noise
from made_trainings import one_contrast

from MRSuperResLib.errors import BadVolume, UsageError
from MRSuperResLib.training.data.crops import registered_groups
from MRSuperResLib.training.fit import part_pack
from MRSuperResLib.training.pack import Pack, contents, pack
from MRSuperResLib.training.subjects import contrast_of, subject_of


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one smooth textured volume and one label map, in train/ and val/."""
    return one_contrast(tmp_path_factory.mktemp("study"))


def test_a_pack_gives_back_its_volumes(study: Path, tmp_path: Path) -> None:
    packed = pack(study / "train", tmp_path / "train.pack")
    names = [entry.name for entry in Pack(packed.path).entries]
    assert names == ["isotropic/phantom_T1w", "labels/phantom"]
    image, labels = packed.entries
    truth = sitk.ReadImage(str(study / "train" / "isotropic" / "phantom_T1w.nii.gz"))
    array = sitk.GetArrayFromImage(truth)
    volume = packed.volume(image)
    np.testing.assert_allclose(volume.array, array, atol=np.ptp(array) / 65535)
    assert volume.grid.size == truth.GetSize() and image.contrast == "T1w" and image.subject == "isotropic/phantom"
    np.testing.assert_allclose(np.array(volume.grid.direction), truth.GetDirection())
    assert set(np.unique(packed.stored(labels))) == {0, 1, 2}
    unit = packed.unit(image, packed.stored(image))
    assert np.percentile(unit, 99.9) == pytest.approx(1.0, abs=1e-3)


def test_what_is_no_pack_is_refused(study: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pack"
    foreign.write_bytes(b'\x10\0\0\0\0\0\0\0{"format": "zip"}x')
    with pytest.raises(UsageError, match="not a packed data file"):
        Pack(foreign)
    with pytest.raises(UsageError, match="no volume"):
        pack(tmp_path, tmp_path / "x.pack")
    assert not list(tmp_path.glob(".*part"))


def test_a_pack_is_made_anew_when_its_volumes_have_changed(study: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(study / "train", data / "train")
    said: list[str] = []
    first = part_pack(data, tmp_path, report=said.append)
    assert "1 volume (T1w 1), 1 label map" in said[0] and "used again" not in " ".join(said)
    made = first.path.stat()
    assert part_pack(data, tmp_path, report=said.append).entries == first.entries
    assert "used again" in said[-1] and first.path.stat().st_mtime_ns == made.st_mtime_ns
    shutil.copy(study / "train" / "isotropic" / "phantom_T1w.nii.gz", data / "train" / "isotropic" / "other_T1w.nii.gz")
    assert len(part_pack(data, tmp_path, report=said.append).entries) == 3 and "made anew" in said[-3]
    os.utime(data / "train" / "isotropic" / "other_T1w.nii.gz", (1, 1))
    part_pack(data, tmp_path, report=said.append)
    assert "made anew" in said[-3]
    shutil.rmtree(data / "train")
    with pytest.raises(UsageError, match=r"neither train\.pack nor"):
        part_pack(data, tmp_path, report=said.append)


def test_every_format_can_be_packed(tmp_path: Path) -> None:
    """NIfTI-1 and 2, .hdr with .img (OASIS), NRRD, MetaImage, MGZ: the same voxels, and a pair of files counts once."""
    data, array = tmp_path / "data", np.round(noise(6, 7, 8))
    data.mkdir()
    image = sitk.GetImageFromArray(array)
    for name in ("one.nii", "pair.hdr", "nrrd.nrrd", "detached.nhdr", "meta.mha"):
        sitk.WriteImage(image, str(data / name))
    mgh_file(data / "surfer.mgz", array)
    nibabel = pytest.importorskip("nibabel")
    nibabel.Nifti2Image(array.T, np.diag([-1.0, -1, 1, 1])).to_filename(data / "two.nii.gz")
    packed = pack(data, tmp_path / "x.pack")
    assert [entry.name for entry in packed.entries] == ["detached", "meta", "nrrd", "one", "pair", "surfer", "two"]
    for entry in packed.entries:
        assert np.abs(packed.volume(entry).array - array).max() <= np.ptp(array) / 65535, entry.name


def test_label_maps_are_not_taken_for_scans(study: Path, tmp_path: Path) -> None:
    shutil.copy(study / "train" / "labels" / "phantom.nii.gz", tmp_path / "sub-01_dseg.nii.gz")
    with pytest.raises(BadVolume, match="below a folder named 'labels'"):
        pack(tmp_path, tmp_path / "x.pack")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sub-01_T1w", "sub-01_T2w"),
        ("sub-01/ses-2/anat/sub-01_ses-2_T1w", "sub-01/ses-2/anat/sub-01_ses-2_acq-tse_T2w"),
        ("IXI002-Guys-0828-T1", "IXI002-Guys-0828-T2"),
        ("IXI-T1/IXI002-Guys-0828-T1", "IXI-T2/IXI002-Guys-0828-T2"),
        ("multicontrast/openms-01_FLAIR", "multicontrast/openms-01_T1w"),
        ("patient7/flair", "patient7/t1"),
        ("BraTS18_TCIA_1/BraTS18_TCIA_1_t1", "BraTS18_TCIA_1/BraTS18_TCIA_1_t2"),
        ("T1/0012", "T2/0012"),
    ],
)
def test_names_of_one_person_are_known(one: str, other: str) -> None:
    assert subject_of(one) == subject_of(other) is not None
    assert contrast_of(one) != contrast_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("IXI002-Guys-0828-T1", "IXI012-HH-1211-T2"),
        ("OAS1_0001_MR1", "OAS1_0002_MR1"),
        ("sub-01/ses-1/anat/sub-01_ses-1_T1w", "sub-01/ses-2/anat/sub-01_ses-2_T2w"),
        ("siteA/sub-01_T1w", "siteB/sub-01_T2w"),
        ("patient7/flair", "patient8/t1"),
    ],
)
def test_two_people_or_visits_are_never_one(one: str, other: str) -> None:
    assert subject_of(one) != subject_of(other)


def test_what_nobody_knows_is_in_no_pair_and_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = ("T1w", "T2w", "IXI002-Guys-0828-T1", "IXI002-Guys-0828-T2", "IXI012-HH-1211-T2", "OAS1_0001_MR1")
    for name in names:
        sitk.WriteImage(sitk.GetImageFromArray(noise(5, 6, 7)), str(data / f"{name}.nii"))
    packed = pack(data, tmp_path / "x.pack")
    (group,) = registered_groups(packed.entries)
    assert [entry.name for entry in group] == ["IXI002-Guys-0828-T1", "IXI002-Guys-0828-T2"]
    said = " ".join(contents(packed))
    assert "6 volumes (T1w 2, T2w 3, unknown 1)" in said and "with several contrasts: 1 subject" in said
    assert "never paired: 3 volumes" in said


def test_scans_of_one_person_on_different_grids_are_no_pair(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, shape in {"a_T1w": (5, 6, 7), "a_T2w": (5, 6, 8), "a_FLAIR": (5, 6, 7)}.items():
        sitk.WriteImage(sitk.GetImageFromArray(noise(*shape)), str(data / f"{name}.nii"))
    (group,) = registered_groups(pack(data, tmp_path / "x.pack").entries)
    assert {entry.contrast for entry in group} == {"T1w", "FLAIR"}
