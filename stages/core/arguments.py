"""What the commands that are run by hand accept on their command lines."""

import argparse
from collections.abc import Callable


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A whole number from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise argparse.ArgumentTypeError(f"found {text}; it must be from {low} to {high}")
        return value

    parse.__name__ = "whole number"  # argparse says: invalid whole number value
    return parse
