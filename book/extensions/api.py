"""The reference of the package, from the text of its modules: the HTML is built without torch, so nothing is imported.

``{api} MODULE NAME`` in a page becomes the signature, the docstring (Google style) and the source of a function or a
class and its public methods, as entries of Sphinx's Python domain, to which other pages can refer.
"""

import ast
import re
from functools import cache
from pathlib import Path

from sphinx.ext.napoleon import Config, GoogleDocstring

STYLE = Config(napoleon_use_ivar=True, napoleon_use_rtype=False, napoleon_google_docstring=True)
ENTRY = re.compile(r"^```\{api\} (\S+) (\w+)\n```$", re.M)
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def find(body: list, name: str):
    """A function or class by its name."""
    return next(n for n in body if isinstance(n, FUNCTIONS | ast.ClassDef) and n.name == name)


def decorators(node) -> set[str]:
    return {ast.unparse(d).partition("(")[0] for d in node.decorator_list}


def signature(node) -> str:
    """The arguments of a function, without self."""
    arguments = node.args
    if arguments.args and arguments.args[0].arg == "self":
        arguments = ast.parse(f"def f({ast.unparse(arguments)}): pass").body[0].args
        arguments.args.pop(0)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and ast.unparse(node.returns) != "None" else ""
    return f"({ast.unparse(arguments)}){returns}"


def constructor(node) -> str:
    """How an object of a class is made; of a dataclass, from its fields."""
    inits = [n for n in node.body if isinstance(n, FUNCTIONS) and n.name == "__init__"]
    if inits:
        return signature(inits[0])
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)] if "dataclass" in decorators(node) else []
    shown = [f"{n.target.id}: {ast.unparse(n.annotation)}" + ("=..." if n.value else "") for n in fields]
    return f"({', '.join(shown)})" if fields else ""


def described(node) -> list[str]:
    """A docstring as reStructuredText."""
    return str(GoogleDocstring(ast.get_docstring(node) or "", STYLE)).splitlines()


def indent(lines: list[str]) -> list[str]:
    return [f"   {line}" if line else "" for line in lines]


def member(owner: str, node) -> list[str]:
    """A public method, or a property."""
    if decorators(node) & {"property", "cached_property"}:
        kind, head = "py:property", node.name
        options = [f":type: {ast.unparse(node.returns)}"] if node.returns else []
    else:
        kind, head, options = "py:method", f"{node.name}{signature(node)}", []
    return [f".. {kind}:: {owner}.{head}", *indent([*options, "", *described(node), ""])]


def entry(root: Path, where: str, name: str) -> str:
    """A function or a class of a module, as reStructuredText; names exported by hesslib go by their short name."""
    path = root / f"{where.replace('.', '/')}.py"
    node, package = find(module(path).body, name), where.rpartition(".")[0]
    exported = ast.unparse(module(root / "hesslib" / "__init__.py"))
    short = "hesslib" if f"'{name}'" in exported else package if package == "hesslib.theory" else where
    public = [n for n in getattr(node, "body", []) if isinstance(n, FUNCTIONS) and n.name[0] != "_"]
    public = [n for n in public if f"{n.name}.setter" not in decorators(n)]
    if isinstance(node, ast.ClassDef):
        error = any(ast.unparse(base).endswith("Error") for base in node.bases)
        kind, head = "py:exception" if error else "py:class", constructor(node)
        members = [line for n in public for line in member(f"{short}.{name}", n)]
    else:
        kind, head, members = "py:function", signature(node), []
    steps = "../" if (root / "book").exists() else ""
    source = [
        f".. dropdown:: Source: ``{path.relative_to(root)}``", "",
        f"   .. literalinclude:: {steps}{path.relative_to(root)}", f"      :pyobject: {name}", "",
    ]  # fmt: skip
    body = indent([*described(node), "", *source, *members])
    return "\n".join(["````{eval-rst}", f".. {kind}:: {short}.{name}{head}", "", *body, "````"])


def write_entries(app, docname, source) -> None:
    """Replace the entries of a page."""
    root = Path(app.srcdir)
    if not ENTRY.search(source[0]):
        return
    module.cache_clear()
    for where, _ in ENTRY.findall(source[0]):
        app.env.note_dependency(f"{where.replace('.', '/')}.py")
    source[0] = ENTRY.sub(lambda match: entry(root, match[1], match[2]), source[0])


def setup(app):
    app.connect("source-read", write_entries)
    return {"parallel_read_safe": True, "version": "1"}
