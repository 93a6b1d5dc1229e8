"""Where a study can run, by the name that ``kdscale submit --to`` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdscale.errors import UserError, did_you_mean
from kdscale.launch import _kuberay, _local, _ray_job, _slurm
from kdscale.launch._artefact import Artefact
from kdscale.launch._request import OPTION_NAMES, Options, Request, check_passwords
from kdscale.search import Study

_SHAPE = ("cohorts", "nodes", "cpus", "gpus")


@dataclass(frozen=True)
class Target:
    """One place where a study can run.

    Attributes:
        render: Makes the artefact; touches nothing.
        submit: Hands it over; returns what to tell the user, or an exit code if it has ended.
        options: The options that it reads.
    """

    render: Callable[[Request], Artefact]
    submit: Callable[[Request, Artefact], list[str] | int]
    options: tuple[str, ...]


TARGETS: dict[str, Target] = {
    "ray": Target(_ray_job.render, _ray_job.submit, ("address",)),
    "kuberay": Target(
        _kuberay.render,
        _kuberay.submit,
        (*_SHAPE, "image", "namespace", "queue", "claim", "memory"),
    ),
    "slurm": Target(_slurm.render, _slurm.submit, (*_SHAPE, "partition", "time")),
    "local": Target(_local.render, _local.submit, ()),
}


def make_request(
    study: Study, path: Path, overrides: Sequence[str], target: str, options: Options
) -> Request:
    """Returns the request, if the target has the options that were given.

    Raises:
        UserError: If there is no such target, an option is another's, or a password would be
            shown.
    """
    if target not in TARGETS:
        hint = did_you_mean(target, TARGETS)
        names = ", ".join(TARGETS)
        raise UserError(
            f"--to: must be one of {names}, but got {target}" + (f" ({hint})" if hint else "")
        )
    for name in options.given():
        if name not in TARGETS[target].options:
            owners = [other for other, one in TARGETS.items() if name in one.options]
            raise UserError(
                f"--{name}: must be given only with --to {' or '.join(owners)}, but got "
                f"--to {target}"
            )
    check_passwords(overrides)
    if path.is_dir() and target in ("ray", "kuberay"):
        raise UserError(
            f"{path}: must be a study file with --to {target}: a study's folder lies only where "
            "it was made"
        )
    return Request(study, path, tuple(overrides), target, options, Path.cwd())


def render(request: Request) -> Artefact:
    """Returns what would be submitted.

    Raises:
        UserError: If the target cannot run the study, or its upload is too large.
    """
    artefact = TARGETS[request.target].render(request)
    artefact.check_size()
    return artefact


def submit(request: Request, artefact: Artefact) -> list[str] | int:
    """Submits; returns what to tell the user, or the exit code of what has ended already.

    Raises:
        UserError: If a program is missing, or the target refuses.
    """
    return TARGETS[request.target].submit(request, artefact)


assert {name for target in TARGETS.values() for name in target.options} == set(OPTION_NAMES)
