"""Read YAML 1.2, where `1e-5` is a number and `on` is text; a duplicate key is refused.

PyYAML itself reads YAML 1.1, where `1e-5` is text, `on` is true and `012` is ten. What is a number here is one for DVC,
which takes 0x10, 0b11 and 1_000 for numbers too.
"""

import re
from typing import Any

import yaml

from stages.plumbing.errors import StageError, one_line

TAG = "tag:yaml.org,2002:"
# A value without quotes is text unless one of these patterns matches all of it; the lists are its possible first
# characters.
SCALARS = {
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": ("[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+][0-9]+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": ("<<", ["<"]),
}


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, which makes only plain values, with the rules above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A table, before `<<` merges others into it."""
        node = super().compose_mapping_node(anchor)
        known = set()
        for key, _ in node.value:
            if str(key.value) in known:
                problem = f'found duplicate key "{key.value}"'
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            known.add(str(key.value))
        return node


for _name, (_pattern, _first) in SCALARS.items():
    Loader.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
Loader.add_constructor(f"{TAG}int", lambda loader, node: int(loader.construct_scalar(node)))  # 012 is not octal


def parse_yaml(text: str | bytes, source: object) -> Any:
    """The single document of a YAML text (bytes: UTF-8); `source` is its name in errors.

    Raises:
        StageError: it is not YAML, a table has a duplicate key, or a value is impossible for its type.
    """
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = error.problem if mark else error
        raise StageError(f"{source}:{mark.line + 1}" if mark else source, one_line(str(said)), "fix the YAML") from None
    except (RecursionError, ValueError, LookupError, AttributeError):
        # ValueError: too many digits; PyYAML raises the last two for `!!bool maybe` and `!!timestamp now`.
        raise StageError(source, "nested too deeply, or an impossible number or date", "fix the YAML") from None
