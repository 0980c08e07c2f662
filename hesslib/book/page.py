"""From an executed notebook, of papermill or Jupyter, to one HTML file in the book's style that needs nothing else."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import nbformat

from .._files import StorageError, replacing
from .parameters import ParameterError
from .paths import ROOT
from .payload import put_back, read

PAGE = """<!DOCTYPE html>
<html lang="en" data-content_root="">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{description}">
<title>{title}</title>
{styles}
<style>
body {{ display: block; }}
.bd-article-container {{ max-width: 60rem; margin: 0 auto; padding: 1rem; }}
.headerlink {{ display: none; }}
</style>
<script>
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
</script>
{scripts}
</head>
<body><main class="bd-article-container">{article}</main></body>
</html>
"""


def chapter_of(node: nbformat.NotebookNode, path: Path) -> str:
    """The chapter whose run a notebook is, found by its text; without one the file's own name."""
    heading = next((c.source.splitlines()[0] for c in node.cells if c.cell_type == "markdown" and c.source), "")
    for source in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")):
        if heading.startswith("# ") and f"\n# {heading}\n" in source.read_text(encoding="utf-8"):
            return source.stem
    return path.stem


def build(notebook: Path, node: nbformat.NotebookNode, folder: Path) -> Path:
    """Build the book's page of one notebook in a folder that has of the book what a page needs; returns its path."""
    name = chapter_of(node, notebook)
    for part in ("_config.yml", "hesslib"):
        (folder / part).symlink_to(ROOT / part)
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("results", "*.png"))
    (folder / "book" / "results").symlink_to(ROOT / "book" / "results")
    (folder / "notebooks").mkdir()
    for source in (ROOT / "notebooks").glob("*.py"):
        (folder / "notebooks" / source.name).symlink_to(source)
    nbformat.write(node, folder / "notebooks" / f"{name}.ipynb")
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: notebooks/{name}\n")
    program = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run([program, "build", folder, "--quiet"], capture_output=True, text=True)
    page = folder / "_build" / "html" / "notebooks" / f"{name}.html"
    if done.returncode or not page.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["jupyter-book has made no page"]
        raise StorageError(f"{notebook}: {lines[-1]}")
    return page


def local(page: Path, address: str) -> Path | None:
    """The file beside a page that an address leads to, if it is one."""
    file = (page.parent / unquote(re.split(r"[?#]", address)[0])).resolve()
    return file if not re.match(r"[a-z]+:|#|//", address) and file.is_file() else None


def data_address(file: Path, kind: str) -> str:
    """A file as an address that carries it."""
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def pack(page: Path, title: str) -> str:
    """One page of the book with all it needs inside; links to other pages become words."""
    text = page.read_text(encoding="utf-8")
    article = re.search(r"<article.*?</article>", text, re.S)[0]

    def style(match: re.Match) -> str:
        file = local(page, match[1])
        wanted = file is not None and "fontawesome" not in file.as_posix() and "vendor" not in file.parts
        rules = re.sub(r"@font-face\s*{.*?}|@import[^;]*;", "", file.read_text(encoding="utf-8")) if wanted else ""
        return f"<style>{rules}</style>" if rules else ""

    def link(match: re.Match) -> str:
        file = local(page, html.unescape(match[1]))
        if file is not None and file.suffix == ".csv":
            return (
                match[0]
                .replace(match[1], data_address(file, "text/csv"))
                .replace(" download", f' download="{file.name}"')
            )
        return match[0] if re.match(r"#|https?:|data:", match[1]) else match[2]

    styles = [style(m) for m in re.finditer(r'<link [^>]*?href="([^"]+\.css[^"]*)"[^>]*>', text)]
    settings = re.findall(r"<script>window\.MathJax = .*?</script>", text)
    mathjax = (page.parents[1] / "_static" / "vendor" / "tex-svg.js").read_text(encoding="utf-8")
    article = re.sub(r'<a\b[^>]*?href="([^"]*)"[^>]*>(.*?)</a>', link, article, flags=re.S)
    image = lambda m: (
        m[0] if local(page, m[1]) is None else m[0].replace(m[1], data_address(local(page, m[1]), "image/png"))
    )
    article = re.sub(r'<img [^>]*?src="([^"]+)"[^>]*>', image, article)
    return PAGE.format(
        title=html.escape(title),
        description=html.escape(f"{title}: a run of a chapter with its own parameters"),
        styles="\n".join(filter(None, dict.fromkeys(styles))),
        scripts="\n".join([*settings, f"<script>{mathjax}</script>"]),
        article=article,
    )


def write_page(notebook: Path, output: Path | None = None) -> Path:
    """Write an executed notebook as one self-contained HTML file, by default beside it; returns the file's path.

    Raises:
        ParameterError: the notebook cannot be read, has not been executed, or lacks its figures.
        StorageError: the page could not be built or written.
    """
    try:
        node = nbformat.read(notebook, as_version=4)
        figures = read(notebook, json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    except (OSError, ValueError) as error:
        raise ParameterError(f"{notebook}: {error}") from error
    code = [c for c in node.cells if c.cell_type == "code"]
    if not any(c.outputs for c in code):
        raise ParameterError(f"{notebook} has not been executed: papermill {notebook} out.ipynb")
    for cell in code:  # bars and messages of the run are not part of a page
        cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    put_back(node.cells, figures)
    output = output or notebook.with_suffix(".html")
    title = next((c.source.splitlines()[0][2:] for c in node.cells if c.source.startswith("# ")), notebook.stem)
    with tempfile.TemporaryDirectory(prefix="hesslib-page-") as folder:
        text = pack(build(notebook, node, Path(folder)), title)
    with replacing(output, "w") as file:
        file.write(text)
    return output
