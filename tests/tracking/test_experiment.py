"""A study's id in MLflow, and the disk that is full when it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from disks import no_room

from kdscale.tracking._experiment import ID_FILE, is_copy, new_study_id, place_of, study_id


def test_an_id_that_did_not_fit_is_made_when_it_fits(tmp_path: Path) -> None:
    with no_room(), pytest.raises(OSError, match="File too large"):
        study_id(tmp_path)
    assert os.listdir(tmp_path) == []
    known = study_id(tmp_path)
    assert len(known) == 32
    with no_room(), pytest.raises(OSError, match="File too large"):
        new_study_id(tmp_path)
    assert study_id(tmp_path) == known
    assert os.listdir(tmp_path) == [ID_FILE]


def test_an_empty_id_is_none(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here, other):
        folder.mkdir()
        (folder / ID_FILE).touch()
    assert not is_copy(here, place_of(other))
    assert (other / ID_FILE).read_text() == ""  # another study's folder is left as it is
    known = study_id(here)
    assert len(known) == 32
    assert study_id(here) == known
