import time

import pytest

from geounet.timing import Clock


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for the sleeps of the test."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return Clock()


def test_it_adds_up_by_stage_and_through_errors(clock):
    for seconds in (1, 2):
        with clock("read"):
            time.sleep(seconds)
    with pytest.raises(ZeroDivisionError), clock("write"):
        time.sleep(4) or 1 / 0
    assert clock.seconds == {"read": 3, "write": 4}


def test_only_the_time_until_items_come_counts(clock):
    def items():
        for seconds in (1, 2):
            time.sleep(seconds)
            yield seconds
        time.sleep(8)

    found = []
    for item in clock.over("read", items()):
        time.sleep(100)
        found.append(item)
    assert found == [1, 2]
    assert clock.seconds == {"read": 11}
