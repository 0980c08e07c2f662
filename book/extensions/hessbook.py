"""What the book's build needs beyond Jupyter Book: MathJax from its package, and two tables from metadata."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def copy_mathjax(app) -> None:
    """Put MathJax among the static files, so that no page asks a network for it."""
    target = Path(app.srcdir) / "book" / "webassets" / "vendor"
    target.mkdir(parents=True, exist_ok=True)
    source = files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
    shutil.copyfile(str(source), target / "tex-svg.js")


def table(head: list[str], rows: list[list[str]]) -> nodes.table:
    """A docutils table of plain text."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))

    def row(texts):
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", t)) for t in texts))

    group += [nodes.thead("", row(head)), nodes.tbody("", *map(row, rows))]
    return nodes.table("", group, classes=["table"])


class NotebookTable(SphinxDirective):
    """When, where and from what each notebook was executed."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for path in sorted((Path(self.env.srcdir) / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            self.env.note_dependency(str(path))
            made = json.loads(path.read_text(encoding="utf-8"))["metadata"]["hesslib"]
            versions = ", ".join(f"{k} {v}" for k, v in made["versions"].items())
            rows.append(
                [
                    path.stem,
                    made["date"],
                    f"{made['seconds']} s",
                    made["device"],
                    versions,
                    f"{made['source']} / {made['code']}",
                ]
            )
        return [table(["notebook", "executed", "time", "device", "versions", "source / hesslib"], rows)]


class ResultsTable(SphinxDirective):
    """The stored results, one line for each experiment."""

    def run(self) -> list[nodes.Node]:
        groups: dict[str, list[dict]] = {}
        for path in sorted((Path(self.env.srcdir) / "book" / "results").rglob("*.json")):
            self.env.note_dependency(str(path))
            made = json.loads(path.read_text(encoding="utf-8"))
            groups.setdefault(made["name"], []).append(made)
        rows = []
        for name, runs in groups.items():
            join = lambda key, runs=runs: ", ".join(sorted({r[key] for r in runs}))
            seconds = sum(r["seconds"] for r in runs)
            rows.append([name, str(len(runs)), f"{seconds:.0f} s", join("date"), join("device"), join("code")])
        if not rows:
            return [nodes.paragraph("", "No stored results yet.")]
        return [table(["experiment", "runs", "time", "date", "device", "hesslib"], rows)]


class BenchmarkTable(SphinxDirective):
    """The stored benchmark, a table for each task."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "book" / "benchmark.json"
        self.env.note_dependency(str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
        versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        where = f"Measured {report['date']} on {report['device']}; {versions}; hesslib {report['code']}; "
        found = [nodes.paragraph("", where + f"median of {report['rounds']} rounds.")]
        for task, lines in report["tasks"].items():
            ours = lines[0]["seconds"]
            rows = []
            for line in lines:
                if "failed" in line:
                    rows.append([line["what"], "failed", "", "", line["failed"]])
                    continue
                scaled = f" (from {line['columns']} of {line['of']:,} columns)" if "columns" in line else ""
                error = f"{line['error']:.0e}".replace("-", "\u2011") if line.get("error") else "exact"
                digits = ",.0f" if line["seconds"] > 100 else ".2f"
                seconds, peak = f"{line['seconds']:{digits}}\u00a0s", f"{line['peak_gib']:.1f}\u00a0GiB"
                ratio = f"{line['seconds'] / ours:.1f}"
                rows.append([line["what"] + scaled, seconds, ratio, peak, error])
            if task.startswith("dense, 100"):
                limit = report["limit"]["seconds"]
                rows.append([f"Limit: {report['limit']['what']}", f"{limit:.2f} s", f"{limit / ours:.1f}", "", ""])
            found += [
                nodes.rubric("", task.capitalize()),
                table(["", "time", "ratio", "peak memory", "error"], rows),
            ]
        return found


def setup(app):
    app.connect("builder-inited", copy_mathjax)
    app.add_directive("notebook-table", NotebookTable)
    app.add_directive("results-table", ResultsTable)
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "version": "1"}
