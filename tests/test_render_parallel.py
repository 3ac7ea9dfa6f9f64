"""The thread pool of the renderer."""

from __future__ import annotations

import pytest

from sedtalker.errors import RenderError
from sedtalker.render.parallel import map_in_order


def test_map_in_order_keeps_the_order_and_queues_few_results():
    running, most = 0, 0

    def items():
        nonlocal running, most
        for index in range(60):
            running += 1
            most = max(most, running)
            yield index

    for index, result in enumerate(map_in_order(lambda n: n * n, items(), threads=3)):
        running -= 1
        assert result == index * index
    assert most <= 3 * 2 + 2


def test_map_in_order_raises_an_error_at_its_item():
    def work(n: int) -> int:
        if n == 4:
            raise RenderError("four")
        return n

    done = []
    with pytest.raises(RenderError, match="four"):
        for result in map_in_order(work, range(100), threads=2):
            done.append(result)
    assert done == [0, 1, 2, 3]
