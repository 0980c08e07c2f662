"""The closure changes with the numbers' code and with nothing else."""

import re
import shutil

import pytest

from hesslib.book import closure
from hesslib.book.paths import ROOT

MAIN = '''
"""A chapter."""
import numpy as np
from hesslib.curvature import tools
from hesslib.curvature.tools import scale as scaled

FACTOR = 2.0
UNUSED = 5


def helper(x: int = 3) -> float:
    """Say something."""
    return FACTOR * scaled(x)


def stored(seed: int) -> dict:
    # a comment
    """Say something."""
    from hesslib.curvature.lazy import late

    local = UNUSED_HERE = 1
    return {"a": helper(seed) + tools.shift(np.sqrt(seed)) + late()}


def apart(seed):
    return {"a": UNUSED}


def wrong(seed):
    return {"a": p.width}


p = resolve(globals(), width=3)
store.run("of stored", stored, {})
'''
TOOLS = '''
from hesslib._checks import whole
from hesslib._progress import bar
from sklearn._checks import foreign
from .validation import refuse as check

LIMITS = {"low": 1}


def scale(x):
    for _ in bar([1]):
        return x * LIMITS["low"]


def shift(x):
    whole(1, x=x)
    if x < 0:
        check(x)
    foreign(x)
    return Shifter().shifted(x)


class Shifter:
    """Moves."""

    amount: int = 1

    def shifted(self, x):
        return x + self.amount


def nobody(x):
    return x
'''
LAZY = "def late():\n    return 7\n"
FILES = {
    "notebooks/01_demo.py": MAIN,
    "hesslib/curvature/tools.py": TOOLS,
    "hesslib/curvature/lazy.py": LAZY,
    "hesslib/_checks.py": "def whole(low, **named):\n    return low\n",
    "hesslib/curvature/validation.py": "def refuse(x):\n    return x\n",
    "hesslib/_progress.py": "def bar(items):\n    return items\n",
}


def code(**changes):
    """The tree with replacements ``old -> new`` in the file whose stem is the name."""
    files = dict(FILES)
    for stem, (old, new) in changes.items():
        path = next(p for p in files if p.endswith(f"{stem}.py"))
        assert files[path].count(old) == 1, old
        files[path] = files[path].replace(old, new)
    return closure.Code(files.get, ["01_demo"])


def of(name="stored", **changes):
    return code(**changes).closure("notebooks.01_demo", name)


CHANGES = {
    "a constant": {"01_demo": ("FACTOR = 2.0", "FACTOR = 2.1")},
    "a helper of the chapter": {"01_demo": ("return FACTOR * scaled(x)", "return FACTOR + scaled(x)")},
    "a default": {"01_demo": ("x: int = 3", "x: int = 4")},
    "a helper of the library": {"tools": ('x * LIMITS["low"]', 'x / LIMITS["low"]')},
    "a constant of the library": {"tools": ('{"low": 1}', '{"low": 2}')},
    "a method of a class reached through a module": {"tools": ("return x + self.amount", "return x - self.amount")},
    "a field of that class": {"tools": ("amount: int = 1", "amount: int = 2")},
    "a call that another library's function of that name gets": {"tools": ("foreign(x)", "foreign(2 * x)")},
    "what comes before a check": {"tools": ("if x < 0:", "if x < 1:")},
    "a check whose result is used": {"tools": ("    whole(1, x=x)", "    x = whole(1, x=x)")},
    "a function imported late": {"lazy": ("return 7", "return 8")},
    "another library's function under the same name": {"01_demo": ("import numpy as np", "import cupy as np")},
}
NO_CHANGES = {
    "a docstring": {"01_demo": ('"""A chapter."""', '"""Another chapter."""')},
    "a docstring of a class": {"tools": ('"""Moves."""', '"""Moves it."""')},
    "a comment": {"01_demo": ("# a comment", "# another comment")},
    "an annotation": {"01_demo": ("-> float", "-> int")},
    "the type of a field": {"tools": ("amount: int", "amount: float")},
    "a function that is not reached": {"tools": ("def nobody(x):\n    return x", "def nobody(x):\n    return -x")},
    "a constant that is not reached": {"01_demo": ("UNUSED = 5", "UNUSED = 6")},
    "a check": {"validation": ("return x", "return -x"), "_checks": ("return low", "return -low")},
    "a call of a check": {"tools": ("    whole(1, x=x)\n", "")},
    "another call of a check": {"tools": ("check(x)", "check(x, 2)")},
    "a bar": {"_progress": ("return items", "return list(items)")},
    "white space": {"01_demo": ("FACTOR = 2.0", "FACTOR   =   (2.0)")},
    "another stored function": {"01_demo": ('{"a": UNUSED}', '{"a": -UNUSED}')},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_number_depends_on_changes_the_closure(change):
    assert of(**CHANGES[change]) != of()


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_no_number_depends_on_does_not(change):
    assert of(**NO_CHANGES[change]) == of()


def test_a_function_may_move_to_another_module():
    shifter = TOOLS[TOOLS.index("class Shifter") : TOOLS.index("def nobody")]
    moved = {**FILES, "hesslib/curvature/shifting.py": shifter}
    moved["hesslib/curvature/tools.py"] = TOOLS.replace(shifter, "from .shifting import Shifter\n")
    assert closure.Code(moved.get, []).closure("notebooks.01_demo", "stored") == of()


def test_a_function_that_reads_the_chapters_parameters_is_refused():
    with pytest.raises(closure.ClosureError, match="p depends on the chapter's parameters"):
        of("wrong")
    with pytest.raises(closure.ClosureError, match="there is no function missing"):
        of("missing")


def test_experiments_are_found_where_they_are_stored():
    headed = code(**{"01_demo": ("store.run(", "# # Title\nstore.run(")})
    assert closure.experiments(headed) == {"of stored": ("01_demo", "stored", "Title")}
    assert closure.present(headed) == {"of stored": of()}


def test_the_closure_of_a_running_function_is_that_of_its_text():
    """Of a function of this package, by its module, and of a chapter's, by its cells."""
    from hesslib.experiments.landscape import barrier

    assert closure.of(barrier) == closure.tree().closure("hesslib.experiments.landscape", "barrier")


# -- in this repository: one character of a helper makes stale exactly the results that depend on it ---------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for name in ("hesslib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.ipynb", "__pycache__"))
    return folder


def reaching(name):
    """Experiments whose functions reach a definition of that name."""
    tree = closure.tree()
    wanted = f"FunctionDef(name='{name}'"
    return {
        experiment
        for experiment, e in closure.experiments(tree).items()
        if any(text.startswith(wanted) for text in tree.reached(f"notebooks.{e.chapter}", (e.function,)))
    }


@pytest.mark.parametrize(
    ("file", "name", "old", "new"),
    [
        ("hesslib/experiments/landscape.py", "barrier", "float(inside - max", "float(inside + max"),
        ("hesslib/theory/spikes.py", "spike_overlap", r"def spike_overlap\(", "def spike_overlap(_more=1, *, "),
        ("hesslib/experiments/covariance.py", "best_fit", r"def best_fit\(", "def best_fit(_more=1, *, "),
    ],
)
def test_a_changed_helper_makes_exactly_its_results_stale(copy, file, name, old, new):
    before, text = closure.present(closure.tree()), (copy / file).read_text()
    changed = re.sub(old, new, text) if "\\" in old else text.replace(old, new)
    assert changed != text
    (copy / file).write_text(changed)
    after = closure.present(closure.tree(copy))
    (copy / file).write_text(text)
    stale = {experiment for experiment in before if before[experiment] != after[experiment]}
    assert stale == reaching(name) and 0 < len(stale) < len(before)


def test_a_changed_docstring_makes_nothing_stale(copy):
    path = copy / "hesslib" / "theory" / "spikes.py"
    text = path.read_text()
    path.write_text(text.replace('"""', '"""Otherwise said: ', 1))
    assert closure.present(closure.tree(copy)) == closure.present(closure.tree())
    path.write_text(text)
