"""YAML as DVC reads it: the scalars of YAML 1.2, where `1e-5` is a number and `on` is text, and no key given twice.

PyYAML by itself has the scalars of YAML 1.1, in which `1e-5` is text, `on` is true and `012` is ten.
"""

import re
from typing import Any

import yaml

from stages.plumbing.errors import StageError, one_line

TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
# What is text without quotes unless one of these matches it all, by the first characters that it can have. They accept
# what DVC's reader accepts, which is more than YAML 1.2 does (1_000, 0b11, dates) and in one place less (.5e3 is text).
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
    """PyYAML's loader, which makes nothing but plain values, with the rules above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    # Not the three characters that are a line break in YAML 1.1 and none in 1.2; "\\L" and the like remain.
    NON_PRINTABLE = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

    def compose_document(self) -> Any:
        """The nodes of the document; one that says it is of another version of YAML would be misread."""
        event = self.peek_event()
        if event.version not in (None, (1, 2)):
            found = f"found %YAML {'.'.join(map(str, event.version))}, where only 1.2 is read"
            raise yaml.composer.ComposerError(None, None, found, event.start_mark)
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node; an anchor may be given anew, and holds from there on."""
        if not self.check_event(yaml.AliasEvent):
            self.anchors.pop(self.peek_event().anchor, None)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A table whose keys differ; what `<<` brings into it is not among them yet."""
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
        """A whole number; one that begins with 0 is decimal."""
        text = self.construct_scalar(node).replace("_", "")
        base = {"0b": 2, "0o": 8, "0x": 16}.get(text.lstrip("-+")[:2], 10)
        return int(text, base)


for _name, _pattern, _first in SCALARS:
    Loader.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z", re.ASCII), _first)
Loader.add_constructor(f"{TAG}int", Loader.construct_yaml_int)


def parse_yaml(text: str | bytes, source: object) -> Any:
    """The one document of a YAML text, of which bytes are UTF-8; `source` names it in errors.

    Raises:
        StageError: it is no YAML, a key is given twice in a table, or a value is none of the type that it looks like.
    """
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StageError(f"{source}{line}", one_line(str(error.problem)), "fix the YAML") from None
    except yaml.YAMLError as error:
        raise StageError(source, one_line(str(error)), "fix the YAML") from None
    except (RecursionError, ValueError, LookupError, AttributeError):
        # More digits than Python reads, a 13th month; the last two are PyYAML's for `!!bool maybe`, `!!timestamp now`.
        raise StageError(source, "nested too deeply, or an impossible number or date", "fix the YAML") from None
