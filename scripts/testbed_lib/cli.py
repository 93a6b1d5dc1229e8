"""The command line of scripts/testbed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from testbed_lib.testbed import HEAD, Testbed, TestbedError


def main(about: str | None, words: Sequence[str]) -> int:
    """Runs a command and returns the exit code.

    Args:
        about: What help begins with.
        words: The command line.
    """
    asked = _parser(about).parse_args(words)
    testbed = Testbed(say=lambda line: print(line, flush=True))
    try:
        return _run(asked, testbed)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 2


def _run(asked: argparse.Namespace, testbed: Testbed) -> int:
    match asked.command:
        case "up":
            testbed.up(asked.count, asked.cpus)
            print("now: scripts/testbed run -- kdscale sweep STUDY")
        case "down":
            testbed.down()
        case "kill":
            testbed.kill(asked.node)
        case "cut":
            testbed.cut(asked.node)
        case "mend":
            testbed.mend(asked.node)
        case "status":
            _print_status(testbed)
        case "run":
            return testbed.run(asked.words, asked.node)
    return 0


def _print_status(testbed: Testbed) -> None:
    nodes = testbed.status()
    print(f"{'node':8}{'address':12}{'host':6}{'link':6}{'raylet':8}in the cluster")
    for node in nodes:
        host, link = "up" if node.up else "down", "up" if node.linked else "down"
        raylet, joined = "up" if node.raylet else "down", "yes" if node.joined else "no"
        print(f"{node.name:8}{node.address:12}{host:6}{link:6}{raylet:8}{joined}")


def _parser(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/testbed",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start N hosts and a Ray on each")
    up.add_argument("count", type=_count, metavar="N", help="hosts; node1 is the head")
    up.add_argument("--cpus", type=_count, default=2, help="CPUs that each says to have (2)")
    commands.add_parser("down", help="take everything away, also what a crash has left")
    commands.add_parser("status", help="show hosts, links, and what the head sees of them")
    for name, what in (
        ("kill", "kill all processes of a host at once, as a power cut does"),
        ("cut", "take a host's link down; its processes go on"),
        ("mend", "make a host part of the cluster again: start it, its link, its Ray"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("node", metavar="NODE", help="node1, node2, ...")
    run = commands.add_parser("run", help="run a command on a host, RAY_ADDRESS set")
    run.add_argument("--node", default=HEAD, help=f"the host ({HEAD}, the head)")
    run.add_argument("words", nargs="+", metavar="CMD", help="the command, after --")
    return parser


def _count(text: str) -> int:
    count = int(text) if text.isdigit() else 0
    if not 1 <= count <= 99:
        raise argparse.ArgumentTypeError(f"must be 1 to 99, but got {text}")
    return count
