import threading
import time

import pytest

from geounet.engines.side_by_side import side_by_side


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_come_in_the_order_of_the_items(threads, count):
    def work(item):
        time.sleep(0.002 * (item % 3 == 0))
        return 2 * item

    assert list(side_by_side(work, range(count), threads)) == [2 * i for i in range(count)]


def test_as_many_run_at_once_as_there_are_threads():
    meet = threading.Barrier(3, timeout=30)
    begun = []
    made = side_by_side(lambda _: meet.wait(), range(6), 3, lambda: begun.append(1))
    assert sorted(made) == [0, 0, 1, 1, 2, 2]
    assert len(begun) == 3


def test_items_are_asked_for_as_they_are_needed():
    asked = []
    made = side_by_side(lambda item: item, (asked.append(i) or i for i in range(9)), 2)
    assert next(made) == 0
    assert len(asked) == 4  # two run, one waits, and one has taken the first one's place


def test_an_error_is_raised_where_its_result_is_due():
    made = side_by_side(lambda item: 1 // item, (1, 1, 0, 1), 2)
    assert [next(made), next(made)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_what_runs_is_waited_for_where_nobody_wants_the_rest():
    running = []

    def work(item):
        running.append(item)
        time.sleep(0.02)
        running.remove(item)

    made = side_by_side(work, range(9), 3)
    next(made)
    made.close()
    assert running == []
