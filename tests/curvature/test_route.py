"""What is said about a spectrum beforehand is what is then done."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from hesslib import EmpiricalRisk, select_route, spectrum
from hesslib.curvature import gram
from tests.curvature.cases import CASES
from tests.curvature.models import TABLE, build

RISKS = {c.name: EmpiricalRisk(c.model, c.inputs, c.targets, c.loss) for c in CASES}
RISKS |= {name: EmpiricalRisk(*build(make)) for name, make, *_ in TABLE if name in ("residual network", "transformer")}


def operators(risk):
    found = [risk.hessian(), risk.ggn(), risk.residual()]
    return found + ([risk.ggn("probability"), risk.residual("probability")] if risk.criterion.name != "mse" else [])


@pytest.mark.parametrize("name", RISKS)
def test_the_spectrum_goes_the_way_that_is_said(name):
    for op in operators(RISKS[name]):
        for method in ("auto", "dense", "gram"):
            if method == "gram" and gram.why_not(op):
                for call in (select_route, spectrum):
                    with pytest.raises(ValueError, match="method='gram' does not apply to"):
                        call(op, method)
                continue
            route, found = select_route(op, method), spectrum(op, method)
            assert (route.method, route.reason) == (found.method, found.reason), (name, op.name)
            assert route.order == (op.shape[0] if found.method == "dense" else gram.columns(op))
            assert route.fits and 0 < route.seconds < 60


@pytest.mark.parametrize("method", ["dense", "gram"])
def test_it_fits_exactly_where_the_spectrum_is_not_refused(method, monkeypatch):
    op = RISKS["ReLU-5-4-3"].hessian()
    op.memory_budget = 5000
    need = select_route(op, method).bytes
    for free, fits in ((need, True), (need - 1, False)):
        for module in ("route", "spectrum", "dense"):
            monkeypatch.setattr(f"hesslib.curvature.{module}.free_memory", lambda device, free=free: free)
        route = select_route(op, method)
        assert route.fits == fits and route.free == free
        assert ("which is too much" in str(route)) != fits
        if fits:
            spectrum(op, method)
        else:
            with pytest.raises(MemoryError):
                spectrum(op, method)


def test_the_sentence_and_what_is_refused():
    op = RISKS["ReLU-5-3"].hessian()
    said = str(select_route(op))
    assert said.startswith("dense (M = 18 is below the bound 22 on the rank): a matrix of order 18, ")
    assert said.endswith(" s") and "GiB that are free, about " in said
    with pytest.raises(TypeError, match="a CurvatureOperator"):
        select_route(aslinearoperator(np.eye(3)))
    with pytest.raises(ValueError, match="method='fast' is unknown"):
        select_route(op, "fast")
