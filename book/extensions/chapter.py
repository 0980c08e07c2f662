"""From an executed notebook to a chapter's page.

What its cells show as Markdown becomes text of the page, and its figures get their HTML, a number and a caption. Folded
code stands below what it made, under a name.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from hessbook import command, kit
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)


def figures_of(path: Path) -> dict[str, tuple[int, tuple[str, str]]]:
    """The figures of a notebook: name to index of the cell that made it, and its HTML and numbers; none if damaged."""
    try:
        return kit("payload").read(path, json.loads(path.read_text(encoding="utf-8"))["cells"])
    except kit("payload").PackError:
        return {}


def text_of(part) -> str:
    """A notebook's text, which its file may hold in lines."""
    return "".join(part)


def shown_text(cell) -> tuple[list[str], list[str]]:
    """Take Markdown and captioned figures out of a cell's outputs: text for the page, and the figures' names."""
    kept, texts, names = [], [], []
    for output in cell.get("outputs", []):
        data, mark = output.get("data", {}), output.get("metadata", {}).get("hesslib", {})
        if "figure" in mark:
            continue
        if "caption" in mark:
            name, caption = mark["caption"], text_of(data["text/markdown"]).removeprefix("**Figure.** ")
            texts.append(f"```{{hesslib-figure}} {name}\n:name: {name.replace('_', '-')}\n{caption}\n```")
            names.append(name)
        elif "text/markdown" in data:
            texts.append(text_of(data["text/markdown"]))
        else:
            kept.append(output)
    if "outputs" in cell:
        cell["outputs"] = kept
    return texts, names


def fold_name(source: str, tags: list[str], names: list[str]) -> str:
    """What the line says that unfolds a cell."""
    source = re.sub(r"^(# (fmt|isort|ruff): .*\n)+", "", source)
    if (first := re.match(r"# (?!%%)(.{3,60})\n", source)) and "injected-parameters" not in tags:
        return f"Code: {first[1].rstrip('.')}"
    kinds = {
        "verdicts, versions and machine": "verdicts(" in source and "foot(" in source,
        "parameters of this run": "injected-parameters" in tags,
        "parameters": "parameters" in tags,
        "what the parameters may be": "resolve(" in source,
        "the figure above": len(names) == 1,
        "the figures above": len(names) > 1,
        "checks": re.search(r"^\s*check\(", source, re.M),
        "the table above": re.search(r"^\s*figures\.table\(", source, re.M)
        and not re.search(r"^\s*say\(", source, re.M),
        "the text above": re.search(r"^\s*(say|this_run|verdicts|figures\.table)\(", source, re.M),
        "imports": re.match(r"(import|from) ", source),
        "versions and machine": "foot(" in source,
    }
    return "Code: " + next((name for name, found in kinds.items() if found), "details")


def markdown(text: str, name: str) -> dict:
    """A text cell."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def rebuild(cells: list[dict], label: str) -> list[dict]:
    """The cells of a page: text that code shows as text cells of its own, before the cell if that is folded.

    Cells tagged ``end`` stand in a section of their own at the page's end.
    """
    built, late = [], []
    for cell in cells:
        if cell["cell_type"] != "code":
            built.append(cell)
            continue
        tags, source = cell["metadata"].get("tags", []), text_of(cell["source"])
        marks = r"^# (fmt|isort): .*\n|  # fmt: skip$"  # said to the formatter, not to a reader
        cell["source"] = re.sub(marks, "", source, flags=re.M)
        text_first = "text/markdown" in next(iter(cell.get("outputs", [])), {}).get("data", {})
        texts, names = shown_text(cell)
        cell["metadata"]["figures"] = names
        if "injected-parameters" in tags:
            tags = cell["metadata"]["tags"] = [*tags, "hide-input"]
        folded = "hide-input" in tags
        if folded:
            prompt = fold_name(source, tags, names)
            cell["metadata"]["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": prompt}
        shown = [markdown(text, f"{cell.get('id', 'cell')}-{i}") for i, text in enumerate(texts)]
        if "end" in tags:
            built += shown
            late.append(cell)
        else:
            built += [*shown, cell] if folded and (text_first or not cell["outputs"]) else [cell, *shown]
    if late:
        foot = len(built) - ("foot(" in text_of(built[-1]["source"]))
        built[foot:foot] = [markdown("## The code of this page", "code"), *late]
    first = next((c for c in built if c["cell_type"] == "markdown"), None)
    if first is not None and text_of(first["source"]).startswith("# "):
        first["source"] = f"({label})=\n" + text_of(first["source"])
    return built


def restore_pages(app, docname, source) -> None:
    """Give the figures of a stored notebook their HTML back; their numbers go beside the page, not on it."""
    path, payload = Path(app.srcdir) / f"{docname}.ipynb", kit("payload")
    if not path.exists():
        return
    app.env.note_dependency(str(payload.pack_path(path)))
    notebook = json.loads(source[0])
    try:
        figures = payload.read(path, notebook["cells"])
    except payload.PackError as error:
        again = f"python -m hesslib run {path.stem[:2]}"
        logger.warning(f"{error}; figures stand still and have no numbers until: {again}", location=docname)
        figures = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data, name = output.get("data", {}), payload.name_of(output)
            data.pop(payload.PAGE, None)
            data.pop(payload.NUMBERS, None)
            if name in figures:
                data["text/html"] = figures[name][1].html
    notebook["cells"] = rebuild(notebook["cells"], re.sub(r"^\d+_", "", path.stem).replace("_", "-"))
    source[0] = json.dumps(notebook)


class Figure(SphinxDirective):
    """A figure of the notebook with its caption; where its HTML is lost, its picture."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        name, path = self.arguments[0], Path(self.env.srcdir) / f"{self.env.docname}.ipynb"
        found = figures_of(path)
        figure = nodes.figure(
            "", nodes.raw("", found[name][1].html if name in found else picture(path, name), format="html")
        )
        holder = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, holder)
        first, *rest = holder.children
        figure += nodes.caption("", "", *first.children)
        figure += [nodes.legend("", *rest)] if rest else []
        self.add_name(figure)
        return [figure]


def picture(path: Path, name: str) -> str:
    """The stored picture of a figure as HTML."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if kit("payload").name_of(output) == name and "image/png" in output["data"]:
                alt = html.escape(text_of(output["data"]["text/plain"]))
                data = re.sub(r"\s", "", text_of(output["data"]["image/png"]))
                return f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return ""


def complete_figures(app, doctree) -> None:
    """Below each figure of a notebook: its numbers, the cell that made it, and the command that makes it again."""
    path = Path(app.srcdir) / f"{app.env.docname}.ipynb"
    if not path.exists():
        return
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found, stored = figures_of(path), ""
    if any("Store()" in text_of(c["source"]) for c in cells):
        stored = "<p>What this page reads from stored runs is read again. Those that are missing are computed by "
        stored += f"<code>python -m hesslib run {path.stem[:2]} --scale paper</code>.</p>"
    made = [n for n in doctree.findall(nodes.container) if n.get("nb_element") == "cell_code"]
    sources = {name: n for n in made for name in n["cell_metadata"].get("figures", [])}
    up = "../" * app.env.docname.count("/")
    for figure in doctree.findall(nodes.figure):
        name = re.search(r'data-name="(\w+)"', figure.astext())
        if name is None or name[1] not in found:
            continue
        name = name[1]
        cell = sources.get(name)
        links = [f'<a href="{up}numbers/{path.stem}-{name}.csv" download>numbers (CSV)</a>']
        if cell is not None:
            inputs = [n for n in cell.findall(nodes.container) if n.get("nb_element") == "cell_code_source"]
            inputs[0]["ids"].append(f"cell-{name}")
            links.append(f'<a href="#cell-{name}">the cell that made it</a>')
        line = command(path)
        figure += nodes.legend(
            "",
            nodes.raw("", f"<p>{' · '.join(links)}</p><details><summary>make it again</summary>", format="html"),
            nodes.literal_block(line, line, language="bash"),
            nodes.raw("", f"{stored}</details>", format="html"),
        )


def write_numbers(app, error) -> None:
    """Put the numbers of every figure beside the pages."""
    documents = (Path(app.srcdir) / f"{name}.ipynb" for name in sorted(app.env.found_docs))
    for path in (p for p in documents if p.exists() and error is None):
        for name, (_, figure) in figures_of(path).items():
            target = Path(app.outdir) / "numbers" / f"{path.stem}-{name}.csv"
            target.parent.mkdir(exist_ok=True)
            target.write_text(figure.csv, encoding="utf-8")


def setup(app):
    app.connect("source-read", restore_pages)
    app.connect("doctree-read", complete_figures, priority=400)
    app.connect("build-finished", write_numbers)
    app.add_directive("hesslib-figure", Figure)
    return {"parallel_read_safe": True, "version": "1"}
