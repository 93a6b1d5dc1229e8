"""A study swept in a process that may take only so much more memory once its students begin.

Prints the sizes of cohorts that it came to, and how every trial ended.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path
from unittest import mock

from kdscale.search import Study, load_study
from kdscale.search._queue import CohortQueue

from .here import swept_here

MEBIBYTE = 2**20


def data_bytes() -> int:
    """Returns what RLIMIT_DATA counts: heap and anonymous private memory."""
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def main(path: Path, mebibytes: int) -> None:
    study = load_study(path)
    # oneDNN compiles what a step computes when it is first asked to, and could not do so later.
    swept_here(wide_study(path.parent / "before", trials=2))
    sizes: list[int] = []
    take = CohortQueue.next

    def limited(queue: CohortQueue) -> object:
        if not sizes:
            queue.on_size = lambda size: sizes.append(size.size)
            queue.open(1)
            limit = data_bytes() + mebibytes * MEBIBYTE
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        return take(queue)

    with mock.patch.object(CohortQueue, "next", limited):
        ledger = swept_here(study)
    ends = {
        t.name: (t.state, t.reason, t.attempt, t.value, [dict(row) for row in t.history])
        for t in ledger.trials
    }
    print(json.dumps({"sizes": sizes, "ends": ends}))


def wide_study(folder: Path, trials: int = 8) -> Study:
    """Returns a study of students of 9 MB each, whose steps take little time."""
    from .studies import make_study

    narrow = {"width": 4}
    args = {"img_size": 32, "patch_size": 16, "embed_dim": 384, "depth": 1, "num_heads": 2}
    return make_study(
        name="tight",
        task={
            "data": {"name": "icons100", "train_images": 100},
            "teacher": {"model": "resnet8", "args": narrow, "epochs": 1, "inference": "folded"},
            "student": {"model": "vit_tiny_patch16_224", "args": args},
            "recipe": {"lr": 0.01, "batch_size": 50},
        },
        search={"method": "random"},
        rungs={"eta": 2, "first": 1},
        budget={"trials": trials, "epochs": 2},
        resources={"cohort": 8},
        undistilled=False,
        storage={"folder": str(folder)},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
