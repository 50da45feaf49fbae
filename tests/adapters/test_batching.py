"""The batch size that is found while working."""

from __future__ import annotations

import pytest

from tagging.adapters import batching
from tagging.adapters.batching import BatchFinder


def device(finder: BatchFinder, each, fits: int = 10_000, images: int = 20_000) -> list[int]:
    """Work through `images` as the engine does: halves when it does not fit. The sizes that were sent."""
    sizes = []

    def send(count: int) -> None:
        sizes.append(count)
        if count > fits:
            finder.full(count)
            send(count // 2)
            send(count - count // 2)
            return
        finder.took(count, each(count) * count)

    while images > 0:
        count = min(finder.size, images)
        send(count)
        images -= count
    return sizes


def test_it_grows_while_larger_batches_are_faster():
    finder = BatchFinder()
    sizes = device(finder, lambda n: 1 / min(n, 64) + 0.0001)
    assert finder.size == 64
    assert finder.settled
    assert max(sizes) == 128  # tried once, not worth its memory


def test_it_stays_small_where_larger_is_not_faster():
    finder = BatchFinder()
    device(finder, lambda n: 1.0)
    assert finder.size == 16


def test_it_never_goes_above_what_fitted():
    finder = BatchFinder()
    sizes = device(finder, lambda n: 1 / n, fits=50)
    assert finder.size == 32
    assert sizes.count(64) == 1


def test_a_device_that_holds_less_than_the_first_size():
    finder = BatchFinder()
    device(finder, lambda n: 1 / n, fits=3)
    assert finder.size == 2


def test_there_is_an_end():
    finder = BatchFinder()
    device(finder, lambda n: 1 / n, images=100_000)
    assert finder.size == batching.LARGEST


def test_last_batches_and_slow_first_ones_do_not_count():
    finder = BatchFinder()
    finder.took(3, 0.001)
    assert finder.size == 16
    finder.took(16, 60.0)  # the device compiles
    for _ in range(3):
        finder.took(16, 1.6)
    assert finder.size == 32


def test_what_was_learned_is_kept():
    key = ("onnx", "a file of this test", "CUDAExecutionProvider")
    batching.finder(key).full(16)
    assert batching.finder(key).size == 8


@pytest.mark.parametrize("count", [0, -1])
def test_nothing_is_learned_of_nothing(count):
    finder = BatchFinder()
    finder.took(count, 1.0)
    assert finder.size == 16
