"""Small pieces of Markdown (CommonMark and tables); all text from data or models goes through `plain`."""

import json
import re
from collections.abc import Iterable, Sequence

NONE = "-"
SPACE = "\u00a0"  # a no-break space


def plain(text: str) -> str:
    r"""Escape a text so that Markdown shows it as it is, in a table too.

    >>> plain("a|b *c* <d>")
    'a\\|b \\*c\\* \\<d\\>'
    """
    one_line = re.sub(rf"[^\S{SPACE}]+", " ", text).strip()
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; its first `left` columns are aligned left, the others right."""
    lines = [list(header), ["---" if column < left else "---:" for column in range(len(header))], *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def items(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def anchor(heading: str) -> str:
    """The anchor of a heading, by the rule of GitHub and others."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def slug(text: str) -> str:
    """Its letters and digits, for the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def link(heading: str) -> str:
    """A link to a heading of the same text."""
    return f"[{plain(heading)}](#{anchor(heading)})"


def number(value: float | None, digits: int = 4) -> str:
    """A score, or a dash if there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(regime: float) -> str:
    """A regime with its percent sign, without a line break between."""
    return f"{regime:g}{SPACE}%"


def value(each: object) -> str:
    """A parameter or a metric as it is written in its file; in quotes if white space in it is easily overlooked."""
    if each is None:
        return "null"
    if isinstance(each, str) and (each != each.strip() or "\n" in each):
        return json.dumps(each, ensure_ascii=False)
    return str(each).lower() if isinstance(each, bool) else str(each)
