"""What a Ray job uploads: exactly what Ray packs, and no more than Ray takes."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from sweeps import study_in

from kdscale.errors import UserError
from kdscale.launch import Artefact, Upload, check_folder_stays
from kdscale.launch._working_dir import EXCLUDES, files_to_upload, upload_limit_bytes

ROOT = Path(__file__).parents[2]
FILES = {
    ".gitignore": "*.secret\n/data/\n",
    "studies.yaml": "a study",
    "my.secret": "left out",
    "data/train.npz": "left out",
    "nested/data/kept.txt": "kept",
    "nested/.rayignore": "big.bin\n",
    "nested/big.bin": "left out",
    "nested/studies/kept.txt": "kept",
    "studies/quickstart/study.db": "left out",
    "old/trials/c000/checkpoint.pt": "left out",
    "weights/teacher.pt": "kept",
    ".venv/lib/torch.so": "left out",
    "package/__pycache__/x.pyc": "left out",
    ".mypy_cache/x": "left out",
    "sub/.git/config": "left out",
}
KEPT = {
    ".gitignore",
    "studies.yaml",
    "nested/data/kept.txt",
    "nested/.rayignore",
    "nested/studies/kept.txt",
    "weights/teacher.pt",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a working directory with all that people have in theirs."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def packed_by_ray(folder: Path, target: Path) -> dict[Path, int]:
    excludes = [*get_runtime_env_default_excludes(), *EXCLUDES]
    create_package(str(folder), target, include_gitignore=True, excludes=excludes)
    with ZipFile(target) as package:
        infos = [info for info in package.infolist() if not info.is_dir()]
    assert all(info.compress_size == info.file_size for info in infos)  # so sizes add up
    return {Path(info.filename): info.file_size for info in infos}


@pytest.mark.parametrize("of", ["made", "ours"])
def test_the_list_is_what_ray_packs(
    of: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = folder if of == "made" else ROOT
    listed = {upload.path: upload.size_bytes for upload in files_to_upload(where)}
    assert listed == packed_by_ray(where, tmp_path_factory.mktemp("package") / "package.zip")


def test_records_caches_checkpoints_and_environments_stay_here(folder: Path) -> None:
    assert {str(upload.path) for upload in files_to_upload(folder)} == KEPT


def test_gitignore_counts_as_long_as_ray_heeds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    names = {str(upload.path) for upload in files_to_upload(folder)}
    assert names == KEPT | {"my.secret", "data/train.npz"}


def test_rays_limit() -> None:
    assert upload_limit_bytes() == 512 * 2**20


def test_too_large_an_upload_is_refused_naming_the_five_largest() -> None:
    uploads = tuple(Upload(Path(f"data/{number}.npz"), number * 2**20) for number in range(1, 9))
    Artefact("", uploads, limit_bytes=36 * 2**20 + 1).check_size()
    Artefact("", uploads).check_size()
    with pytest.raises(UserError) as error:
        Artefact("", uploads, limit_bytes=36 * 2**20).check_size()
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "the upload must be smaller than 36 MiB, but its 8 file(s) have 36 MiB. The largest:"
    )
    assert [line.split() for line in lines[1:6]] == [
        [f"{number}", "MiB", f"data/{number}.npz"] for number in (8, 7, 6, 5, 4)
    ]
    assert lines[6:] == ["Name what the sweep does not read in .gitignore or .rayignore."]


def test_a_study_in_the_folder_that_ray_deletes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    relative = study.model_copy(
        update={"storage": study.storage.model_copy(update={"folder": Path("studies")})}
    )
    check_folder_stays(relative)
    job = tmp_path / "session/runtime_resources/working_dir_files/_ray_pkg_0123456789abcdef"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    check_folder_stays(study)
    with pytest.raises(UserError, match=r"storage\.folder: must be an absolute path in a Ray job"):
        check_folder_stays(relative)
