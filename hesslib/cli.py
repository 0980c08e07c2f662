"""The ``hesslib`` command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from .notebook.parameters import SCALES, ParameterError


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``hesslib`` and ``python -m hesslib``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="hesslib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks", description="Execute notebooks of the book.")
    run.add_argument("notebooks", nargs="*", help="numbers or names (01, 04_size); all if none is given")
    run.add_argument("--scale", choices=SCALES, help="sizes of the experiments (default: the notebook's own, quick)")
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter; may be repeated",
    )
    run.add_argument("--jobs", type=int, default=1, help="notebooks executed at a time")
    run.add_argument("-o", "--output", type=Path, help="folder for the executed notebooks")
    bench = commands.add_parser("bench", help="compare with other libraries", description="Run the benchmark.")
    bench.add_argument("--rounds", type=int, default=3, help="measurements of each contender (default 3)")
    options = parser.parse_args(arguments)
    try:
        return {"run": run_command, "bench": bench_command}[options.command](options)
    except ParameterError as error:
        print(f"hesslib: {error}", file=sys.stderr)
        return 2


def run_command(options: argparse.Namespace) -> int:
    """``hesslib run``."""
    from . import runner

    parameters = {}
    for text in options.parameter:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"-p {text}: give NAME=VALUE")
        parameters[name] = yaml.safe_load(value)
    if options.scale and (options.scale != "quick" or parameters):
        parameters["scale"] = options.scale
    outcomes = runner.run(options.notebooks, parameters, output=options.output, jobs=options.jobs)
    failed = [o.name for o in outcomes if o.state != "done"]
    if failed:
        print(f"failed: {', '.join(failed)}; their earlier outputs are as they were", file=sys.stderr)
    return 1 if failed else 0


def bench_command(options: argparse.Namespace) -> int:
    """``hesslib bench``."""
    from . import benchmark

    benchmark.run(options.rounds)
    return 0
