"""A peer that stalls in each phase: the right error, not early, not late, and a pool that is whole afterwards."""
from __future__ import annotations

import statistics

import pytest

from pooledhttp import errors
from tests.deadlines.runs import CASES, ERROR, TIMES, Case, Outcome, run_all
from tests.support.ca import Authority

LATE = 0.05
SECONDS = (0.3, 3.0)


@pytest.fixture(scope="module")
def outcomes(ca: Authority) -> dict[float, dict[Case, list[Outcome]]]:
    """What all runs came to: all phases at once for one limit, then for the other, so that it takes little longer than the limits."""
    return {seconds: run_all(CASES, seconds, ca) for seconds in SECONDS}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_stall(outcomes: dict[float, dict[Case, list[Outcome]]], case: Case, seconds: float) -> None:
    runs = outcomes[seconds][case]
    assert len(runs) == TIMES
    for run in runs:
        assert not run.trouble, run.trouble
        error = run.error
        assert type(error) is ERROR[case.limit], repr(error)
        assert error.phase == case.phase
        assert error.request is not None
        if isinstance(error, errors.DeadlineExceeded):
            assert error.source == "request"
        assert (error.conn is None) == (case.phase in ("pool", "dns", "connect", "tls"))
        assert run.late >= 0, f"{-run.late * 1e3:.1f} ms early"
    late = [run.late for run in runs]
    assert statistics.median(late) < LATE, [f"{x * 1e3:.1f} ms" for x in late]
