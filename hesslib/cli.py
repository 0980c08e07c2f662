"""The ``hesslib`` command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._files import StorageError
from .book.parameters import SCALES, ParameterError

SWEEP = """\
Run a notebook for every combination of values, and collect the numbers it finds in table.csv.

    python -m hesslib sweep 03_data --scale smoke -g classes=2,5,10 -g seed=0:20

A sweep started again goes on where it stopped; failed runs have their message in the table."""
CONFIRM = "Run a sample of stale results by the code that made them and by the present code, and compare every bit."
INSTEAD = "in place of a sampled run's own, to make it short; may be repeated"
PARAMETER = "set a parameter; may be repeated"
RAW = argparse.RawDescriptionHelpFormatter


def jobs(text: str) -> int:
    """A number of processes; argparse turns the error into a message."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"jobs = {text!r} is not valid: give a whole number >= 1")
    return int(text)


def command_line() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="hesslib", description="The commands of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks", description="Execute notebooks of the book.")
    run.add_argument("notebooks", nargs="*", help="numbers or names (01, 04_size); all if none is given")
    sweep = commands.add_parser("sweep", help="a notebook over a grid", description=SWEEP, formatter_class=RAW)
    sweep.add_argument("notebook", help="number, name or path of a notebook")
    sweep.add_argument("-g", "--grid", action="append", default=[], metavar="NAME=VALUES", help="2,5,10 or 0:20")
    sweep.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, tcp://...; default: this machine")
    for command, what in ((run, "notebooks"), (sweep, "runs")):
        command.add_argument(
            "--scale", choices=SCALES, help="sizes of the experiments (default: the notebook's, quick)"
        )
        command.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help=PARAMETER)
        command.add_argument("--jobs", type=jobs, default=1, help=f"{what} executed at a time")
        command.add_argument("-o", "--output", type=Path, help="folder for the results")
    page = commands.add_parser("page", help="one HTML file from an executed notebook", description="Make a page.")
    page.add_argument("notebook", type=Path, help="what papermill, Jupyter or hesslib run has written")
    page.add_argument("-o", "--output", type=Path, help="the HTML file; by default beside the notebook")
    ledger = commands.add_parser("claims", help="the paper's claims and their verdicts", description="The ledger.")
    ledger.add_argument("--json", action="store_true", help="print everything, for programs")
    ledger.add_argument("--acknowledge", action="store_true", help="make these the verdicts that the book shows")
    check = commands.add_parser("audit", help="recompute stored results", description="Recompute and compare.")
    check.add_argument("results", nargs="*", metavar="NAME[/KEY]", help="stored results; all if none is given")
    check.add_argument("--tolerance", type=float, default=1e-6, help="relative deviation allowed (default 1e-6)")
    renew = commands.add_parser("renew", help="compute stale results anew", description="Renew into _build/store.")
    renew.add_argument("results", nargs="*", metavar="NAME[/KEY]", help="stored results; all if none is given")
    renew.add_argument("--jobs", type=jobs, default=1, help="results computed at a time")
    same = commands.add_parser("confirm", help="compare with the code that made stale results", description=CONFIRM)
    same.add_argument("results", nargs="*", metavar="NAME", help="experiments; all with stale results if none is given")
    same.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help=INSTEAD)
    true = commands.add_parser("labels", help="whether published labels are true", description="Check every label.")
    true.add_argument("--rehash", action="store_true", help="first take the hashes of the code from the commits anew")
    commands.add_parser("pack", help="publish what _build/store holds", description="Move results to book/results.")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``hesslib`` and ``python -m hesslib``; returns the exit status."""
    options = command_line().parse_args(arguments)
    try:
        return globals()[f"{options.command}_command"](options)
    except (ParameterError, StorageError) as error:
        print(f"hesslib: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"hesslib: {options.command} needs {error.name}: pip install -e '.[book]' in its folder", file=sys.stderr)
        return 2


def parameters_of(options: argparse.Namespace) -> dict:
    """The parameters set by -p and --scale."""
    from .book.sweep import value

    parameters = {}
    for text in options.parameter:
        name, equals, right = text.partition("=")
        if not (name and equals):
            raise ParameterError(f"-p {text}: give NAME=VALUE")
        parameters[name] = value(right)
    if getattr(options, "scale", None) and (options.scale != "quick" or parameters or options.command == "sweep"):
        parameters["scale"] = options.scale
    return parameters


def sweep_command(options: argparse.Namespace) -> int:
    """``hesslib sweep``."""
    from .book import sweep

    grid, fixed = sweep.grid_of(options.grid), parameters_of(options)
    where = {"folder": options.output, "jobs": options.jobs, "scheduler": options.scheduler}
    rows = sweep.sweep(options.notebook, grid, fixed, **where)
    failed = [row for row in rows if row["state"] != "done"]
    for row in failed:
        print(f"failed: {', '.join(f'{name}={row[name]}' for name in grid)}: {row['message']}", file=sys.stderr)
    print(f"{len(rows) - len(failed)} of {len(rows)} runs done, see table.csv")
    return 1 if failed else 0


def run_command(options: argparse.Namespace) -> int:
    """``hesslib run``."""
    from .book import runner

    parameters = parameters_of(options)
    outcomes = runner.run(options.notebooks, parameters, output=options.output, jobs=options.jobs)
    failed = [o.name for o in outcomes if o.state != "done"]
    if failed:
        print(f"failed: {', '.join(failed)}; their earlier outputs are as they were", file=sys.stderr)
    return 1 if failed else 0


def page_command(options: argparse.Namespace) -> int:
    """``hesslib page``."""
    from .book.page import write_page

    print(write_page(options.notebook, options.output))
    return 0


def claims_command(options: argparse.Namespace) -> int:
    """``hesslib claims``; status 1 if a verdict or number is not the one that the book shows."""
    import json

    from .book import claims

    now = claims.report()
    if options.acknowledge:
        claims.acknowledge(now)
    print(json.dumps(now["claims"], indent=1, ensure_ascii=False) if options.json else claims.listing(now["claims"]))
    changed = claims.differences(now, claims.acknowledged())
    for line in changed:
        print(f"changed: {line}", file=sys.stderr)
    return 1 if changed else 0


def audit_command(options: argparse.Namespace) -> int:
    """``hesslib audit``; status 1 if a stored result is not what its function gives now."""
    from .book import audit

    bad = 0
    for label in audit.entries(options.results):
        finding = audit.audit(label, options.tolerance)
        print(finding, flush=True)
        bad += not finding.agrees
    return 1 if bad else 0


def renew_command(options: argparse.Namespace) -> int:
    """``hesslib renew``: what is computed anew is kept whether it agrees with the earlier result or not."""
    from .book import audit

    done = failed = 0
    for finding in audit.renew(options.results, options.jobs):
        print(finding, flush=True)
        done, failed = done + 1, failed + isinstance(finding, str)
    print(f"{done - failed} results renewed; python -m hesslib pack publishes them" if done else "nothing to renew")
    return 1 if failed else 0


def confirm_command(options: argparse.Namespace) -> int:
    """``hesslib confirm``; status 1 if some number differs."""
    from .book.confirm import confirm

    differing = 0
    for name, differs in confirm(options.results, parameters_of(options)):
        print(f"{name}: {f'DIFFERS at {differs}' if differs else 'the same bits'}", flush=True)
        differing += bool(differs)
    return 1 if differing else 0


def labels_command(options: argparse.Namespace) -> int:
    """``hesslib labels``; status 1 if a label is not true."""
    from .book import pack

    if options.rehash:
        print(f"{pack.rehash()} labels have another hash of the same code")
    count, found = pack.faults()
    print(pack.report(count, found))
    if older := pack.earlier():
        print(f"{older} of them were made by earlier code; book/confirmed.jsonl says where the present code agrees")
    return 1 if found else 0


def pack_command(options: argparse.Namespace) -> int:
    """``hesslib pack``."""
    from .book import pack

    added = pack.pack()
    print("\n".join(f"{name}: {runs} runs published" for name, runs in added.items()) or "nothing to publish")
    return 0
