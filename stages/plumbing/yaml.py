"""Read YAML as DVC does: with the scalars of YAML 1.2, where `1e-5` is a number and `on` is text, and no duplicate key.

PyYAML itself reads the scalars of YAML 1.1, where `1e-5` is text, `on` is true and `012` is ten.
"""

import re
from typing import Any

import yaml

from stages.plumbing.errors import StageError, one_line

TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
# A value without quotes is text unless one of these patterns matches all of it; the lists are its possible first
# characters. The patterns accept what DVC's reader accepts, which is more than YAML 1.2 (1_000, 0b11, dates) and in one
# case less (.5e3 is text).
SCALARS = (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9_]+([eE][-+][0-9]+)?|\.(inf|Inf|INF))"
        r"|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (
        "timestamp",
        r"\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?([Tt]|[ \t]+)\d\d?:\d\d:\d\d(\.\d*)?([ \t]*(Z|[-+]\d\d?(:\d\d)?))?",
        list("0123456789"),
    ),
    ("merge", "<<", ["<"]),
)


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, which makes only plain values, with the rules above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    # These exclude the three characters that are line breaks in YAML 1.1 but not in 1.2; "\\L" and the like remain.
    NON_PRINTABLE = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

    def compose_document(self) -> Any:
        """The nodes of the document; refuses a document of another YAML version, which would be misread."""
        event = self.peek_event()
        if event.version not in (None, (1, 2)):
            found = f"found %YAML {'.'.join(map(str, event.version))}, but only 1.2 can be read"
            raise yaml.composer.ComposerError(None, None, found, event.start_mark)
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node; an anchor may be defined again, and the new definition holds from there on."""
        if not self.check_event(yaml.AliasEvent):
            self.anchors.pop(self.peek_event().anchor, None)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A table; refuses duplicate keys. Keys that `<<` merges into it are not there yet."""
        node = super().compose_mapping_node(anchor)
        known = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                key = "<<" if key_node.tag == MERGE else self.construct_object(key_node)
                if key in known:
                    problem = f'found duplicate key "{key}"'
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                known.add(key)
        return node

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number; a leading 0 does not make it octal."""
        text = self.construct_scalar(node).replace("_", "")
        base = {"0b": 2, "0o": 8, "0x": 16}.get(text.lstrip("-+")[:2], 10)
        return int(text, base)


for _name, _pattern, _first in SCALARS:
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
        # ValueError: too many digits, a 13th month; PyYAML raises the last two for `!!bool maybe`, `!!timestamp now`.
        raise StageError(source, "nested too deeply, or an impossible number or date", "fix the YAML") from None
