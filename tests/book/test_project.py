"""The project's files agree with each other."""

import tomllib

import yaml

from hesslib.notebook.store import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_repeats_the_project_requirements():
    pip = next(
        d["pip"] for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, dict)
    )
    extras = PROJECT["optional-dependencies"]
    needed = PROJECT["dependencies"] + extras["html"] + [r for r in extras["book"] if not r.startswith("hesslib[")]
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


def test_package_stays_thin():
    count = lambda *parts: sum(len(p.read_text().splitlines()) for p in ROOT.joinpath("hesslib", *parts).rglob("*.py"))
    assert count() <= 5600 and count("curvature") <= 1800


def test_wings_import_only_what_they_may():
    allowed = {"curvature": (), "theory": (), "experiments": ("curvature",), "notebook": ()}
    for wing, may in allowed.items():
        for path in (ROOT / "hesslib" / wing).glob("*.py"):
            text = path.read_text()
            for other in set(allowed) - {wing, *may}:
                assert f"hesslib.{other}" not in text and f"from ..{other}" not in text, (path, other)
