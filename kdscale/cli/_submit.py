"""Commands of studies that run elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from kdscale.cli._app import (
    Overrides,
    StudyPath,
    app,
    load_study,
    print_plain,
)


@app.command()
def submit(
    study: StudyPath,
    to: Annotated[str, typer.Option(help="ray, kuberay, slurm or local.")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted; submit nothing.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="ray: the dashboard; default: RAY_ADDRESS.")
    ] = None,
    cohorts: Annotated[
        int | None, typer.Option(min=1, help="Cohorts at once; default: a generation's.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes; default: 1.")] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs of a node; default: what the study takes.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a node; default: what the study takes.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="slurm: the partition.")] = None,
    time: Annotated[
        str | None, typer.Option(help="slurm: time until it is requeued; default: 24:00:00.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="kuberay: image with kdscale.")] = None,
    namespace: Annotated[str | None, typer.Option(help="kuberay: the namespace.")] = None,
    queue: Annotated[str | None, typer.Option(help="kuberay: Kueue's local queue.")] = None,
    claim: Annotated[
        str | None, typer.Option(help="kuberay: volume claim for storage.folder.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="kuberay: memory of a worker pod.")] = None,
) -> None:
    """Run a sweep elsewhere: a Ray cluster, KubeRay, Slurm; or here. Submit again to continue."""
    from kdscale import launch

    options = launch.Options(
        address, cohorts, nodes, cpus, gpus, partition, time, image, namespace, queue, claim, memory
    )
    loaded = load_study(study, overrides)
    request = launch.make_request(loaded, study, overrides or [], to, options)
    artefact = launch.render(request)
    if dry_run:
        print_plain(artefact.text + "\n".join(artefact.comments()))
        return
    told = launch.submit(request, artefact)
    if isinstance(told, int):
        raise typer.Exit(told)
    print_plain("\n".join(told))
