"""From a study file to where it runs: Ray jobs, KubeRay, Slurm, this machine."""

from kdscale.launch._artefact import Artefact, Upload
from kdscale.launch._request import Options, Request
from kdscale.launch._targets import TARGETS, make_request, render, submit
from kdscale.launch._working_dir import check_folder_stays

__all__ = [
    "TARGETS",
    "Artefact",
    "Options",
    "Request",
    "Upload",
    "check_folder_stays",
    "make_request",
    "render",
    "submit",
]
