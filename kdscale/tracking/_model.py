"""The best student as an MLflow model, and its registration."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdscale.errors import UserError
from kdscale.tracking._summary import Student

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "student"
"""Name of the model on its run: ``runs:/RUN/student``."""

_DIGEST = "kdscale.weights"
_PAGE = 100
_ERROR_LENGTH = 300


def log_student(
    client: MlflowClient, experiment: str, run: str, common: dict[str, str], student: Student
) -> str:
    """Logs a student as a model of its run, unless it is there; returns why it cannot be one.

    Models of the study's earlier best students go, but for registered ones.

    Args:
        client: MLflow.
        experiment: Id of the experiment.
        run: Id of the student's run.
        common: Tags that say whose study it is.
        student: The student.
    """
    digest = _digest(student.file)
    found = False
    for model in list(_models(client, experiment, common["kdscale.study_id"])):
        same = (model.source_run_id, model.tags.get(_DIGEST)) == (run, digest)
        if same and str(model.status) == "READY" and not found:
            found = True
        elif not _versions(client, model):
            client.delete_logged_model(model.model_id)
    return "" if found else _log(client, experiment, run, common, student, digest)


def delete_models(client: MlflowClient, experiment: str, study: str) -> None:
    """Deletes the models of a study, but for registered ones.

    Args:
        client: MLflow.
        experiment: Id of the experiment.
        study: The study's id.
    """
    for model in list(_models(client, experiment, study)):
        if not _versions(client, model):
            client.delete_logged_model(model.model_id)


def register(client: MlflowClient, experiment: str, run: str, study: str, name: str) -> int:
    """Returns the version under which a run's model is registered; makes it if there is none.

    Args:
        client: MLflow.
        experiment: Id of the experiment.
        run: Id of the run.
        study: The study's id.
        name: Name in the model registry.

    Raises:
        UserError: The run has no model, or the name is no name for one.
    """
    from mlflow.exceptions import MlflowException

    models = [model for model in _models(client, experiment, study) if model.source_run_id == run]
    if not models:
        raise UserError("--register: MLflow must have the best student, but it has no model of it")
    model = models[0]
    try:
        for version in _versions(client, model):
            if version.name == name:
                return int(version.version)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
    except MlflowException as error:
        raise UserError(f"--register: must be a model's name, but got {name!r} ({error})") from None
    # The place by itself: of a model's URI MLflow would ask the default server.
    made = client.create_model_version(name, model.artifact_location, run, model_id=model.model_id)
    return int(made.version)


def _log(
    client: MlflowClient,
    experiment: str,
    run: str,
    common: dict[str, str],
    student: Student,
    digest: str,
) -> str:
    try:
        network, images = student.load()
    except UserError as error:
        return str(error)
    from mlflow.entities import LoggedModelOutput

    tags = {name: common[name] for name in ("kdscale.study", "kdscale.study_id")} | {
        "kdscale.trial": student.trial,
        _DIGEST: digest,
    }
    made = client.create_logged_model(experiment, NAME, run, tags, model_type="student")
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model"
            if why := _save(network, images, place, made):
                client.delete_logged_model(made.model_id)
                return why
            client.log_model_artifacts(made.model_id, str(place))
        client.log_outputs(run, [LoggedModelOutput(made.model_id, step=0)])
        client.finalize_logged_model(made.model_id, "READY")
    except Exception:
        client.delete_logged_model(made.model_id)
        raise
    return ""


def _save(network: Any, images: Any, place: Path, made: Any) -> str:
    """Writes a model's files; returns why the network has no form that MLflow loads."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.inference_mode():
        classes = network(images).shape[1]
    single = np.dtype("float32")
    signature = ModelSignature(
        Schema([TensorSpec(single, (-1, *images.shape[1:]), "images")]),
        Schema([TensorSpec(single, (-1, classes), "logits")]),
    )
    version = torch.__version__.partition("+")[0]
    try:
        # A graph, since MLflow refuses to load pickles.
        mlflow.pytorch.save_model(
            network,
            str(place),
            mlflow_model=Model(
                artifact_path=made.artifact_location,
                run_id=made.source_run_id,
                model_uuid=made.model_id,
                model_id=made.model_id,
            ),
            signature=signature,
            input_example=images.numpy(),
            pip_requirements=[f"torch=={version}"],
            serialization_format="pt2",
        )
    except Exception as error:  # torch.export has no base class of its own
        line = " ".join(str(error).split())[:_ERROR_LENGTH]
        return f"torch.export cannot take this network ({type(error).__name__}: {line})"
    return ""


def _models(client: MlflowClient, experiment: str, study: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_logged_models(
            [experiment],
            f"tags.`kdscale.study_id` = '{study}'",
            max_results=_PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _versions(client: MlflowClient, model: Any) -> list[Any]:
    """Returns the versions in the model registry that are this model."""
    found = client.search_model_versions(f"run_id = '{model.source_run_id}'")
    return [version for version in found if version.source == model.artifact_location]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
