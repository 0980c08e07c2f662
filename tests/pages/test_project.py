"""The project's files agree with each other."""

import ast
import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from hesslib.book.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_repeats_the_project_requirements():
    pip = next(
        d["pip"] for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, dict)
    )
    extras = PROJECT["optional-dependencies"]
    ours = extras["html"] + extras["book"] + extras["lab"]
    needed = PROJECT["dependencies"] + [r for r in ours if not r.startswith("hesslib[")]
    assert sorted(pip) == sorted([*needed, "-e ."])


def test_every_requirement_has_an_upper_bound():
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for requirement in group:
            assert "==" in requirement or "<" in requirement or requirement.startswith("hesslib["), requirement


def test_contents_name_exactly_the_notebooks_that_exist():
    toc = (ROOT / "_toc.yml").read_text()
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        assert f"notebooks/{path.name}" in toc
    for part in yaml.safe_load(toc)["parts"]:
        for chapter in part["chapters"]:
            path = ROOT / chapter["file"]
            assert path.exists() or path.with_suffix(".md").exists()


def test_what_our_commands_make_is_marked_as_made():
    made = ["notebooks/00_tour.ipynb", "notebooks/figures/00_tour.zip", "book/claims.json", "book/results/x.npz"]
    command = ["git", "-C", str(ROOT), "check-attr", "linguist-generated", "diff", "merge", "--"]
    ask = lambda path: [line.rsplit(": ", 1)[1] for line in
                        subprocess.check_output([*command, path], text=True).splitlines()]  # fmt: skip
    for path in made:
        assert ask(path) == ["set", "unset", "unset"], path
    for path in ("notebooks/00_tour.py", "book/claims/same.yml", "README.md", "hesslib/cli.py"):
        assert ask(path) == ["unspecified"] * 3, path


@pytest.mark.slow
def test_types():
    """As ``make lint`` checks them; here beside the other tests."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Lines of each wing. A number goes down when code leaves, and up only with an ability that its commit names.
BUDGETS = {
    "curvature": 4663,
    "theory": 492,
    "experiments": 2517,
    "book": 3961,
    "": 462,
}


@pytest.mark.parametrize("wing", BUDGETS)
def test_a_wing_keeps_to_its_budget_of_lines(wing):
    files = (ROOT / "hesslib" / wing).rglob("*.py") if wing else (ROOT / "hesslib").glob("*.py")
    assert sum(len(p.read_text().splitlines()) for p in files) <= BUDGETS[wing]


def test_wings_import_only_what_they_may():
    """ground <- curvature, theory <- experiments <- book <- the command line."""
    ground = {"_checks", "_files", "_progress"}
    library = ground | {"curvature", "theory"}
    allowed = {"curvature": ground, "theory": ground, "experiments": library, "book": library | {"experiments"}}
    for wing, may in allowed.items():
        for path in (ROOT / "hesslib" / wing).rglob("*.py"):
            text = path.read_text()
            up = r"\." * len(path.relative_to(ROOT / "hesslib").parts)
            assert set(re.findall(rf"^\s*from {up}(\w+)", text, re.M)) <= may, path
            assert not re.search(r"^\s*(from|import) hesslib\b", text, re.M), path


def imports(path, package):
    """Modules of ours that a file imports, at its top or within functions, but not for annotations alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level):
        base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [node.module])])
        for alias in node.names:
            inner = ROOT.joinpath(*f"{base}.{alias.name}".split(".")).with_suffix(".py")
            yield f"{base}.{alias.name}" if inner.exists() else base


def test_no_module_is_in_a_circle_of_imports():
    graph = {}
    for path in (ROOT / "hesslib").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = ".".join(parts[:-1])
        graph[package if parts[-1] == "__init__" else ".".join(parts)] = set(imports(path, package))
    while graph:  # take away what imports nothing that is left
        free = [name for name, needed in graph.items() if not needed & graph.keys() - {name}]
        assert free, f"a circle among {sorted(graph)}"
        for name in free:
            del graph[name]


def test_the_lock_file_fulfils_every_requirement():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines), "a plain list: no address, no local version"
    locked = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["book"], *extras["html"], *extras["lab"]]:
        if not text.startswith("hesslib["):
            asked = Requirement(text)
            assert asked.specifier.contains(locked[re.sub(r"[-_.]+", "-", asked.name).lower()]), text


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["authors"] and citation["date-released"]


def test_the_readme_says_what_the_tour_says():
    found = (ROOT / "README.md").read_text().partition("## What was found")[2].partition("## ")[0]
    tour = "".join("".join(o.get("data", {}).get("text/markdown", ""))
                   for c in json.loads((ROOT / "notebooks" / "00_tour.ipynb").read_text())["cells"]
                   for o in c.get("outputs", []))  # fmt: skip
    numbers = re.findall(r"\d+\.\d+ ± \d+\.\d+", found)
    assert len(numbers) >= 3 and all(number in tour for number in numbers)
    plain = lambda text: " ".join(text.split())
    few = re.search(r"Trained on digits, all (\d+) networks have (\d+) to (\d+) outliers", plain(tour)).groups()
    assert "{} of them have {} to {} for 10 classes".format(*few) in plain(found)
    stored, said = r"CIFAR-10 \((\d+) runs? stored\)", r"our (\d+) runs on CIFAR-10"
    assert re.search(stored, plain(tour))[1] == re.search(said, plain(found))[1]
    assert re.search(r"in (\d of \d) runs", plain(tour))[1] == re.search(r"in (\d of \d) runs", plain(found))[1]


def test_the_readme_says_what_the_complete_spectrum_took():
    text = " ".join((ROOT / "README.md").read_text().split())
    took = json.loads((ROOT / "book" / "complete_costs.json").read_text())["alexnet"]
    said = f"All {took['M']:,} eigenvalues of the Gauss-Newton matrix `G` of AlexNet on {took['N']:,} images took "
    assert said + f"{took['seconds']:.0f} s and {took['peak_gib']:.1f} GiB on two cores" in text
