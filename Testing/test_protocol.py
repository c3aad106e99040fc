"""Papers' tables: each data set's own layout is found, cut and scored as the paper says, beside the paper's rows."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from MRSuperResLib import cli
from MRSuperResLib.acquisition import acquire, bicubic_interpolation
from MRSuperResLib.errors import BadVolume, MissingRequirement, UnsuitableVolume, UsageError
from MRSuperResLib.evaluation import fastmri
from MRSuperResLib.evaluation.protocol import (
    find_cases,
    load_protocol,
    prepared,
    protocol_names,
    protocol_table,
    run_protocol,
)
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.volume import Volume

CPU = Options(device="cpu", threads=1)


def scan(size: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), seed: int = 0) -> Volume:
    """A smooth ball with waves in air."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in size]
    i, j, k = np.meshgrid(*axes, indexing="ij", sparse=True)
    values = ((i**2 + j**2 + k**2) < 0.8) * (600 + 200 * np.sin((9 + seed) * i) * np.cos(11 * j) + 90 * np.sin(13 * k))
    return Volume(np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32), Grid(size, spacing), "scan")


def put(path: Path, volume: Volume) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume, path)
    return path


def oasis(root: Path) -> None:
    place = root / "disc1" / "OAS1_0001_MR1" / "PROCESSED" / "MPRAGE" / "T88_111"
    put(place / "OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.nii", scan((176, 208, 176)))
    put(place / "OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.nii", scan((16, 16, 16)))


def brats(root: Path) -> None:
    place = root / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_001"
    for number, name in enumerate(("t1", "t1ce", "t2", "flair")):
        put(place / f"BraTS20_Training_001_{name}.nii", scan((240, 240, 20), seed=number))
    labels = np.zeros((20, 240, 240), np.float32)
    labels[[4, 9, 10], 100:110, 100:110] = 4
    put(place / "BraTS20_Training_001_seg.nii", Volume(labels, Grid((240, 240, 20), (1.0, 1.0, 1.0))))


def ixi(root: Path) -> None:
    for folder, name in (("IXI-T2", "T2"), ("IXI-PD", "PD")):
        put(
            root / folder / f"IXI002-Guys-0828-{name}.nii", scan((256, 256, 98), (0.94, 0.94, 1.25), len(name + folder))
        )
    put(root / "IXI-T2" / "IXI012-HH-1211-T2.nii", scan((256, 256, 98), (0.94, 0.94, 1.25), 3))


def test_all_papers_tables_are_there_with_their_numbers() -> None:
    """The published rows that matter most, and cuts that the factor divides."""
    named = ["brats-x4", "fastmri-x4", "ixi-through-x4", "ixi-through-x8", "ixi-x2", "ixi-x4", "oasis-x4"]
    assert protocol_names() == named
    printed = {
        ("oasis-x4", "T1w", "RDST"): (33.42, 0.9299),
        ("oasis-x4", "T1w", "Bicubic"): (29.88, 0.8574),
        ("brats-x4", "FLAIR", "RDST-E"): (32.59, 0.9066),
        ("ixi-x2", "T1w", "disvit"): (41.4, 0.993),
        ("ixi-x4", "T2w", "FASR-Net"): (38.52, 0.974),
        ("ixi-through-x4", "T1w", "TransMRSR"): (38.56, 0.9862),
        ("ixi-through-x8", "T2w", "TransMRSR"): (30.42, 0.9443),
        ("fastmri-x4", "FS-PDw", "FASR-Net"): (33.403, 0.861),
    }
    for name in named:
        protocol = load_protocol(name)
        rows = {(name, row.contrast, row.method): (row.psnr, row.ssim) for row in protocol.rows}
        assert {key: rows[key] for key in printed if key[0] == name} == {
            k: v for k, v in printed.items() if k[0] == name
        }
        assert protocol.assumed and protocol.factor == int(name[-1])
        for contrast in protocol.contrasts:
            coarse = [(n == contrast.slice_axis) == (protocol.plane == "through-plane") for n in range(3)]
            assert all(kept % protocol.factor == 0 for kept, along in zip(contrast.crop, coarse, strict=True) if along)


def test_oasis_is_cut_and_scored_slice_by_slice(tmp_path: Path) -> None:
    """145 slices of 160 x 128 of the masked scan; the mean over slices is an independent implementation's."""
    oasis(tmp_path)
    protocol = load_protocol("oasis-x4")
    (case,) = find_cases(protocol, tmp_path)
    truth, reference = prepared(protocol, case)
    assert truth.array.shape == (145, 160, 128) and reference is None
    np.testing.assert_array_equal(truth.array, scan((176, 208, 176)).array[15:160, 24:184, 24:152])
    (made,) = run_protocol(protocol, tmp_path, [], options=CPU)
    low = acquire(truth, (4, 4, 1), "bicubic-noise", seed=0).array
    rows, columns = bicubic_interpolation(40, 160).matrix, bicubic_interpolation(32, 128).matrix
    peak = float(truth.array.max())
    for slice_ in (20, 70):
        answer, real = rows @ low[slice_] @ columns.T, truth.array[slice_].astype(float)
        expected = skimage_metrics.peak_signal_noise_ratio(real, answer, data_range=peak)
        assert made.psnr[slice_] == pytest.approx(expected, abs=0.01)
        assert made.nmse[slice_] == pytest.approx(((answer - real) ** 2).sum() / (real**2).sum(), rel=1e-3)
    assert (made.model, made.scans, len(made.psnr)) == ("bicubic", 1, 145)
    text = protocol_table(protocol, [made])
    assert f"{made.psnr.mean():7.2f}" in text and "33.42" in text and "paper: RDST-E (L1 alone), table 6" in text
    assert "assumed" in text and "no sigma" in text


def test_of_brats_only_slices_with_tumour_count(tmp_path: Path) -> None:
    brats(tmp_path)
    protocol = load_protocol("brats-x4")
    cases = find_cases(protocol, tmp_path)
    assert [(case.contrast.name, case.path.stem.split("_")[-1]) for case in cases] == [
        ("T1Gd", "t1ce"), ("T1w", "t1"), ("T2w", "t2"), ("FLAIR", "flair"),
    ]  # fmt: skip
    truth, _ = prepared(protocol, cases[2])
    np.testing.assert_array_equal(truth.array, scan((240, 240, 20), seed=2).array[[4, 9, 10], 24:216, 24:216])
    made = run_protocol(protocol, tmp_path, ["bicubic"], options=CPU)
    assert [(one.contrast, len(one.psnr)) for one in made] == [("T1Gd", 3), ("T1w", 3), ("T2w", 3), ("FLAIR", 3)]
    (tmp_path / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii").unlink()
    with pytest.raises(UsageError, match="no label map"):
        find_cases(protocol, tmp_path)


def test_ixi_pairs_the_contrasts_of_one_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guided model gets the same person's PDw, in register; the person without one is left out, and said."""
    ixi(tmp_path)
    protocol = load_protocol("ixi-x4")
    cases = {case.path.name: case for case in find_cases(protocol, tmp_path)}
    assert set(cases) == {"IXI002-Guys-0828-T2.nii", "IXI012-HH-1211-T2.nii", "IXI002-Guys-0828-PD.nii"}
    guided = cases["IXI002-Guys-0828-T2.nii"]
    assert guided.reference is not None and guided.reference.name == "IXI002-Guys-0828-PD.nii"
    assert cases["IXI012-HH-1211-T2.nii"].reference is None
    truth, reference = prepared(protocol, guided)
    assert truth.array.shape == (96, 240, 240) and reference is not None and reference.grid.same_as(truth.grid)
    given: list[tuple[str, bool]] = []

    def answered(low: Volume, entry: Any, *, reference: Volume | None, **_: Any) -> Volume:
        given.append((entry.card.id, reference is not None))
        return Volume(truth.array * np.float32(0.9), truth.grid)

    monkeypatch.setattr("MRSuperResLib.inference.super_resolve", answered)
    for path in tmp_path.rglob("*PD.nii"):
        keep = path
    said: list[str] = []
    made = run_protocol(protocol, tmp_path, ["fasr-s-inplane-x4"], options=CPU, report=said.append)
    assert given.count(("fasr-s-inplane-x4", True)) == 1 and ("fasr-s-inplane-x4", False) not in given and keep
    assert any("IXI012" in line and "no reference" in line for line in said)
    counts = {(one.contrast, one.model): one.scans for one in made}
    assert counts == {("T2w", "bicubic"): 2, ("T2w", "fasr-s-inplane-x4"): 1, ("PDw", "bicubic"): 1}


def test_ixi_in_mni_space_is_thickened_along_z_and_scored_on_other_slices(tmp_path: Path) -> None:
    put(tmp_path / "IXI002-Guys-0828-T1.nii", scan((60, 54, 181)))
    protocol = load_protocol("ixi-through-x4")
    (case,) = find_cases(protocol, tmp_path)
    truth, _ = prepared(protocol, case)
    assert truth.array.shape == (180, 54, 60)
    (made,) = run_protocol(protocol, tmp_path, [], options=CPU)
    seen = [(truth.array[:, n] > 0.1 * truth.array.max()).mean() >= 0.02 for n in range(54)]
    assert len(made.psnr) == sum(seen) < 54


class File:
    """What h5py gives for a fastMRI file."""

    files: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}  # noqa: RUF012

    def __init__(self, path: Path, mode: str) -> None:
        if path.name not in self.files:
            raise OSError("no HDF5")
        self.held, self.attrs = self.files[path.name]

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def __contains__(self, name: str) -> bool:
        return name in self.held

    def __getitem__(self, name: str) -> Any:
        return self.held[name]


HEADER = (
    "<encoding><encodedSpace><fieldOfView_mm><x>320</x><y>160</y><z>4</z></fieldOfView_mm></encodedSpace><reconSpace>"
    "<fieldOfView_mm><x>160.0</x><y>161.6</y><z>3.3</z></fieldOfView_mm></reconSpace></encoding>"
)


@pytest.fixture
def knees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two fastMRI files of one knee, with and without fat suppression."""
    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=File))
    image = scan((320, 320, 6)).array
    header = np.asarray(HEADER.encode(), dtype=object)
    File.files = {
        "file1.h5": ({"reconstruction_rss": image, "ismrmrd_header": header}, {"acquisition": "CORPDFS_FBK"}),
        "file2.h5": ({"reconstruction_rss": image * 2, "ismrmrd_header": header}, {"acquisition": "CORPD_FBK"}),
        "file3.h5": ({"kspace": image}, {}),
    }
    folder = tmp_path / "singlecoil_val"
    folder.mkdir()
    for name in ("file1.h5", "file2.h5"):
        (folder / name).write_bytes(b"HDF")
    return tmp_path


def test_fastmri_scores_fat_suppressed_knees(knees: Path) -> None:
    volume = fastmri.read_fastmri(knees / "singlecoil_val" / "file1.h5")
    assert volume.grid.spacing == pytest.approx((0.5, 0.505, 3.3)) and volume.name == "file1_CORPDFS_FBK"
    (made,) = run_protocol(load_protocol("fastmri-x4"), knees, [], options=CPU)
    assert (made.contrast, made.scans, len(made.psnr)) == ("FS-PDw", 1, 6 - sum(not s.any() for s in volume.array))
    (knees / "pairs.csv").write_text("singlecoil_val/file1.h5, singlecoil_val/file2.h5\n")
    (case,) = find_cases(load_protocol("fastmri-x4"), knees)
    assert case.reference is not None and case.reference.name == "file2.h5"
    truth, reference = prepared(load_protocol("fastmri-x4"), case)
    assert reference is not None and truth.array.shape[1:] == (256, 256)
    np.testing.assert_allclose(reference.array, 2 * truth.array)


def test_fastmri_files_that_cannot_be_used_are_one_line(knees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadVolume, match="no reconstruction"):
        fastmri.read_fastmri(knees / "file3.h5")
    with pytest.raises(BadVolume, match="HDF5"):
        fastmri.read_fastmri(knees / "other.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingRequirement, match="h5py"):
        fastmri.read_fastmri(knees / "file1.h5")


def test_one_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brats(tmp_path)
    command = ["evaluate", str(tmp_path), "--protocol", "brats-x4", "-m", "linear", "--device", "cpu"]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "linear" in text and "bicubic" in text and "paper: RDST" in text
    assert cli.main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in document["scores"]} == {"linear", "bicubic"} and len(document["paper"]) == 24
    assert cli.main(["evaluate", str(tmp_path), "--protocol", "brats-x3", "-m", "linear"]) == 2
    assert "did you mean brats-x4?" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path), "-m", "linear"]) == 2


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    protocol = load_protocol("oasis-x4")
    with pytest.raises(UsageError, match="holds no file like"):
        find_cases(protocol, tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        find_cases(protocol, tmp_path / "missing")
    put(tmp_path / "a" / "T88_111" / "x_t88_masked_gfc.nii", scan((40, 40, 40)))
    with pytest.raises(UnsuitableVolume, match="128 x 160 x 145 are scored"):
        run_protocol(protocol, tmp_path, [], options=CPU)
    own = tmp_path / "own.toml"
    own.write_text('title = "x"\nfactr = 2\n')
    with pytest.raises(UsageError, match="factr"):
        load_protocol(str(own))
