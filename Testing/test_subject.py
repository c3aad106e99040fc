"""A contrast is read from names as scanners give them, and a scan that is no adult's brain is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_files import noise

from MRSuperResLib.contrasts import guess_contrast, telling_name
from MRSuperResLib.grid import Grid
from MRSuperResLib.models import baselines, subject_coverage
from MRSuperResLib.subject import age_of, body_part, other_modality
from MRSuperResLib.volume import Volume


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("t2_tirm_tra_dark-fluid_fs_384", "FLAIR"),
        ("t2_spc_da-fl_sag_p2_iso", "FLAIR"),
        ("t2_space_dark-fluid_sag_p2_iso", "FLAIR"),
        ("t2_spc_ir_ns_sag_p2_iso", "FLAIR"),
        ("T2W_FLAIR SENSE", "FLAIR"),
        ("T1FLAIR", "T1w"),
        ("Ax T1 FLAIR PROPELLER", "T1w"),
        ("t1_tirm_tra_dark-fluid", "T1w"),
        ("t1_mprage_sag_p2_iso", "T1w"),
        ("t1_fl2d_tra", "T1w"),
        ("t2_fl2d_tra_hemo", None),
        ("t2_tse_tra_512", "T2w"),
        ("t2_spc_sag_p2_iso", "T2w"),
        ("t2_blade_tra", "T2w"),
        ("ep2d_diff_3scan_trace_ADC", None),
        ("T2W_FFE", None),
        ("pd_tse_tra", "PDw"),
        ("localizer", None),
    ],
)
def test_scanners_names_tell_the_contrast(name: str, contrast: str | None) -> None:
    assert guess_contrast(name) == contrast


def test_a_folder_whose_name_tells_nothing_is_told_by_the_scanners_description() -> None:
    assert telling_name("IM_0042", {"SeriesDescription": "t2_tse_tra"}) == "t2_tse_tra"
    assert telling_name("IM_0042", {"SeriesDescription": "x", "ProtocolName": "FLAIR"}) == "FLAIR"
    assert telling_name("sub-01_T1w", {"SeriesDescription": "t2_tse_tra"}) == "sub-01_T1w"
    assert telling_name("IM_0042", {}) == "IM_0042"


def scan(name: str = "scan", low: float | None = None, **metadata: str) -> Volume:
    array = np.abs(noise(8, 9, 10))
    if low is not None:
        array[:, :3] = low
    return Volume(array, Grid((10, 9, 8), (1.0, 1.0, 3.0)), name, metadata)


@pytest.mark.parametrize(
    ("volume", "part"),
    [
        (scan(BodyPartExamined="BRAIN"), "head"),
        (scan(BodyPartExamined="HEAD_NECK"), "head"),
        (scan(BodyPartExamined="KNEE"), "knee"),
        (scan(BodyPartExamined="LSPINE"), "lspine"),
        (scan("lumbar_T2w"), "spine"),
        (scan("t2_tse_sag_C-spine"), "spine"),
        (scan(SeriesDescription="t1_vibe_abdomen_dixon"), "abdomen"),
        (scan("sub-01_T2w"), None),
        (scan("hippocampus_T2w"), None),
        (scan("sub-12_acq-brain_T1w"), None),
        (scan("knee_phantom_T1w", BodyPartExamined="BRAIN"), "head"),
    ],
)
def test_the_body_part_is_read_where_it_is_told(volume: Volume, part: str | None) -> None:
    assert body_part(volume) == part


@pytest.mark.parametrize(
    ("text", "years"),
    [("045Y", 45.0), ("018M", 1.5), ("010D", 10 / 365.25), ("003W", 21 / 365.25), ("", None), ("old", None)],
)
def test_dicoms_ages_are_years(text: str, years: float | None) -> None:
    assert age_of(scan(PatientAge=text)) == (None if years is None else pytest.approx(years))


@pytest.mark.parametrize(
    ("volume", "word"),
    [
        (scan(Modality="CT"), "CT"),
        (scan(low=-1024.0), "Hounsfield"),
        (scan(Modality="MR"), None),
        (scan(low=-20.0), None),
    ],
)
def test_a_ct_is_told(volume: Volume, word: str | None) -> None:
    found = other_modality(volume)
    assert (found is None) == (word is None) and (word or "") in (found or "")


def test_the_card_decides_what_is_told() -> None:
    """Anatomy and ages are the model's: interpolation is for anything, and a card that tells its ages is asked."""
    any_card = baselines()[0].card
    brain: Any = replace(any_card, anatomy="brain")
    knee, child = scan(BodyPartExamined="KNEE"), scan(PatientAge="003Y")
    assert subject_coverage(any_card, knee) == [] == subject_coverage(any_card, scan(low=-1024.0))
    assert "knee" in subject_coverage(brain, knee)[0] and "Hounsfield" in subject_coverage(brain, scan(low=-1024.0))[0]
    assert subject_coverage(replace(brain, anatomy="knee"), knee) == []
    assert "child of 3 years" in subject_coverage(brain, child)[0]
    assert subject_coverage(replace(brain, ages=(0.0, 90.0)), child) == []
    assert "18 to 90 years" in subject_coverage(replace(brain, ages=(18.0, 90.0)), child)[0]
    assert subject_coverage(brain, scan(PatientAge="060Y", BodyPartExamined="BRAIN", Modality="MR")) == []
