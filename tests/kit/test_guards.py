"""The table of guards is about the code as it is; ``make guards`` tries each of them."""

import pytest

from hesslib.book.paths import ROOT

from .guards import GUARDS


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: f"{g.file}-{g.code.strip()[:30]}")
def test_the_code_of_each_guard_is_there_once(guard):
    assert (ROOT / "hesslib" / guard.file).read_text().count(guard.code) == 1 and guard.without != guard.code
    path, _, name = guard.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / path).read_text()
