"""What the book's build needs beyond Jupyter Book: MathJax from its package, and tables from metadata."""

import ast
import importlib.util
import json
import re
import shlex
import shutil
import sys
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from textwrap import shorten

import charts
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)
SCALES = ("smoke", "quick", "paper")


def copy_mathjax(app) -> None:
    """Put MathJax among the static files, so that no page asks a network for it."""
    target = Path(app.srcdir) / "book" / "webassets" / "vendor"
    target.mkdir(parents=True, exist_ok=True)
    source = files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
    shutil.copyfile(str(source), target / "tex-svg.js")


def table(head: list[str], rows: list[list[str]]) -> nodes.table:
    """A docutils table of texts; one in backticks is shown as code."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))

    def row(texts):
        shown = (nodes.literal("", t[1:-1]) if t[:1] == "`" else nodes.Text(t) for t in texts)
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", t)) for t in shown))

    group += [nodes.thead("", row(head)), nodes.tbody("", *map(row, rows))]
    return nodes.table("", group, classes=["table"])


def kit(name: str):
    """A module of hesslib.book by itself: the package needs torch, the HTML does not."""
    alone = f"hesslib_book_{name}"
    if alone not in sys.modules:
        path = Path(__file__).parents[2] / "hesslib" / "book" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(alone, path)
        sys.modules[alone] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(sys.modules[alone])
    return sys.modules[alone]


@cache
def experiments(root: Path) -> dict[str, tuple]:
    """The stored experiments: where each is made, its closure as the code is now, and the labels of its runs."""
    closure, found = kit("closure"), {}
    code = closure.tree(root)
    present = closure.present(code)
    for name, made in closure.experiments(code).items():
        path = root / "book" / "results" / f"{name}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found[name] = (made, present[name], [json.loads(line) for line in lines])
    return found


def parameters_of(path: Path) -> list[dict]:
    """A notebook's parameters: name, default, help, range, and values at the three scales."""
    parameters = kit("parameters")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    declared = next(
        ("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])),
        "",
    )
    calls = (n for c in code for n in ast.walk(ast.parse(c)) if isinstance(n, ast.Call))
    resolve = next((n for n in calls if getattr(n.func, "id", "") == "resolve"), None)
    ranges = {"scale": parameters.choice(*SCALES)}
    for keyword in resolve.keywords if resolve else []:
        ranges[keyword.arg] = eval(compile(ast.Expression(keyword.value), str(path), "eval"), vars(parameters))
    found = []
    for name, default, text in re.findall(r"^(\w+): \w+ = (.+?)  # (.+)$", declared, re.M):
        default, allowed = ast.literal_eval(default), ranges[name]
        values = {s: s if name == "scale" else value_at(s, default, allowed) for s in SCALES}
        found.append({"name": name, "default": default, "help": text, "range": allowed, "values": values})
    return found


def value_at(scale: str, given, allowed):
    """What a parameter is at a scale: as given, or if it is not set its preset."""
    return allowed.presets[scale] if allowed.presets and given in (0, "", "[]", []) else given


def injected_of(path: Path) -> dict:
    """The parameters that papermill has put into a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if "injected-parameters" in c["metadata"].get("tags", [])]
    lines = (n for c in code for n in ast.parse(c).body if isinstance(n, ast.Assign))
    return {n.targets[0].id: ast.literal_eval(n.value) for n in lines}


def command(path: Path) -> str:
    """The papermill line that makes this run of a notebook again, every parameter spelt out."""
    injected, found = injected_of(path), parameters_of(path)
    scale = injected.get("scale", next((q["default"] for q in found if q["name"] == "scale"), "quick"))
    given = {q["name"]: value_at(scale, injected.get(q["name"], q["default"]), q["range"]) for q in found}
    given["scale"] = scale
    line = [f"-p {name} {shlex.quote(str(v))}" for name, v in given.items() if name != "scale" or v != "quick"]
    return " \\\n  ".join([f"papermill notebooks/{path.name} out.ipynb", *line])


def cost_line(path: Path, root: Path) -> str:
    """What a notebook costs at each scale, as it was measured: processor time, and the most memory held."""
    costs = json.loads((root / "book" / "chapter_costs.json").read_text(encoding="utf-8")).get(path.stem, {})
    parts = []
    for scale in SCALES[:2]:
        if made := costs.get(scale):
            parts.append(f"{scale} {made['seconds']:,} s, {made['gib']:.1f} GiB")
    stored = [m for made, _, labels in experiments(root).values() if made.chapter == path.stem for m in labels]
    seconds = sum(m["seconds"] for m in stored)
    long = f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{seconds / 60:.0f} min"
    parts.append(f"paper {long} for {len(stored)} stored runs, memory not recorded" if stored else "paper as quick")
    where = kit("numbers").devices([*costs.values(), *stored])
    return f"Processor time and memory: {'; '.join(parts)}." + (f" Measured on {where}." if where else "")


def add_cost(app, doctree) -> None:
    """The cost line, at the end of a notebook's last section."""
    root, path = Path(app.srcdir), Path(app.srcdir) / f"{app.env.docname}.ipynb"
    sections = list(doctree.findall(nodes.section)) if path.exists() else []
    if sections:
        sections[-1] += nodes.paragraph("", cost_line(path, root), classes=["hesslib-cost"])


def join_punctuation(app, doctree) -> None:
    """Keep a formula on one line with the bracket before it and the punctuation after it."""
    for math in list(doctree.findall(nodes.math)):
        parent, at = math.parent, math.parent.index(math)
        sides = (parent[i] if 0 <= i < len(parent) else None for i in (at - 1, at + 1))
        before, after = (side if isinstance(side, nodes.Text) else "" for side in sides)
        opened, closed = re.search(r"[('‘“]?$", before)[0], re.match(r"[-.,;:!?)\]'’]*", after)[0]
        if not opened and not closed:
            continue
        joined = nodes.inline("", "", nodes.Text(opened), math.deepcopy(), nodes.Text(closed), classes=["joined"])
        if after:
            parent[at + 1] = nodes.Text(after[len(closed) :])
        if before:
            parent[at - 1] = nodes.Text(before[: len(before) - len(opened)])
        parent[at] = joined


def hold_together(app, doctree, docname) -> None:
    """Keep a number on one line with the sign and the number, or the per cent, that follow it."""
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, (nodes.literal, nodes.FixedTextElement, nodes.math, nodes.raw)):
            held = re.sub(r" (%|[±=] (?=[-\d]))", lambda m: "\u00a0" + m[1].replace(" ", "\u00a0"), text)
            if held != text:
                text.parent.replace(text, nodes.Text(held))


def mend_page(app, pagename, templatename, context, doctree) -> None:
    """What accessibility asks of docutils' HTML, and for who shares the page its title and first words."""
    paragraph = next(iter(doctree.findall(nodes.paragraph)), None) if doctree is not None else None
    if paragraph is not None:
        words = escape(shorten(paragraph.astext().replace("\\", ""), 160, placeholder=" ..."))
        title = escape(re.sub(r"<[^>]*>", "", context.get("title", "")))
        meta = f'<meta name="description" content="{words}">\n<meta property="og:description" content="{words}">\n'
        context["metatags"] = f'{context.get("metatags", "")}{meta}<meta property="og:title" content="{title}">\n'
    body = context.get("body", "")
    body = re.sub(r'<table class="[^"]*\btable\b[^"]*"', r'\g<0> tabindex="0"', body)
    context["body"] = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


class ParameterTables(SphinxDirective):
    """Every parameter of every notebook, and what a run costs."""

    def run(self) -> list[nodes.Node]:
        root, found = Path(self.env.srcdir), []
        for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            self.env.note_dependency(str(path))
            rows = [
                [
                    f"`{q['name']}`",
                    q["help"],
                    str(q["range"]).replace("e-", "e\u2011").replace(">=", "≥").replace("<=", "≤"),
                    "by scale" if q["range"].presets and not q["default"] else f"`{json.dumps(q['default'])}`",
                    *map(str, q["values"].values()),
                ]
                for q in parameters_of(path)
            ]
            head = ["name", "meaning", "valid", "default", *SCALES]
            title = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).split("\n")[0]
            section = nodes.section("", nodes.title("", title.removeprefix("# ")), ids=[f"parameters-{path.stem}"])
            name, cost = nodes.literal("", path.name), nodes.paragraph("", cost_line(path, root))
            section += [nodes.paragraph("", "", name), table(head, rows), cost]
            found.append(section)
        return found


class NotebookTable(SphinxDirective):
    """When, where and from what each notebook was executed."""

    def run(self) -> list[nodes.Node]:
        rows, versions = [], []
        for path in sorted((Path(self.env.srcdir) / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            self.env.note_dependency(str(path))
            made = json.loads(path.read_text(encoding="utf-8"))["metadata"]["hesslib"]
            versions.append(", ".join(f"{k} {v}" for k, v in made["versions"].items()))
            rows.append(
                [
                    path.stem,
                    made["date"].replace("-", "\u2011"),
                    f"{made['seconds']}\u00a0s",
                    short(made["device"]),
                    f"{made['source']} / {made['code']}",
                ]
            )
        head = ["notebook", "executed", "time", "device", "source / code"]
        if len(set(versions)) > 1:
            head, rows = [*head, "versions"], [[*row, line] for row, line in zip(rows, versions, strict=True)]
            return [table(head, rows)]
        return [nodes.paragraph("", f"All were executed with {versions[0]}."), table(head, rows)]


def short(device: str) -> str:
    """A processor's name without marks and threads: each run says these itself."""
    return re.sub(r"\(R\)| Processor|, \d+ threads?", "", device)


def count_states(labels: list[dict], closure: str, same: set[str]) -> str:
    """How many runs were made by the present code, by earlier code that was confirmed, or are stale."""
    stale = sum(label["closure"] not in same for label in labels)
    now = sum(label["closure"] == closure for label in labels)
    if labels and now == len(labels):
        return f"{now}"
    states = {"by this code": now, "confirmed": len(labels) - now - stale, "stale, not used": stale}
    return ", ".join(f"{count} {word}" for word, count in states.items() if count) or "not run"


class ResultsTable(SphinxDirective):
    """The stored results, one line for each experiment, and how many of its labels are true."""

    def run(self) -> list[nodes.Node]:
        root, rows = Path(self.env.srcdir), []
        for name, (made, closure, runs) in sorted(experiments(root).items()):
            self.env.note_dependency(str(root / "book" / "results" / f"{name}.jsonl"))
            state = count_states(runs, closure, kit("closure").same_numbers(name, closure))
            seconds = f"{sum(r['seconds'] for r in runs):,.0f}\u00a0s"
            dates = ", ".join(sorted({r["date"] for r in runs})).replace("-", "\u2011")
            where = f"{made.chapter}, {made.function}"
            machines = ", ".join(sorted({short(r["device"]) for r in runs}))
            commits = ", ".join(sorted({r["commit"][:7] for r in runs}))
            rows.append([name, where, state, seconds, dates, machines, commits])
        return [table(["experiment", "made by", "runs", "time", "date", "device", "commit"], rows)]


class ConfirmedTable(SphinxDirective):
    """Where the present code was compared with earlier code: the runs, and when and where they were compared."""

    def run(self) -> list[nodes.Node]:
        closure = kit("closure")
        self.env.note_dependency(str(closure.CONFIRMED))
        rows = []
        for line in reversed(closure.confirmations()):
            commits = [line[key][:7] for key in ("earlier_commit", "commit")]
            rows.append([line["name"], *commits, str(len(line["compared"])), line["date"], short(line["device"])])
        return [table(["experiment", "earlier commit", "commit", "runs compared", "date", "device"], rows)]


class BenchmarkTable(SphinxDirective):
    """The stored benchmark: for each task bars of the times, and a table in a fold."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "book" / "benchmark.json"
        self.env.note_dependency(str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
        versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        where = f"Measured {report['date']} on {report['device']}; {versions}; hesslib {report['code']}; "
        found = [nodes.paragraph("", where + f"median of {report['rounds']} rounds.")]
        for task, lines in report["tasks"].items():
            ours = lines[0]["seconds"]
            rows, drawn = [], []
            for line in lines:
                if "failed" in line:
                    rows.append([line["what"], "failed", "", "", line["failed"]])
                    drawn.append((line["what"], None, "failed"))
                    continue
                rows.append(contender_row(line, ours))
                what, seconds, ratio, _, error = rows[-1]
                accuracy = "" if line is lines[0] else f"; {ratio} times ours, error {error}"
                drawn.append((what, line["seconds"], seconds + accuracy))
            if task.startswith("dense, 100"):
                limit = report["limit"]["seconds"]
                rows.append([f"Limit: {report['limit']['what']}", f"{limit:.2f} s", f"{limit / ours:.1f}", "", ""])
                drawn.append((rows[-1][0], limit, rows[-1][1]))
            title = task[0].upper() + task[1:]
            numbers = table(["", "time", "ratio", "peak memory", "error"], rows)
            found += [nodes.rubric("", title), charts.bars(drawn), *charts.folded("Time, memory and error", numbers)]
        return found


class CompleteTable(SphinxDirective):
    """The measured complete spectra of G: a row for each network."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "book" / "complete_costs.json"
        self.env.note_dependency(str(path))
        head = ["eigenvalues of G", "images", "zeros", "wall clock", "processor", "highest memory", "worst certificate"]
        rows = []
        for name, one in sorted(json.loads(path.read_text(encoding="utf-8")).items()):
            worst = kit("numbers").written(max(one["certificates"].values()), ".0e", tex=False)
            times = [f"{one[k]:,.0f}\u00a0s" for k in ("seconds", "processor_seconds")]
            counts = [f"{one['M']:,}", f"{one['N']:,}", f"{one['M'] - one['nonzero']:,}"]
            name, date = {"alexnet": "AlexNet", "resnet18": "ResNet-18"}[name], one["date"].replace("-", "\u2011")
            where = f"{name}, {date}, {one['device']}, commit {one['commit']}"
            rows.append([where, *counts, *times, f"{one['peak_gib']:.1f}\u00a0GiB", worst])
        return [table(["", *head], rows)]


# What a sentence of the code begins with a capital has none of its own.
SMALL_NAMES = re.compile(r"^(Hesslib|Torch\.func|Torch\.autograd|Curvlinops|Hessian-eigenthings)\b")


def contender_row(line: dict, ours: float) -> list[str]:
    """A contender's row: what it does, its time, that in units of ours, its memory and its error."""
    scaled = f" (from {line['columns']} of {line['of']:,} columns)" if "columns" in line else ""
    scaled += f" (the first one: {line['first_seconds']:.1f} s)" if "first_seconds" in line else ""
    error = kit("numbers").written(line["error"], ".0e", tex=False) if line.get("error") else "exact"
    digits = ",.0f" if line["seconds"] > 100 else ".2f"
    seconds, peak = f"{line['seconds']:{digits}}\u00a0s", f"{line['peak_gib']:.1f}\u00a0GiB"
    what = SMALL_NAMES.sub(lambda name: name[0].lower(), line["what"])
    return [what + scaled, seconds, f"{line['seconds'] / ours:.1f}", peak, error]


def amount(value: float, unit: str, digits: int = 3) -> str:
    """A number with some digits and the right prefix of its unit; seconds above two minutes in larger units."""
    rounded = lambda v: f"{float(f'{v:.{digits}g}'):,g}"
    for size, name in ((86400 * 365, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if unit == "s" and value >= 2 * size:
            return f"{rounded(value / size)}\u00a0{name}"
    prefixes = {1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1: "", 1e-3: "m"}
    size = next((size for size in prefixes if value >= size), 1)
    return f"{rounded(value / size)}\u00a0{prefixes[size]}{unit}"


SMALL = 2**22  # bytes; a method that needs less mostly finds it in what the process holds already


KINDS = {"products": ("gradient", "product"), "the matrix, all eigenvalues": ("matrix", "all ")}
PART = "part of the spectrum"  # what all other methods are for


def along_size(method: dict, classes: int) -> list[dict]:
    """The measurements of a method that vary the number of parameters alone."""
    return [row for row in method["rows"] if (row["N"], row["C"]) == (method["N"], classes)]


def cost_lines(report: dict) -> nodes.raw:
    """Time against the number of parameters, a panel for each kind of method."""
    panels = {kind: {} for kind in (*KINDS, PART)}
    for name, method in report["methods"].items():
        kind = next((kind for kind, heads in KINDS.items() if name.startswith(heads)), PART)
        points = [(row["M"], row["seconds"]) for row in along_size(method, report["classes"])]
        panels[kind][f"{name}, N\u00a0=\u00a0{method['N']:,}"] = points
    alt = "Seconds against the number of parameters on logarithmic axes, a line for each method."
    return charts.lines({k: v for k, v in panels.items() if v}, "parameters M", "seconds", alt)


class CostTable(SphinxDirective):
    """The measured cost of each method as lines, and in folds as a table with the powers fitted to it."""

    def run(self) -> list[nodes.Node]:
        report = cost_report(self.env)
        power = lambda fit, name: "" if not fit or fit[name] is None else f"{fit[name]:.2f}".replace("-", "−")
        fits, measured, sizes = [], [], (1e3, 1e4, 1e5, 1e6)
        for name, method in report["methods"].items():
            for what, word in (("seconds", "time"), ("bytes", "memory")):
                fit = method["fit"][what]
                worst = f"{fit['worst_factor']:.1f}" if fit else "too few points"
                fits.append([name if word == "time" else "", word, *(power(fit, k) for k in "MNC"), worst])
            rows = along_size(method, report["classes"])
            line = [f"{name}, N = {method['N']:,}"]
            for size in sizes:
                near = [r for r in rows if abs(r["M"] / size - 1) < 0.3]
                used = [f"{amount(r['bytes'], 'B')}" for r in near[:1] if r["bytes"] >= SMALL]
                line.append(", ".join([*(amount(r["seconds"], "s") for r in near[:1]), *used]))
            measured.append(line)
        versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        where = (
            f"Measured {report['date']} on {kit('numbers').devices([report])}, "
            f"at a load of {report['load']:.1f} on {report['cores']} "
            f"cores (above one, other work ran beside it); {versions}; hesslib {report['code']}. C = "
            f"{report['classes']} where not varied. Fitted where the time is at least {1000 * report['floor']:.0f} ms. "
            f"Memory is shown from {SMALL / 2**20:.0f} MiB on."
        )
        return [
            cost_lines(report),
            *charts.folded("Time and memory", table(["", *(f"M = {size:,.0f}" for size in sizes)], measured)),
            *charts.folded("Fitted powers", table(["", "", "of M", "of N", "of C", "worst point"], fits)),
            nodes.paragraph("", where),
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
                ("memory of the ten largest, 120 vectors", lambda m: amount(m["basis_bytes"], "B")),
                ("memory of a density, 10 probes of 80 steps", lambda m: amount(m["density_bytes"], "B")),
                (
                    "multiply-adds of one product",
                    lambda m: kit("numbers").written(m["multiply_adds"], ".1e", tex=False),
                ),
                ("one product on one thread of this machine", lambda m: amount(m["seconds_here"], "s", 2)),
                ("one product on a device", lambda m: amount(m["multiply_adds"] / 3e12, "s", 2)),
                ("one product on 64 devices", lambda m: amount(m["multiply_adds"] / 3e12 / 64, "s", 2)),
                (
                    "that density, 800 products, on 64 devices",
                    lambda m: amount(800 * m["multiply_adds"] / 3e12 / 64, "s", 2),
                ),
                ("traffic of each device for one product", lambda m: amount(m["traffic_bytes"], "B")),
            )
        ]
        return [nodes.paragraph("", said), table(["", *(m["model"] for m in models)], rows)]


def cost_report(env) -> dict:
    """The stored measurements of cost."""
    path = Path(env.srcdir) / "book" / "method_costs.json"
    env.note_dependency(str(path))
    return json.loads(path.read_text(encoding="utf-8"))


def setup(app):
    app.connect("builder-inited", copy_mathjax)
    app.connect("doctree-read", add_cost)
    app.connect("doctree-read", join_punctuation)
    app.connect("doctree-resolved", hold_together)
    app.connect("html-page-context", mend_page)
    app.add_directive("parameter-tables", ParameterTables)
    app.add_directive("notebook-table", NotebookTable)
    app.add_directive("results-table", ResultsTable)
    app.add_directive("confirmed-table", ConfirmedTable)
    app.add_css_file("charts.css")
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("complete-table", CompleteTable)
    app.add_directive("cost-table", CostTable)
    app.add_directive("cost-predictions", CostPredictions)
    return {"parallel_read_safe": True, "version": "1"}
