"""The library stands on five packages; what else the book needs is the extra ``[book]``."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hesslib.book.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [r for name in ("html", "book") for r in PROJECT["optional-dependencies"][name]]
plain = lambda requirement: canonicalize_name(Requirement(requirement).name)
MODULES = sorted(
    module
    for module, found in packages_distributions().items()
    if set(map(canonicalize_name, found)) & (set(map(plain, EXTRAS)) - {"hesslib"})
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
        assert re.fullmatch(rf"hesslib: {command} needs \w+: pip install -e '\.\[book\]' in its folder", line)


def closed(names):
    """Installed distributions and all that they need in turn."""
    found, wanted = {}, list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # asked for by another platform or build
            continue
        needed = map(Requirement, found[name].requires or [])
        wanted += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package_and_work_in_an_empty_environment(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source, place = tmp_path / "source", tmp_path / "empty"
    shutil.copytree(ROOT / "hesslib", source / "hesslib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "notebooks", "book"):
        shutil.copytree(ROOT / "tests" / "theory", source / name / "theory")  # what must stay out
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,), (sdist,) = (source / "dist").glob("*.whl"), (source / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {member.name.partition("/")[2].partition("/")[0] for member in archive if member.isfile()}
    assert inside == {"hesslib", "hesslib.egg-info", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    venv.create(place, with_pip=False, symlinks=True)
    packages = next(place.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        assert {name.partition("/")[0].partition("-")[0] for name in archive.namelist()} == {"hesslib"}
        assert "hesslib/py.typed" in archive.namelist()
        archive.extractall(packages)
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    asked = [Requirement(r) for r in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M) if "extra ==" not in r]
    for found in closed(r.name for r in asked).values():
        for top in {file.parts[0] for file in found.files if ".." not in file.parts} - {"__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(found.locate_file(top))
    code = """
import hesslib, torch
risk = hesslib.EmpiricalRisk(torch.nn.Linear(3, 2).double(), torch.eye(3).double(), torch.tensor([0, 1, 0]))
print(hesslib.__file__, len(hesslib.spectrum(risk.hessian()).eigenvalues))
"""
    ask = lambda *words: subprocess.run([place / "bin/python", "-I", *words], capture_output=True, text=True)
    done = ask("-c", code)
    assert done.stdout.split() == [str(packages / "hesslib/__init__.py"), "8"], done.stderr
    done = ask("-m", "hesslib", "run", "01")
    assert done.returncode == 2 and "pip install -e '.[book]' in its folder" in done.stderr
