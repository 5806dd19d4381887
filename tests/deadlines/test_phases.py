"""A peer that stalls in each phase: the right error, not early, not late, and a pool that is whole afterwards."""
from __future__ import annotations

import pytest

from pooledhttp import errors
from pooledhttp.transport import live
from tests.deadlines.runs import CASES, ERROR, TIMES, Case, Outcome, lateness, run_all
from tests.exchange.support import until
from tests.support.ca import Authority

LATE = 0.05
SECONDS = (0.3, 3.0)


@pytest.fixture(scope="module")
def outcomes(ca: Authority) -> dict[float, dict[Case, list[Outcome]]]:
    """What all runs came to: all phases at once for one limit, then for the other, so that it takes little longer than the limits.

    What was late in the crowd is met once more in a smaller one, which then counts: something else may have had the processors.
    """
    out = {}
    wakes = live()["wakes"]
    for seconds in SECONDS:
        out[seconds] = run_all(CASES, seconds, ca)
        late = [case for case, runs in out[seconds].items() if lateness(runs) >= LATE]
        if late:
            again = run_all(late, seconds, ca)
            for case in late:
                out[seconds][case] = [*out[seconds][case], *again[case]]
    # The threads of the runs, the janitor's too, end before the first test begins: each has a descriptor.
    until(lambda: live()["wakes"] <= wakes, "the end of all threads of the runs")
    return out


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_stall(outcomes: dict[float, dict[Case, list[Outcome]]], case: Case, seconds: float) -> None:
    runs = outcomes[seconds][case]
    assert len(runs) in (TIMES, 2 * TIMES)
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
    assert lateness(runs[-TIMES:]) < LATE, [f"{run.late * 1e3:.1f} ms" for run in runs]
