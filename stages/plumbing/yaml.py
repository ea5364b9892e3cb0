"""Read YAML with the library that DVC reads it with, and which DVC brings.

It is YAML 1.2, where `1e-5` is a number and `on` is text; a duplicate key is refused.
"""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.plumbing.errors import StageError, one_line


def parse_yaml(text: str | bytes, source: object) -> Any:
    """The single document of a YAML text (bytes: UTF-8); `source` is its name in errors.

    Raises:
        StageError: it is not YAML, a table has a duplicate key, or a value is impossible for its type.
    """
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark else source
        said = str(getattr(error, "problem", None) or error).partition(" with value")[0]  # a value may be a secret
        raise StageError(place, one_line(said), "fix the YAML") from None
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError):  # `!!int x`, `!!bool maybe`, `? [{}]`
        raise StageError(source, "nested too deeply, or an impossible key, number or date", "fix the YAML") from None
