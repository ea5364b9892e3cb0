"""Work in batches that memory running out makes smaller."""

from collections.abc import Sequence

import pytest

from stages.plumbing.batches import in_batches


def test_memory_running_out_halves_the_batches_and_loses_no_item(capsys: pytest.CaptureFixture[str]) -> None:
    def limited(numbers: Sequence[int]) -> int:
        if len(numbers) > 2:
            raise RuntimeError("CUDA error: out of memory")
        return sum(numbers)

    assert list(in_batches([1, 2, 3, 4, 5], 4, limited, "adding")) == [([1, 2], 3), ([3, 4], 7), ([5], 5)]
    assert capsys.readouterr().out == "out of memory: adding goes on with batches of 2\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("shapes cannot be multiplied")])
def test_an_item_that_fits_nowhere_and_another_error_are_raised(error: Exception) -> None:
    tried: list[int] = []

    def fails(numbers: Sequence[int]) -> None:
        tried.append(len(numbers))
        raise error

    with pytest.raises(type(error)):
        list(in_batches([1, 2, 3, 4], 4, fails, "adding"))
    assert tried == ([4, 2, 1] if isinstance(error, MemoryError) else [4])


def test_a_last_batch_that_is_short_is_not_tried_again_as_it_was() -> None:
    tried: list[int] = []

    def limited(numbers: Sequence[int]) -> int:
        tried.append(len(numbers))
        if len(numbers) == 3:
            raise MemoryError
        return sum(numbers)

    assert [found for _, found in in_batches([1, 2, 3], 128, limited, "adding")] == [1, 2, 3]
    assert tried == [3, 1, 1, 1]
