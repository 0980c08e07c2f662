"""The code that a result depends on, as one hash.

The closure of a function is the function and every function, class and constant of ours that it reaches, through the
names it uses and the imports that bind them. It is found in the text of the modules, without running them, so the
closure of another commit can be computed too. Docstrings, comments and annotations are left out, and so are the names
of modules: rewriting the prose or moving a function to another file does not change it, and a changed number does.
Other packages count by the name under which they are imported; their versions stand in a label of their own.

The ground floor (bars, files, checks of arguments) and the kit of the book (storing, drawing) compute no number and are
left out. So are the modules of checks with the bare calls of their functions: a check may stop a run, but a run that
ends has the numbers it would have had without. This module imports nothing of ours, so that the build of the pages can
load it without torch.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import linecache
import re
import subprocess
import symtable
import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONFIRMED = ROOT / "book" / "confirmed.jsonl"  # written by `confirm`
CHECKS = ("hesslib._checks", "hesslib.curvature.validation")
LEFT_OUT = (*CHECKS, "hesslib._files", "hesslib._progress", "hesslib.book")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class ClosureError(ValueError):
    """The closure of a function cannot be found; the message says why."""


class _Bare(ast.NodeTransformer):
    """A syntax tree without docstrings, annotations and bare calls of the checks with the given names."""

    def __init__(self, checks: set[str]) -> None:
        self.checks = checks

    def counts(self, node: ast.stmt) -> bool:
        """Whether a statement is more than a text or a check."""
        value = getattr(node, "value", None) if isinstance(node, ast.Expr) else node
        is_check = isinstance(value, ast.Call) and getattr(value.func, "id", "") in self.checks
        return not is_check and not isinstance(getattr(value, "value", None), str)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Drop the statements that do not count, and keep a body from becoming empty."""
        super().generic_visit(node)
        for part in ("body", "orelse", "finalbody"):
            if isinstance(body := getattr(node, part, None), list):
                kept = [n for n in body if self.counts(n)]
                setattr(node, part, kept or [ast.Pass()] * (part == "body"))
        for name in ("returns", "annotation"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None) if isinstance(node, ast.AnnAssign) else None)
        return node


def _dump(node: object) -> str:
    """A tree as text that does not depend on the version of Python: fields without a value are left out."""
    if isinstance(node, list):
        return "[" + ",".join(map(_dump, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    skipped = ("ctx", "kind", "type_comment", "type_params")
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in skipped and value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"


def _digest(texts: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:16]


def bound(node: ast.stmt) -> set[str]:
    """Names that a statement at the top of a module binds."""
    if isinstance(node, FUNCTIONS | ast.ClassDef):
        return {node.name}
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            found |= {(a.asname or a.name).split(".")[0] for a in inner.names}
        elif isinstance(inner, FUNCTIONS | ast.ClassDef):
            found.add(inner.name)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
    return found


def used(node: ast.stmt) -> set[tuple[str, ...]]:
    """Names of the module that a bare statement uses, each with the attributes asked of it: ``("np", "sqrt")``."""

    def names(table: symtable.SymbolTable) -> set[str]:
        top = table.get_type() == "module"
        here = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (s.is_global() or top)}
        return here.union(*map(names, table.get_children()))

    everywhere = names(symtable.symtable(ast.unparse(node), "statement", "exec"))
    found, inside = set(), set()
    for inner in ast.walk(node):
        chain, root = [], inner
        while isinstance(root, ast.Attribute):
            chain, root = [root.attr, *chain], root.value
        if chain and isinstance(root, ast.Name) and id(inner) not in inside:
            found.add((root.id, *chain))
            while isinstance(inner, ast.Attribute):
                inner = inner.value
                inside.add(id(inner))
        elif isinstance(inner, ast.Name) and id(inner) not in inside:
            found.add((inner.id,))
    return {chain for chain in found if chain[0] in everywhere}


class Module(NamedTuple):
    """A module's bare statements, and for each name the numbers of those that bind it."""

    name: str
    package: str
    statements: list[ast.stmt]
    binders: dict[str, list[int]]


@cache  # parsing is most of the work, and many trees hold the same text
def _parse(text: str) -> tuple[list[ast.stmt], dict[str, list[int]]]:
    """Statements and binders of a module's text."""
    tree, binders = ast.parse(text), {}
    ours = [n for n in tree.body if isinstance(n, ast.ImportFrom) and (n.level or str(n.module).startswith("hesslib"))]
    homes = {name.rpartition(".")[2] for name in CHECKS}
    checks = {a.asname or a.name for n in ours if str(n.module).rpartition(".")[2] in homes for a in n.names}
    statements = _Bare(checks).visit(tree).body
    for i, statement in enumerate(statements):
        for one in bound(statement):
            binders.setdefault(one, []).append(i)
    return statements, binders


@cache
def _facts(statement: ast.stmt) -> tuple[str, set[tuple[str, ...]], set[str], list[ast.Import | ast.ImportFrom]]:
    """A statement's dump, the names it uses, the functions it calls by name, and the imports within it."""
    inner = list(ast.walk(statement))
    calls = {getattr(n.func, "id", "") for n in inner if isinstance(n, ast.Call)}
    return _dump(statement), used(statement), calls, [n for n in inner if isinstance(n, ast.Import | ast.ImportFrom)]


class Code:
    """A tree of modules as text.

    Args:
        read: gives the text of a file by its path from the root, None if there is none.
        chapters: names of the notebooks' sources, without the ending.
        also: texts of modules that are not files, by name, as of the cells executed in Jupyter.
    """

    def __init__(
        self, read: Callable[[str], str | None], chapters: list[str], also: dict[str, str] | None = None
    ) -> None:
        self.read, self.chapters, self.also = read, chapters, also or {}
        self.modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """A module of ours by name; None if it is not one."""
        if name not in self.modules:
            path, package, text = name.replace(".", "/"), name.rpartition(".")[0], self.also.get(name)
            if text is None and name.split(".")[0] in ("hesslib", "notebooks", "tests"):
                text = self.read(f"{path}.py")
                if text is None and (text := self.read(f"{path}/__init__.py")) is not None:
                    package = name
            self.modules[name] = None if text is None else Module(name, package, *_parse(text))
        return self.modules[name]

    def closure(self, module: str, name: str) -> str:
        """Hash of the closure of a function.

        Args:
            module: name of the module that holds it; a chapter's is ``notebooks.NN_topic``.
            name: of the function.

        Raises:
            ClosureError: it is not there, or depends on the parameters of a chapter.
        """
        found = self.module(module)
        if found is None or name not in found.binders:
            raise ClosureError(f"{module}: there is no function {name}")
        return _digest(self.reached(module, (name,)))

    def module_closure(self, module: str) -> str:
        """Hash of everything that a chapter or module does, its own statements included."""
        return _digest(self.reached(module, ()))

    def reached(self, module: str, chain: tuple[str, ...]) -> set[str]:
        """Dumps of all statements that a name of a module reaches; of the whole module without a name."""
        texts: set[str] = set()
        seen: set[tuple[str, int]] = set()
        wanted, asked = [(module, chain)], {(module, chain)}
        whole = not chain
        while wanted:
            for text, following in self._step(*wanted.pop(), seen, whole):
                texts.add(text)
                new = set(following) - asked
                asked |= new
                wanted += new
        return texts - {""}

    def _step(
        self, module: str, chain: tuple[str, ...], seen: set, whole: bool
    ) -> Iterator[tuple[str, list[tuple[str, tuple[str, ...]]]]]:
        """The statements that bind the first name of the chain: each one's dump, and what it asks for in turn."""
        if module.startswith(LEFT_OUT):
            return
        found = self.module(module)
        if found is None:
            yield f"package {module}", []
            return
        numbers = found.binders.get(chain[0], []) if chain else range(len(found.statements))
        if chain and not numbers and self.module(f"{module}.{chain[0]}"):
            yield "", [(f"{module}.{chain[0]}", chain[1:])]
        for i in numbers:
            statement = found.statements[i]
            if isinstance(statement, ast.Import | ast.ImportFrom):
                if chain:
                    yield from self._imported(found, statement, chain)
            elif (module, i) not in seen:
                seen.add((module, i))
                text, names, calls, imports = _facts(statement)
                if not whole and calls & {"resolve", "globals"}:
                    raise ClosureError(
                        f"{module}: {chain[0]} depends on the chapter's parameters; give them as arguments"
                    )
                yield text, [(module, one) for one in names]
                for inner in imports:  # within functions
                    for alias in inner.names:
                        name = (alias.asname or alias.name).split(".")[0]
                        yield from self._imported(found, inner, (name,))

    def _imported(self, module: Module, node: ast.Import | ast.ImportFrom, chain: tuple[str, ...]):
        """Where an import leads to."""
        for alias in node.names:
            if (alias.asname or alias.name.split(".")[0]) != chain[0]:
                continue
            if isinstance(node, ast.Import):
                target = alias.name if alias.asname else alias.name.split(".")[0]
            else:
                package = module.package.split(".")
                base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
                source = ".".join(filter(None, [base, node.module]))
                within = self.module(source)
                if within and (alias.name in within.binders or not self.module(f"{source}.{alias.name}")):
                    yield "", [(source, (alias.name, *chain[1:]))]
                    continue
                target = f"{source}.{alias.name}"
            if self.module(target):
                yield "", [(target, chain[1:])]
            elif not target.startswith(LEFT_OUT):
                yield f"{chain[0]} = {target}", []


def tree(root: Path = ROOT, also: dict[str, str] | None = None) -> Code:
    """The files as they lie in a folder."""

    def read(path: str) -> str | None:
        file = root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return Code(read, sorted(p.stem for p in (root / "notebooks").glob("[0-9][0-9]_*.py")), also)


def git(*words: str) -> str | None:
    """What git prints about this project; None if it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


@cache
def tree_at(commit: str) -> Code | None:
    """The files of a commit; None if git does not know it."""
    listing = git("ls-tree", "-r", "--name-only", commit, "hesslib", "notebooks", "tests")
    if listing is None:
        return None
    listed = listing.splitlines()
    chapters = [m[1] for path in listed if (m := re.fullmatch(r"notebooks/(\d\d_\w+)\.py", path))]
    return Code(lambda path: git("show", f"{commit}:{path}") if path in listed else None, chapters)


def _cells(function: Callable) -> str | None:
    """The cells executed so far in the kernel that defined a function, from where tracebacks take them; else None.

    The kernel's history will not do: some front ends execute without it.
    """
    if "IPython" not in sys.modules:
        return None
    folder = Path(inspect.unwrap(function).__code__.co_filename).parent
    entries = [entry for name, entry in linecache.cache.items() if Path(name).parent == folder and len(entry) > 2]
    return "\n".join("".join(entry[2]) for entry in entries) or None


def of(function: Callable) -> str:
    """The closure of a function as it stands in its module, or in the cells executed in this kernel.

    Raises:
        ClosureError: it is a lambda or defined within another function, or its text is not to be had.
    """
    module, name = function.__module__, function.__qualname__
    if "<" in name:
        raise ClosureError(f"{name}: a stored function must have a name at the top of its module or notebook")
    text = _cells(function) if module == "__main__" else None
    code = tree()
    if text is None and code.module(module) is None:
        file = getattr(sys.modules.get(module), "__file__", None)
        text = Path(file).read_text(encoding="utf-8") if file else None
    return (code if text is None else tree(also={module: text})).closure(module, name)


class Experiment(NamedTuple):
    """Where a stored experiment is made: chapter, function, and the heading above the call."""

    chapter: str
    function: str
    heading: str


def experiments(code: Code) -> dict[str, Experiment]:
    """The stored experiments by name, from the calls ``store.run(name, function, ...)`` of the chapters."""
    found = {}
    for chapter in code.chapters:
        text = code.read(f"notebooks/{chapter}.py")
        headings = [(i, m[1]) for i, line in enumerate(text.splitlines(), 1) if (m := re.match(r"# #+ (.+)", line))]
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        for node in sorted(calls, key=lambda node: node.lineno):
            if (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in ("sweep", "run")
                and len(node.args) >= 2
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[1], ast.Name)
            ):
                heading = [h for line, h in headings if line < node.lineno][-1]
                found[node.args[0].value] = Experiment(chapter, node.args[1].id, heading)
    return found


@lru_cache(maxsize=2)
def _confirmations(path: Path, stamp: int) -> list[dict]:
    """Lines of the file of confirmations as it is since a time, the last first."""
    return [json.loads(line) for line in reversed(path.read_text(encoding="utf-8").splitlines())]


def confirmations() -> list[dict]:
    """Which earlier code the present code was seen to agree with bit for bit, on which runs; the last first."""
    return _confirmations(CONFIRMED, CONFIRMED.stat().st_mtime_ns) if CONFIRMED.exists() else []


def same_numbers(name: str, closure: str | None) -> set[str | None]:
    """The closures of an experiment whose results count as those of a closure: its own, and what was confirmed."""
    found = {closure}
    for line in confirmations():
        if line["name"] == name and line["closure"] in found:
            found.add(line["earlier"])
    return found


def present(code: Code) -> dict[str, str]:
    """The closure of every stored experiment in a tree."""
    return {name: code.closure(f"notebooks.{e.chapter}", e.function) for name, e in experiments(code).items()}
