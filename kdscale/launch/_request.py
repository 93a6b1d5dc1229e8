"""What a user asks to submit, and what of it holds for every target."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kdscale.errors import UserError
from kdscale.search import Study
from kdscale.urls import has_password

_NAME_LENGTH = 47
"""KubeRay's limit for the name of a RayJob."""

_MARK_LETTERS = 6


@dataclass(frozen=True)
class Options:
    """Options of ``kdscale submit``, spelled as its flags; None for those not given."""

    address: str | None = None
    cohorts: int | None = None
    nodes: int | None = None
    cpus: int | None = None
    gpus: int | None = None
    partition: str | None = None
    time: str | None = None
    image: str | None = None
    namespace: str | None = None
    queue: str | None = None
    claim: str | None = None
    memory: str | None = None

    def given(self) -> dict[str, str]:
        """Returns the options that were given, by name."""
        return {name: f"{value}" for name, value in asdict(self).items() if value is not None}


OPTION_NAMES = tuple(field.name for field in fields(Options))


@dataclass(frozen=True)
class Request:
    """A study to submit.

    Attributes:
        study: The study.
        path: The study file as the user named it.
        overrides: Overrides as they were typed.
        target: Name of the target.
        options: Its options.
        folder: The working directory.
    """

    study: Study
    path: Path
    overrides: tuple[str, ...]
    target: str
    options: Options
    folder: Path

    @property
    def name(self) -> str:
        """A name for jobs: lower case, digits and hyphens, as Kubernetes wants it.

        One that had to change ends with letters of a hash, so that no two studies share a name.
        """
        wanted = f"kdscale-{self.study.name}"
        name = re.sub(r"[^a-z0-9]+", "-", wanted)[:_NAME_LENGTH].strip("-")
        if name == wanted:
            return name
        mark = hashlib.sha256(self.study.name.encode()).hexdigest()[:_MARK_LETTERS]
        return f"{name[: _NAME_LENGTH - _MARK_LETTERS - 1].rstrip('-')}-{mark}"

    def sweep(self, path: Path | str) -> list[str]:
        """Returns the entry point: the same wherever it runs, and safe to run again."""
        return ["kdscale", "sweep", str(path), *self.overrides]

    @property
    def command(self) -> str:
        """The command that makes this request, for the artefact's first line."""
        options = [
            word for name, value in self.options.given().items() for word in (f"--{name}", value)
        ]
        words = ["kdscale", "submit", str(self.path), "--to", self.target, *options]
        return shlex.join([*words, *self.overrides])


def check_paths(request: Request) -> None:
    """Holds that the study's record outlives the machine that trains it.

    Raises:
        UserError: If ``storage.folder`` is relative, so would lie in a folder that goes away.
    """
    folder = request.study.storage.folder
    if not folder.is_absolute():
        raise UserError(
            f"storage.folder: must be an absolute path with --to {request.target}, a folder that "
            f"all nodes share and that outlives them, but got {folder} "
            f"(add storage.folder=/shared/{folder.name})"
        )


def check_passwords(overrides: Sequence[str]) -> None:
    """Holds that no password comes into a command line, which logs and dashboards show.

    Raises:
        UserError: If an override has one.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if has_password(value):
            raise UserError(
                f"{key}: must hold no password, since logs and dashboards show the command "
                "(write it into the study file, or let the place where it runs know it: "
                "PGPASSFILE for PostgreSQL, MLFLOW_TRACKING_PASSWORD for MLflow)"
            )


def check_no_password(request: Request) -> None:
    """Holds that the study has no password where its file becomes readable for others.

    Raises:
        UserError: If it has one.
    """
    study = request.study
    for key, url in (("storage.url", study.storage.url), ("tracking.uri", study.tracking.uri)):
        if url and has_password(url):
            raise UserError(
                f"{key}: must hold no password with --to {request.target}, since the study file "
                "goes into a ConfigMap, which is not secret (mount a Secret into the image's "
                "PGPASSFILE, or set MLFLOW_TRACKING_PASSWORD there)"
            )
