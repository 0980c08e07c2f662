"""The library stands on five packages; what else the book needs is the extra ``[book]``."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

from hesslib.book.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [r for name in ("html", "book") for r in PROJECT["optional-dependencies"][name]]
plain = lambda requirement: re.split(r"[\[<>=~!]", requirement)[0].lower().replace("_", "-")
MODULES = sorted(
    module
    for module, found in packages_distributions().items()
    if {plain(name) for name in found} & set(map(plain, EXTRAS)) and module.split(".")[0] != "hesslib"
)


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_library_needs_five_packages():
    assert sorted(map(plain, PROJECT["dependencies"])) == ["numpy", "psutil", "scipy", "torch", "tqdm"]


def test_curvature_and_theory_import_nothing_of_the_book():
    assert {"matplotlib", "sklearn", "joblib", "yaml", "papermill"} <= set(MODULES)
    code = f"""
import importlib, pkgutil, sys
import hesslib, hesslib.curvature, hesslib.theory
for package in (hesslib.curvature, hesslib.theory):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(*[name for name in {MODULES} if name in sys.modules])
"""
    done = python(code)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr


def test_every_command_without_the_book_says_what_to_install():
    commands = [["run"], ["sweep", "01", "-g", "seed=0:2"], ["claims"], ["audit"], ["renew"], ["labels"], ["pack"]]
    done = python(f"""
import sys
sys.modules.update(dict.fromkeys({MODULES}))
from hesslib.cli import main
print(*[main(command) for command in {commands}])
""")
    assert done.stdout.split() == ["2"] * len(commands), done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands)
    for (command, *_), line in zip(commands, lines, strict=True):
        assert re.fullmatch(rf"hesslib: {command} needs \w+: pip install 'hesslib\[book\]'", line)
