"""Checks of what clusters get, by their own schemas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

CRDS = Path(__file__).parent / "kuberay_crds.yaml"
SPECS = {"RayJob": "rayJobSpec", "RayCluster": "rayClusterSpec"}


def load_all(text: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(text))


def check_manifest(manifest: dict[str, Any]) -> None:
    """Holds that Kubernetes with KubeRay takes a manifest: unknown keys are errors too."""
    if manifest["kind"] not in SPECS:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        return
    assert manifest["apiVersion"] == "ray.io/v1"
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(manifest["metadata"]) <= {"name", "namespace", "labels"}
    schema = _closed(YAML(typ="safe").load(CRDS)[SPECS[manifest["kind"]]])
    Draft7Validator(schema).validate(manifest["spec"])
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def _closed(schema: Any) -> Any:
    """Returns a schema that refuses what it does not name, as the API server does when asked."""
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return copy.copy(schema)
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
