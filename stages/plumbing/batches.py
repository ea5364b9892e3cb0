"""Work that is done batch by batch, with smaller batches where memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from stages.plumbing.errors import is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], Result], what: str
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Each batch of at most `size` items in their order, with what `work` makes of it. Out of memory halves the size.

    what: names the work in the line that says so.

    Raises:
        RuntimeError, MemoryError: `work` did; if memory ran out, with a single item.
    """
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        try:
            result = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            size = len(batch) // 2
            print(f"out of memory: {what} goes on with batches of {size}")
            continue
        yield batch, result
        start += len(batch)
