"""Sequences whose items are made when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item", covariant=True)


class LazySequence(Sequence[Item]):
    """A sequence that knows how to make the item with a number; slices are lists."""

    @abstractmethod
    def _item(self, number: int) -> Item:
        """The item with a number from 0 to one less than the length."""

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        chosen = range(len(self))[number]  # raises IndexError
        return self._item(chosen) if isinstance(chosen, int) else [self._item(each) for each in chosen]
