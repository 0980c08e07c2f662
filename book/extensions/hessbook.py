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


def amount(value: float, unit: str) -> str:
    """A number with three digits and the right prefix of its unit; seconds above two minutes in larger units."""
    for size, name in ((86400 * 365, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if unit == "s" and value >= 2 * size:
            return f"{value / size:,.3g}\u00a0{name}"
    prefixes = {1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1: "", 1e-3: "m"}
    size = next((size for size in prefixes if value >= size), 1)
    return f"{value / size:.3g}\u00a0{prefixes[size]}{unit}"


class CostTable(SphinxDirective):
    """The measured cost of each method, and the powers fitted to it."""

    def run(self) -> list[nodes.Node]:
        report = cost_report(self.env)
        power = lambda fit, name: "" if not fit or fit[name] is None else f"{fit[name]:.2f}"
        fits, measured, sizes = [], [], (1e3, 1e4, 1e5, 1e6)
        for name, method in report["methods"].items():
            for what, word in (("seconds", "time"), ("bytes", "memory")):
                fit = method["fit"][what]
                worst = f"{fit['worst_factor']:.1f}" if fit else "too little to fit"
                fits.append([name if word == "time" else "", word, *(power(fit, k) for k in "MNC"), worst])
            rows = [r for r in method["rows"] if (r["N"], r["C"]) == (method["N"], report["classes"])]
            line = [f"{name}, N = {method['N']:,}"]
            for size in sizes:
                near = [r for r in rows if abs(r["M"] / size - 1) < 0.3]
                line.append(f"{amount(near[0]['seconds'], 's')}, {amount(near[0]['bytes'], 'B')}" if near else "")
            measured.append(line)
        versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        where = (
            f"Measured {report['date']} on {report['device']}, at a load of {report['load']:.1f} on {report['cores']} "
            f"cores (above one, other work ran beside it); {versions}; hesslib {report['code']}. C = "
            f"{report['classes']} where not varied. Fitted where the time is at least {1000 * report['floor']:.0f} ms."
        )
        return [
            nodes.paragraph("", where),
            nodes.rubric("", "Time and memory"),
            table(["", *(f"M = {size:,.0f}" for size in sizes)], measured),
            nodes.rubric("", "Fitted powers"),
            table(["", "", "of M", "of N", "of C", "worst point"], fits),
        ]


class CostPredictions(SphinxDirective):
    """What the measured cost of a product says about larger models."""

    def run(self) -> list[nodes.Node]:
        report = cost_report(self.env)
        product, check, models = report["product"], report["check"], report["predictions"]
        factor = max(a["seconds_each"] / b["seconds_each"] for a, b in ((product, check), (check, product)))
        said = (
            f"On the network with M = {product['M']:,} and {product['F']:,} multiply-adds for an example, a product "
            f"took {1e9 * product['seconds_each']:.2f} ns for each of them, {product['gradients']:.1f} times as long "
            f"as a gradient; with M = {check['M']:,} and {check['F']:,} multiply-adds it took "
            f"{1e9 * check['seconds_each']:.2f} ns and {check['gradients']:.1f} times. That the two differ by a factor "
            f"of {factor:.1f} says how far to trust the times in the table."
        )
        rows = [
            [name, *(value(m) for m in models)]
            for name, value in (
                ("parameters M", lambda m: f"{m['M']:,}"),
                ("examples or tokens N", lambda m: f"{m['N']:,}"),
                ("multiply-adds of the model for one", lambda m: f"{m['F']:,}"),
                ("the matrix in double precision", lambda m: amount(m["matrix_bytes"], "B")),
                ("memory of the ten largest, 60 vectors", lambda m: amount(m["basis_bytes"], "B")),
                ("memory of a density, 10 probes of 80 steps", lambda m: amount(m["density_bytes"], "B")),
                ("multiply-adds of one product", lambda m: f"{m['multiply_adds']:.1e}"),
                ("one product on one thread of this machine", lambda m: amount(m["seconds_here"], "s")),
                ("one product on a device", lambda m: amount(m["multiply_adds"] / 3e12, "s")),
                ("one product on 64 devices", lambda m: amount(m["multiply_adds"] / 3e12 / 64, "s")),
                (
                    "that density, 800 products, on 64 devices",
                    lambda m: amount(800 * m["multiply_adds"] / 3e12 / 64, "s"),
                ),
                ("traffic of each device for one product", lambda m: amount(m["traffic_bytes"], "B")),
            )
        ]
        return [nodes.paragraph("", said), table(["", *(m["model"] for m in models)], rows)]


def cost_report(env) -> dict:
    """The stored measurements of cost."""
    path = Path(env.srcdir) / "book" / "cost.json"
    env.note_dependency(str(path))
    return json.loads(path.read_text(encoding="utf-8"))


def setup(app):
    app.connect("builder-inited", copy_mathjax)
    app.add_directive("notebook-table", NotebookTable)
    app.add_directive("results-table", ResultsTable)
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("cost-table", CostTable)
    app.add_directive("cost-predictions", CostPredictions)
    return {"parallel_read_safe": True, "version": "1"}
