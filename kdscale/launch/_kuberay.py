"""A RayJob: KubeRay makes a Ray cluster of pods, sweeps on it, and takes it away."""

from __future__ import annotations

import shlex
import textwrap
from importlib.metadata import version
from typing import Any

from kdscale.errors import UserError
from kdscale.launch._artefact import Artefact, Upload
from kdscale.launch._ray_job import ENV_VARS
from kdscale.launch._request import Request, check_no_password, check_paths
from kdscale.launch._shape import Shape, shape_of
from kdscale.launch._tools import require, run
from kdscale.search import dump_yaml

CONFIG_MAP_BYTES = 2**20
"""Kubernetes' limit for a ConfigMap."""

_STUDY_FOLDER = "/etc/kdscale"
_USER = 1000
"""The user of clusters/Dockerfile, who writes the study."""

_GIBIBYTES_A_WORKER = 8
_RETRIES = 3
_ENDED = ("Complete", "Failed")
"""What KubeRay says of a job that it never starts again."""

_KEPT_SECONDS = {"SUCCEEDED": 60, "FAILED": 3600}
"""How long a cluster stays after its job, for a look at its logs."""


def render(request: Request) -> Artefact:
    """Returns the manifests: a ConfigMap with the study file, and the RayJob.

    Raises:
        UserError: If the study would be lost or its password shown, an option is missing, or not
            one cohort has room.
    """
    check_paths(request)
    check_no_password(request)
    options = request.options
    if options.image is None:
        raise UserError(
            "--image: must be given with --to kuberay, an image with kdscale in it "
            "(clusters/Dockerfile makes one)"
        )
    if options.claim is None:
        raise UserError(
            "--claim: must be given with --to kuberay, a PersistentVolumeClaim that all pods can "
            f"write (ReadWriteMany): it is mounted at {request.study.storage.folder}"
        )
    shape = shape_of(
        request.study,
        cohorts=options.cohorts,
        nodes=options.nodes,
        cpus=options.cpus,
        gpus=options.gpus,
    )
    text = request.path.read_text(encoding="utf-8")
    manifests = (_config_map(request, text), dump_yaml(_ray_job(request, shape)))
    return Artefact(
        f"# {request.command}\n# {shape}\n" + "---\n".join(manifests),
        (Upload(request.path, len(text.encode())),),
        CONFIG_MAP_BYTES,
        (f"data and weights that the study names by path must be in {options.image}",),
    )


def submit(request: Request, artefact: Artefact) -> list[str]:
    """Applies the manifests, and returns what to tell the user.

    A job of this name that has ended is deleted first: KubeRay would leave it as it is.

    Raises:
        UserError: If kubectl is not there or refuses them, or a job of this name has not ended.
    """
    require("kubectl", "kuberay", "https://kubernetes.io/docs/tasks/tools/ says how to install it")
    of = "".join(f"{shlex.quote(word)} " for word in _of(request))
    status = _status(request)
    if status is not None and status not in _ENDED:
        raise UserError(
            f"rayjob/{request.name}: must have ended before the study is submitted again, but it "
            f"is {status or 'not started yet'} (wait for it, or stop it: "
            f"kubectl {of}delete rayjob {request.name})"
        )
    if status is not None:
        run(["kubectl", *_of(request), "delete", "rayjob", request.name, "--wait"], "")
    run(["kubectl", "apply", "-f", "-"], artefact.text)
    before = "" if status is None else f", in place of the one before, which was {status}"
    return [
        f"submitted as rayjob/{request.name}{before}",
        f"  kubectl {of}logs -f job/{request.name}",
        f"  kubectl {of}get rayjob {request.name}",
        f"  kubectl {of}delete rayjob {request.name}    # submit again to go on",
    ]


def _status(request: Request) -> str | None:
    """Returns what KubeRay says of a job of this name: nothing at first; None without a job."""
    form = "jsonpath={.metadata.name}={.status.jobDeploymentStatus}"
    words = ["get", "rayjob", request.name, "--ignore-not-found", "-o", form]
    found = run(["kubectl", *_of(request), *words], "").stdout.strip()
    return found.partition("=")[2] if found else None


def _of(request: Request) -> list[str]:
    namespace = request.options.namespace
    return ["-n", namespace] if namespace else []


def _metadata(request: Request) -> dict[str, Any]:
    namespace = request.options.namespace
    return {"name": request.name, **({"namespace": namespace} if namespace else {})}


def _config_map(request: Request, text: str) -> str:
    """Returns the ConfigMap, the study file in it as it is, so that people can read it."""
    head = dump_yaml(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(request), "data": {}}
    )
    body = textwrap.indent(text if text.endswith("\n") else f"{text}\n", "    ")
    return head.replace("data: {}\n", f"data:\n  {_file_name(request)}: |2+\n{body}")


def _file_name(request: Request) -> str:
    return f"{request.study.name.replace('/', '-')}.yaml"


def _ray_job(request: Request, shape: Shape) -> dict[str, Any]:
    queue = request.options.queue
    labels = {"labels": {"kueue.x-k8s.io/queue-name": queue}} if queue else {}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {**_metadata(request), **labels},
        "spec": {
            "entrypoint": shlex.join(request.sweep(f"{_STUDY_FOLDER}/{_file_name(request)}")),
            "runtimeEnvYAML": dump_yaml({"env_vars": ENV_VARS}),
            "submissionMode": "K8sJobMode",
            "backoffLimit": _RETRIES,  # each on a new cluster, where the sweep goes on
            **_ending(queued=queue is not None),
            "rayClusterSpec": _ray_cluster(request, shape),
        },
    }


def _ending(*, queued: bool) -> dict[str, Any]:
    """Returns when the cluster goes away.

    Kueue admits only jobs that start suspended and have the older of KubeRay's two ways to say it;
    KubeRay refuses both ways together.
    """
    if queued:
        seconds = _KEPT_SECONDS["SUCCEEDED"]
        return {
            "suspend": True,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": seconds,
        }
    rules = [
        {"policy": "DeleteCluster", "condition": {"jobStatus": status, "ttlSeconds": seconds}}
        for status, seconds in _KEPT_SECONDS.items()
    ]
    return {"deletionStrategy": {"deletionRules": rules}}


def _ray_cluster(request: Request, shape: Shape) -> dict[str, Any]:
    study = {"name": "study", "configMap": {"name": request.name}}
    head = _pod(request, "ray-head", cpus=2, gpus=0, memory=f"{_GIBIBYTES_A_WORKER}Gi")
    head["spec"]["volumes"].append(study)
    head["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "study", "mountPath": _STUDY_FOLDER}
    )
    memory = request.options.memory or f"{_GIBIBYTES_A_WORKER * shape.workers}Gi"
    worker = _pod(request, "ray-worker", cpus=shape.cpus, gpus=shape.gpus, memory=memory)
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            # Nothing trains on the head: it holds the sweep, and must outlive every worker.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": head,
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": shape.nodes,
                "minReplicas": shape.nodes,
                "maxReplicas": shape.nodes,
                "rayStartParams": {},
                "template": worker,
            }
        ],
    }


def _pod(request: Request, name: str, *, cpus: int, gpus: int, memory: str) -> dict[str, Any]:
    resources = {"cpu": f"{cpus}", "memory": memory}
    if gpus:
        resources["nvidia.com/gpu"] = f"{gpus}"
    folder = f"{request.study.storage.folder}"
    return {
        "spec": {
            "securityContext": {"fsGroup": _USER},
            "containers": [
                {
                    "name": name,
                    "image": request.options.image,
                    "resources": {"requests": resources, "limits": dict(resources)},
                    "volumeMounts": [{"name": "studies", "mountPath": folder}],
                }
            ],
            "volumes": [
                {
                    "name": "studies",
                    "persistentVolumeClaim": {"claimName": request.options.claim},
                }
            ],
        }
    }
