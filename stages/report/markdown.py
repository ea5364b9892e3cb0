"""Small pieces of Markdown (CommonMark and its tables); whatever comes from data or models goes through `plain`."""

import re
from collections.abc import Iterable, Sequence

NONE = "-"
SPACE = "\u00a0"  # one at which no line is broken


def plain(text: str) -> str:
    r"""A text that shows as it is, in a table too: every character with a meaning in Markdown gets a backslash.

    >>> plain("a|b *c* <d>")
    'a\\|b \\*c\\* \\<d\\>'
    """
    one_line = re.sub(rf"[^\S{SPACE}]+", " ", text).strip()
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns stand left and whose others stand right."""
    lines = [list(header), ["---" if column < left else "---:" for column in range(len(header))], *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def items(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def anchor(heading: str) -> str:
    """The name under which a heading can be linked, by the rule of the code forges."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def link(heading: str) -> str:
    """A link to a heading of the same text."""
    return f"[{plain(heading)}](#{anchor(heading)})"


def number(value: float | None, digits: int = 4) -> str:
    """A score, or a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(regime: float) -> str:
    """A regime, in one piece."""
    return f"{regime:g}{SPACE}%"


def value(each: object) -> str:
    """A parameter or a metric as its file has it."""
    if each is None:
        return "null"
    return str(each).lower() if isinstance(each, bool) else str(each)
