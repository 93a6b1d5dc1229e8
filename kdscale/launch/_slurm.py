"""A Slurm job that starts Ray on its nodes, sweeps, and goes back into the queue in time."""

from __future__ import annotations

import shlex
from string import Template

from kdscale.launch._artefact import Artefact
from kdscale.launch._request import Request
from kdscale.launch._shape import shape_of
from kdscale.launch._tools import environment, require, run

_TIME = "24:00:00"

_SCRIPT = Template(
    """\
#!/usr/bin/env bash
# $command
# $shape
$directives

# Submitting it again goes on: the sweep trains what the study still misses.
set -euo pipefail

requeue() {
    echo "the time is nearly up: back into the queue, to go on from the last checkpoints"
    scontrol requeue "$$SLURM_JOB_ID"
    wait
}
trap requeue USR1

# Others use these machines: without a token they could run code in this Ray.
export RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null 2>&1
export RAY_USAGE_STATS_ENABLED=0
# Nodes join within 30 s by default, too little for Python on a busy file system.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

nodes=(--nodes="$$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=$cpus)
head=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST" | head -n 1)
address="$$head:$$((20000 + SLURM_JOB_ID % 10000))"
began=$$(mktemp)
trap 'rm -f "$$began"' EXIT
srun "$${nodes[@]}" ray stop --force > /dev/null 2>&1 || true  # what a killed job may have left

# shellcheck disable=SC2016  # sh on the node expands them
srun "$${nodes[@]}" \\
    ray symmetric-run --address "$$address" --min-nodes "$$SLURM_JOB_NUM_NODES" \\
    --num-cpus=$cpus --num-gpus=$gpus -- \\
    env RAY_ADDRESS="$$address" sh -c 'echo yes > "$$0" && exec "$$@"' "$$began" \\
    $sweep &
wait $$!
if [ ! -s "$$began" ]; then  # symmetric-run ends with 0 all the same
    echo "Ray did not start, so nothing was trained" >&2
    exit 1
fi
"""
)


def render(request: Request) -> Artefact:
    """Returns the batch script.

    Raises:
        UserError: If not one cohort has room on the nodes asked for.
    """
    options = request.options
    shape = shape_of(
        request.study,
        cohorts=options.cohorts,
        nodes=options.nodes,
        cpus=options.cpus,
        gpus=options.gpus,
    )
    directives = {
        "job-name": request.name,
        "nodes": shape.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": shape.cpus,
        **({"gpus-per-node": shape.gpus} if shape.gpus else {}),
        **({"partition": options.partition} if options.partition else {}),
        "time": options.time or _TIME,
        # Ray's symmetric-run ends every Ray of this user on the node: share it with no other job.
        "exclusive": None,
        "mem": 0,
        "requeue": None,
        "signal": "B:USR1@120",
        "open-mode": "append",
        "output": f"{request.name}-%j.log",
    }
    text = _SCRIPT.substitute(
        command=request.command,
        shape=shape,
        directives="\n".join(
            f"#SBATCH --{name}" + ("" if value is None else f"={value}")
            for name, value in directives.items()
        ),
        cpus=shape.cpus,
        gpus=shape.gpus,
        sweep=shlex.join(request.sweep(request.path)),
    )
    folder = request.study.storage.folder
    note = f"all nodes must see this folder, and {folder}, in which the study lies"
    return Artefact(text, notes=(note,))


def submit(request: Request, artefact: Artefact) -> list[str]:
    """Hands the script to sbatch, and returns what to tell the user.

    Raises:
        UserError: If sbatch is not there or refuses the script.
    """
    require("sbatch", "slurm", "log in to a node of the Slurm cluster")
    said = run(["sbatch", "--parsable"], artefact.text, environment()).stdout.strip()
    job = said.partition(";")[0]
    return [
        f"submitted as {job} to Slurm",
        f"  tail -F {request.name}-{job}.log",
        f"  squeue --jobs {job}",
        f"  scancel {job}    # submit again to go on",
    ]
