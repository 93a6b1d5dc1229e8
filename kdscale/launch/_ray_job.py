"""A job on a Ray cluster that is running already."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdscale.errors import UserError
from kdscale.launch._artefact import Artefact
from kdscale.launch._request import Request, check_paths
from kdscale.launch._working_dir import EXCLUDES, files_to_upload, upload_limit_bytes
from kdscale.urls import has_password

STOP_SECONDS = 60
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where Ray's job client looks first: before the address that it is given."""

ENV_VARS = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
"""With these `ray job stop` is a Ctrl-C with time to end; else SIGTERM, and SIGKILL 3 s later."""


def render(request: Request) -> Artefact:
    """Returns the ``ray job submit`` command, and what Ray uploads for it.

    Raises:
        UserError: If the study would be lost, no address is known, or the study file is not
            uploaded.
    """
    check_paths(request)
    address = _address(request)
    path = _inside(request)
    uploads = tuple(files_to_upload(request.folder))
    if all(upload.path != path for upload in uploads):
        raise UserError(
            f"{request.path}: the study file must be uploaded, but .gitignore, .rayignore or "
            f"kdscale leave it out ({', '.join(EXCLUDES)})"
        )
    words = ["ray", "job", "submit", "--address", address, "--no-wait", "--working-dir", "."]
    words += ["--runtime-env-json", json.dumps(_runtime_env())]
    words += ["--metadata-json", json.dumps(_metadata(request))]
    text = shlex.join([*words, "--", *request.sweep(path)])
    taken = {upload.path for upload in uploads}
    return Artefact(
        f"# {request.command}\n{text}\n",
        uploads,
        upload_limit_bytes(),
        tuple(_notes(request, taken)),
    )


def submit(request: Request, artefact: Artefact) -> list[str]:
    """Submits the job, and returns what to tell the user.

    Raises:
        UserError: If there is no cluster, or it does not take the job.
    """
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells each .gitignore that it reads
    address = _address(request)
    with _only_address(address):
        try:
            client = JobSubmissionClient(address)
            number = client.submit_job(
                entrypoint=shlex.join(request.sweep(_inside(request))),
                runtime_env={"working_dir": str(request.folder), **_runtime_env()},
                metadata=_metadata(request),
            )
        except AuthenticationError as error:
            raise UserError(
                f"{address}: the cluster asks for a token (set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to that of the cluster, where "
                "~/.ray/auth_token is not it)"
            ) from error
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{address}: there must be a Ray cluster that takes jobs, but: "
                f"{_first_line(error)} (the address is that of the dashboard, such as "
                "http://HEAD:8265)"
            ) from error
    dashboard = client.get_address()
    elsewhere = [name for name in _ADDRESS_VARIABLES if os.environ.get(name, address) != address]
    unset = "".join(f"-u {name} " for name in elsewhere)
    ray = f"env {unset}ray" if unset else "ray"
    of_job = f"--address {shlex.quote(dashboard)} {number}"
    return [
        f"submitted as {number} to {dashboard}",
        f"  {ray} job logs --follow {of_job}",
        f"  {ray} job status {of_job}",
        f"  {ray} job stop {of_job}    # submit again to go on",
    ]


def _address(request: Request) -> str:
    named = (os.environ.get(name) for name in _ADDRESS_VARIABLES)
    address = request.options.address or next((one for one in named if one), None)
    if address is None:
        raise UserError(
            "--address: must be given with --to ray, such as http://HEAD:8265, or set RAY_ADDRESS "
            "(--to local needs none)"
        )
    if has_password(address):
        raise UserError("--address: must hold no password (use RAY_AUTH_MODE=token)")
    return address


def _inside(request: Request) -> Path:
    """Returns the study file relative to the working directory, which is what is uploaded."""
    path, folder = request.path.resolve(), request.folder.resolve()
    if not path.is_relative_to(folder):
        raise UserError(
            f"{request.path}: the study file must lie in the working directory with --to ray, "
            f"which is uploaded, but that is {folder}"
        )
    return path.relative_to(folder)


def _runtime_env() -> dict[str, Any]:
    return {"excludes": list(EXCLUDES), "env_vars": dict(ENV_VARS)}


def _metadata(request: Request) -> dict[str, str]:
    return {"kdscale_study": request.study.name}


def _notes(request: Request, uploads: set[Path]) -> Iterator[str]:
    task = request.study.task
    root = getattr(task.data, "root", None)
    for key, value in (("task.data.root", root), ("task.teacher.weights", task.teacher.weights)):
        if value is None or str(value) == "timm" or str(value).startswith("package:"):
            continue
        path = Path(value)
        here = path.is_relative_to(request.folder) and path.relative_to(request.folder)
        if not here or not any(here == one or here in one.parents for one in uploads):
            yield f"{key} is not uploaded: all nodes must have {path}"


@contextmanager
def _only_address(address: str) -> Iterator[None]:
    """Sets the variables that Ray would take another address from, for as long as it looks."""
    before = {name: os.environ.pop(name, None) for name in _ADDRESS_VARIABLES}
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        del os.environ["RAY_API_SERVER_ADDRESS"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _first_line(error: Exception) -> str:
    return next(iter(f"{error}".strip().splitlines()), type(error).__name__).rstrip(". ")
