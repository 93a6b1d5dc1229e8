"""What a study has found, in a real SQLite store: description, best runs, a model to load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdscale.errors import UserError
from kdscale.tracking import Student, Summary, mlflow_environment, register_student
from kdscale.tracking._projection import Projection
from kdscale.tracking._summary import BEST, NOTE
from kdscale.tracking._together import track_together
from kdscale.tracking._uri import own_database

from .test_tracker import runs_of, study, trial

pytestmark = pytest.mark.slow  # each store, and torch.export, take seconds

LOAD = """
import sys, mlflow, torch
mlflow.set_tracking_uri(sys.argv[1])
network = mlflow.pytorch.load_model(sys.argv[2])
images = torch.load(sys.argv[3], weights_only=True)
torch.save(network(images), sys.argv[4])
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mlflow_environment().items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('summary')}/shared.db"


@pytest.fixture(scope="module")
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 10)).eval()


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def student_of(folder: Path, name: str, content: bytes = b"1") -> Student:
    file = folder / f"{name}.pt"
    file.write_bytes(content)
    return Student(name, file, lambda: (network(), images()))


def told(folder: Path, uri: str, *summaries: Summary, rebuild: bool = False) -> None:
    """Opens the projection as a sweep does, and writes what it found."""
    record = study(folder, trial(0), trial(1), trial(1, seed=1))
    projection = Projection(record, uri, record.name, rebuild=rebuild)
    projection.open()
    for one in record.trials:
        projection.write(one)
    for summary in summaries:
        projection.write_summary(summary)
    projection.finish()


def models_of(client: Any, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_logged_models([found.experiment_id]))


def flags_of(client: Any, experiment: str) -> dict[str, str]:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    return {r.info.run_name: r.data.tags[BEST] for r in runs if BEST in r.data.tags}


def test_what_a_study_found_is_there_once(tmp_path: Path, uri: str, client: Any) -> None:
    first = Summary("**Answer.** c001", "c001", student_of(tmp_path, "c001-s1"))
    told(tmp_path, uri, first)
    told(tmp_path, uri, first)
    assert flags_of(client, tmp_path.name) == {"c001-s0 ★": "yes", "c001-s1 ★": "model"}
    [model] = models_of(client, tmp_path.name)
    run = runs_of(client, tmp_path.name)["c001-s1 ★"].info.run_id
    assert (model.name, str(model.status), model.source_run_id) == ("student", "READY", run)
    note = client.get_experiment_by_name(tmp_path.name).tags[NOTE]
    assert note == runs_of(client, tmp_path.name)["study"].data.tags[NOTE]
    assert note.startswith("**Answer.** c001\n\n**Model.** The student of c001-s1")
    assert f"runs:/{run}/student" in note

    # Another configuration is the best one by now.
    told(tmp_path, uri, Summary("later", "c000", student_of(tmp_path, "c000-s0")))
    assert flags_of(client, tmp_path.name) == {"c000-s0 ★": "model"}
    assert {"c001-s0", "c001-s1"} <= runs_of(client, tmp_path.name).keys()
    [model] = models_of(client, tmp_path.name)
    assert model.tags["kdscale.trial"] == "c000-s0"

    told(tmp_path, uri, Summary("none", "c001", missing="the weights are gone"))
    assert set(flags_of(client, tmp_path.name).values()) == {"yes"}
    note = client.get_experiment_by_name(tmp_path.name).tags[NOTE]
    assert note == "none\n\n**Model.** None: the weights are gone."


def test_the_model_loads_in_another_process_and_is_the_student(
    tmp_path: Path, uri: str, client: Any
) -> None:
    told(tmp_path, uri, Summary("found", "c000", student_of(tmp_path, "c000-s0")))
    record = study(tmp_path)
    assert register_student(record, uri, "", "icons") == 1
    assert register_student(record, uri, "", "icons") == 1
    torch.save(images(5), tmp_path / "images.pt")
    words = [uri, "models:/icons/1", str(tmp_path / "images.pt"), str(tmp_path / "logits.pt")]
    subprocess.run([sys.executable, "-c", LOAD, *words], check=True, env={**os.environ})
    with torch.inference_mode():
        wanted = network()(images(5))
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), wanted)
    [model] = models_of(client, tmp_path.name)
    files = {file.path for file in client.list_logged_model_artifacts(model.model_id)}
    assert {"MLmodel", "input_example.json"} <= files
    about = next(Path(tmp_path / "mlartifacts").rglob("MLmodel")).read_text(encoding="utf-8")
    assert '"name": "images"' in about
    assert "[-1, 3, 8, 8]" in about

    # Everything again, from the study alone; what is registered stays.
    told(tmp_path, uri, rebuild=True)
    assert len(models_of(client, tmp_path.name)) == 1
    told(tmp_path, uri, Summary("found", "c000", student_of(tmp_path, "c000-s0")))
    assert register_student(record, uri, "", "icons") == 2


def test_a_model_that_was_half_written_is_written_anew(
    tmp_path: Path, uri: str, client: Any
) -> None:
    summary = Summary("found", "c000", student_of(tmp_path, "c000-s0"))
    told(tmp_path, uri)
    experiment = client.get_experiment_by_name(tmp_path.name).experiment_id
    run = runs_of(client, tmp_path.name)["c000-s0"]
    tags = {"kdscale.study_id": run.data.tags["kdscale.study_id"], "kdscale.weights": "any"}
    client.create_logged_model(experiment, "student", run.info.run_id, tags)
    told(tmp_path, uri, summary)
    [model] = models_of(client, tmp_path.name)
    assert str(model.status) == "READY"
    # A student whose weights changed under the same name is another one.
    told(tmp_path, uri, Summary("found", "c000", student_of(tmp_path, "c000-s0", b"2")))
    [other] = models_of(client, tmp_path.name)
    assert other.model_id != model.model_id


def test_a_student_that_cannot_be_a_model_is_said(tmp_path: Path, uri: str, client: Any) -> None:
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) if images.sum().item() > 0 else images.flatten(1) + 1

    def gone() -> Any:
        raise UserError("cifar: the data set must be there")

    odd = Student("c000-s0", student_of(tmp_path, "odd").file, lambda: (Odd(), images()))
    for student, words in (
        (odd, "torch.export cannot take this network"),
        (Student("c000-s0", odd.file, gone), "cifar: the data set must be there"),
    ):
        told(tmp_path, uri, Summary("found", "c000", student))
        note = client.get_experiment_by_name(tmp_path.name).tags[NOTE]
        assert "**Model.** None: " in note
        assert words in note
        assert models_of(client, tmp_path.name) == []
    with pytest.raises(UserError, match="has no model of it"):
        register_student(study(tmp_path), uri, "", "icons")


def test_a_best_run_that_is_not_there_yet_is_waited_for(tmp_path: Path, uri: str) -> None:
    summary = Summary("found", "c009", student_of(tmp_path, "c009-s0"))
    with pytest.raises(LookupError, match="c009-s0 has no run yet"):
        told(tmp_path, uri, summary)


def test_a_shared_experiment_keeps_its_description(tmp_path: Path, uri: str, client: Any) -> None:
    client.create_experiment(tmp_path.name, tags={NOTE: "the team's"})
    told(tmp_path, uri, Summary("found", "c000"))
    assert client.get_experiment_by_name(tmp_path.name).tags[NOTE] == "the team's"
    assert runs_of(client, tmp_path.name)["study"].data.tags[NOTE] == "found"


def test_studies_together_are_there_once_and_their_folders_stay(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    records = [study(tmp_path / name, trial(0), name=name) for name in ("a", "b")]
    for text in ("first", "second"):
        track_together(records, tmp_path / "out", "compare a+b", text, lambda left: None)
    client = MlflowClient(tracking_uri=own_database(tmp_path / "out"))
    assert set(runs_of(client, "compare a+b")) == {"a study", "a c000-s0", "b study", "b c000-s0"}
    assert client.get_experiment_by_name("compare a+b").tags[NOTE] == "second"
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
