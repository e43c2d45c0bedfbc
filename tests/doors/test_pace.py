"""The token bucket."""

from __future__ import annotations

import pytest

from streams.doors.pace import BURST_S, Pace


def test_without_a_rate_nothing_waits():
    assert Pace(0, 0).wait_s(1 << 40, 0) == 0


@pytest.mark.parametrize("count", [1000, 1 << 20, 7_000_000])
def test_what_goes_in_a_long_time_is_the_rate(count: int):
    rate, now_s, gone = 10e6, 5.0, 0
    pace = Pace(rate, now_s)
    while now_s < 65:
        now_s += pace.wait_s(count, now_s)
        gone += count
    assert gone == pytest.approx(60 * rate, abs=count + BURST_S * rate + count)


def test_a_pause_earns_no_more_than_a_burst():
    pace = Pace(1000, 0)
    pace.wait_s(1000, 0)
    assert pace.wait_s(100, 100) == 0
    assert pace.wait_s(1, 100) == pytest.approx(0)
    assert pace.wait_s(1000, 100) == pytest.approx(0.001)
    assert pace.wait_s(1, 100) == pytest.approx(1.001)
