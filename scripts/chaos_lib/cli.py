"""The command line of scripts/chaos.py."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed_lib import TestbedError
from testbed_lib.hosts import why_not_here

from chaos_lib.kinds import KINDS
from chaos_lib.run import Plan, Verdict, run

_INSIDE = "KDSCALE_CHAOS_INSIDE"
_DISK_BYTES = 256 * 2**20


def main(about: str | None, words: Sequence[str]) -> int:
    """Runs the command and returns the exit code.

    Args:
        about: What help begins with.
        words: The command line.
    """
    asked = _parser(about).parse_args(words)
    if why := why_not_here():
        print(f"chaos: {why}", file=sys.stderr)
        return 2
    if _INSIDE not in os.environ:  # in mounts of its own, so that the small disk goes with it
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe(command[0], command, os.environ | {_INSIDE: "1"})
    folder = Path(tempfile.mkdtemp(prefix="kdscale-chaos-"))
    _mount_disk(folder / "disturbed")
    plan = Plan(asked.seed, asked.kills, asked.kinds, asked.nodes, asked.workers, folder)
    print(f"seed {plan.seed}, {plan.kills} kills of: {', '.join(plan.kinds)}; files in {folder}")
    try:
        verdict = run(plan, lambda line: print(line, flush=True))
    except TestbedError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    print(table(verdict, plan.kinds))
    for problem in verdict.problems:
        print(f"PROBLEM: {problem}")
    if verdict.problems or asked.keep:
        shutil.copytree(folder / "disturbed", folder / "disturbed-kept")
        print(f"files kept in {folder}")
        return 1 if verdict.problems else 0
    shutil.rmtree(folder, ignore_errors=True)
    print("all trials, metrics and weights are those of the study left alone")
    return 0


def table(verdict: Verdict, kinds: Sequence[str]) -> str:
    """Returns kills by kind, how long until training went on, and what was trained again."""
    lines = [
        "| kind | kills | went on | seconds until then, median | longest "
        "| epochs trained again | most of one trial |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in (*kinds, "all"):
        kills = [kill for kill in verdict.kills if kind in (kill.kind, "all")]
        if not kills:
            continue
        seconds = sorted(k.recovered_seconds for k in kills if k.recovered_seconds is not None)
        median = f"{seconds[len(seconds) // 2]:.0f}" if seconds else "-"
        longest = f"{seconds[-1]:.0f}" if seconds else "-"
        again = sum(kill.repeated.epochs for kill in kills)
        most = max(kill.repeated.most for kill in kills)
        cells = (kind, len(kills), len(seconds), median, longest, again, most)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append(f"\n{verdict.trials} trials; the sweep was started {verdict.starts} times")
    return "\n".join(lines)


def _mount_disk(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    if os.spawnvp(os.P_WAIT, words[0], words):
        raise TestbedError(f"{folder}: a small disk must be mounted here")


def _parser(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos.py",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help="what is killed, and when (0)")
    parser.add_argument("--kills", type=_positive, default=10, help="how often (10)")
    parser.add_argument(
        "--kinds",
        type=_kinds,
        default=list(KINDS),
        help=f"some of {','.join(KINDS)}, with commas; all by default (with database the study "
        "is in PostgreSQL, and without in SQLite)",
    )
    parser.add_argument("--nodes", type=_positive, default=2, help="of the cluster (2)")
    parser.add_argument(
        "--workers", type=_positive, default=1, help="of each cohort, over several nodes (1)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the files of a good run too")
    return parser


def _kinds(text: str) -> list[str]:
    found = [kind.strip() for kind in text.split(",")]
    for kind in found:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(KINDS)}, but got {kind}")
    return found


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on, but got {text}")
    return int(text)
