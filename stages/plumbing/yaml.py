"""Read YAML as DVC does: with the scalars of YAML 1.2, where `1e-5` is a number and `on` is text, and no duplicate key.

PyYAML itself reads the scalars of YAML 1.1, where `1e-5` is text, `on` is true and `012` is ten.
"""

import re
from typing import Any

import yaml

from stages.plumbing.errors import StageError, one_line

TAG = "tag:yaml.org,2002:"
# A value without quotes is text unless one of these patterns matches all of it; the lists are its possible first
# characters. Like DVC's reader they also take 1_000 and 0b11 for numbers.
SCALARS = {
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": ("[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9_]+([eE][-+][0-9]+)?|\.(inf|Inf|INF))"
        r"|\.(nan|NaN|NAN)",
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
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    problem = f'found duplicate key "{key.value}"'
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                known.add(key.value)
        return node

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number; a leading 0 does not make it octal."""
        text = self.construct_scalar(node).replace("_", "")
        return int(text, {"0b": 2, "0o": 8, "0x": 16}.get(text.lstrip("-+")[:2], 10))


for _name, (_pattern, _first) in SCALARS.items():
    Loader.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z", re.ASCII), _first)
Loader.add_constructor(f"{TAG}int", Loader.construct_yaml_int)


def parse_yaml(text: str | bytes, source: object) -> Any:
    """The single document of a YAML text (bytes: UTF-8); `source` is its name in errors.

    Raises:
        StageError: it is not YAML, a table has a duplicate key, or a value is impossible for its type.
    """
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StageError(f"{source}{line}", one_line(str(error.problem)), "fix the YAML") from None
    except yaml.YAMLError as error:
        raise StageError(source, one_line(str(error)), "fix the YAML") from None
    except (RecursionError, ValueError, LookupError, AttributeError):
        # ValueError: too many digits; PyYAML raises the last two for `!!bool maybe` and `!!timestamp now`.
        raise StageError(source, "nested too deeply, or an impossible number or date", "fix the YAML") from None
