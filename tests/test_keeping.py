"""Things that are kept between scenes: as few as may be, and each made once."""

import threading
import time

import pytest

from geounet.engines import keeping
from geounet.engines.keeping import forget, keep


@pytest.fixture(autouse=True)
def _nothing_kept():
    forget()
    yield
    forget()


def test_what_was_made_is_kept():
    made = keep("a", object)
    assert keep("a", object) is made
    assert keep("b", object) is not made


def test_the_longest_unused_makes_room():
    first, second = keep(1, object), keep(2, object)
    assert keep(1, object) is first
    keep(3, object)
    assert len(keeping._kept) == keeping._MOST == 2
    assert keep(1, object) is first
    assert keep(2, object) is not second


def test_what_cannot_be_made_is_tried_again():
    with pytest.raises(ZeroDivisionError):
        keep("a", lambda: 1 / 0)
    assert keep("a", lambda: 5) == 5


def test_threads_make_it_once():
    made, start = [], threading.Barrier(8)

    def make():
        time.sleep(0.01)
        made.append(object())
        return made[-1]

    def ask():
        start.wait()
        found.append(keep("a", make))

    found = []
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert found == made * 8
