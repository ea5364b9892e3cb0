"""Strict models for params.yaml, and readable errors: the key, what was found, what is allowed."""

import difflib
import re
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.plumbing.errors import one_line

LONGEST_VALUE = 60
LARGEST = 2**31 - 1  # limit of every count
SECRET_NAMES = re.compile(r"token|passw|secret|credential|api_?key", re.IGNORECASE)
EXPECTED = {
    "model_type": "a table of keys (`key: value` lines)",
    "model_attributes_type": "a table of keys (`key: value` lines)",
    "dict_type": "a table of keys (`key: value` lines)",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}

Positive = Annotated[int, Field(gt=0, le=LARGEST)]


class Strict(BaseModel):
    """No unknown key, no silent conversion ("8" is not 8)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Refused(ValueError):
    """A validator does not allow a value; `key` is relative to the validator's model."""

    def __init__(self, key: str, found: str, remedy: str) -> None:
        super().__init__(f"{key}: {found}; {remedy}")
        self.key, self.found, self.remedy = key, found, remedy


def redact(text: str) -> str:
    """Make a text safe to show: replace user names, passwords and queries in URLs, and access tokens, by ***."""
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    text = re.sub(r"((?:https?://|url: /)[^\s?'\"]*)\?[^\s'\"]+", r"\1?***", text)
    return re.sub(r"\bhf_\w{8,}", "hf_***", text)


def show(value: object, key: str = "") -> str:
    """A value for a message: short, and without secrets."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        kind, unit = ("table", "keys") if isinstance(value, dict) else ("list", "entries")
        return f"a {kind} of {len(value)} {unit}" if value else f"an empty {kind}"
    if isinstance(value, str) and SECRET_NAMES.search(key):
        return "a value (not shown)"
    text = redact(repr(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}… ({len(text)} characters)"


def allowed(found: object, names: Iterable[str]) -> str:
    """Advice for a wrong name: the closest allowed name, and all allowed names."""
    names = list(names)
    near = difflib.get_close_matches(str(found), names, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {', '.join(names)}"


def explain(model: type[BaseModel], error: ValidationError) -> tuple[str, str, str]:
    """The first of pydantic's errors as (key, what was found, what to do); the key is "" for the whole file.

    An unknown key comes before all others: a misspelt key is also missing under its right name, which is not counted.
    """
    details = _of_one_member(error.errors())
    first = next((each for each in details if each["type"] == "extra_forbidden"), details[0])
    if first["type"] == "extra_forbidden":
        table = first["loc"][:-1]
        details = [each for each in details if (each["type"], each["loc"][:-1]) != ("missing", table)]
    keys, place = _locate(model, first["loc"])
    *words, advice = _words(first, keys, place)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return words[0], words[1], advice + more


def _of_one_member(details: Sequence[Any]) -> list[Any]:
    """The errors without those of a union's other members: a table is no misspelt name, a name no table lacking keys.

    Of a value that fits neither (`chat-template`, or a table), pydantic says what is wrong with it as each of them.
    """
    kept = list(details)
    for name in [each for each in details if _is_tag_of_a_name(each["loc"])]:
        union, is_name = name["loc"][:-1], not isinstance(name["input"], dict | list)
        kept = [
            each for each in kept
            if each["loc"][: len(union)] != union or _is_tag_of_a_name(each["loc"]) == is_name
        ]  # fmt: skip
    return kept


def _is_tag_of_a_name(place: Sequence[int | str]) -> bool:
    return str(place[-1] if place else "").startswith("literal[")


def _words(error: Any, keys: list[str], place: Any) -> tuple[str, str, str]:
    key, kind = ".".join(keys), error["type"]
    if kind == "value_error" and isinstance(refused := error["ctx"]["error"], Refused):
        return ".".join(part for part in (key, refused.key) if part), refused.found, refused.remedy
    if kind == "extra_forbidden":
        return key, "unknown key", allowed(keys[-1], _fields(place))
    if kind == "missing":
        return key, "missing", "add it (params.yaml as published shows every key)"
    if kind == "union_tag_not_found":
        return f"{key}.kind", "missing", "add it (params.yaml as published shows every key)"
    if kind == "union_tag_invalid":
        tags = re.findall(r"'([^']+)'", error["ctx"]["expected_tags"])
        return f"{key}.kind", f"found {show(error['ctx']['tag'])}", allowed(error["ctx"]["tag"], tags)
    if keys and keys[-1] == "[key]":
        names = re.findall(r"'([^']+)'", error["msg"])
        found = keys[-2] if len(keys) > 1 else ""
        return ".".join(keys[:-1]), "unknown key", allowed(found, names) if names else "write it as text"
    found = f"found {show(error['input'], key)}"
    if kind in EXPECTED:
        return key, found, f"it must be {EXPECTED[kind]}"
    if kind == "literal_error":
        return key, found, allowed(error["input"], re.findall(r"'([^']+)'", error["msg"]) or [error["ctx"]["expected"]])
    said = one_line(error["msg"]).replace("Input should", "it must").replace("String should", "it must")
    return key, found, said + _upper_end(error["type"], keys[-1:], place)


def _upper_end(kind: str, last: list[str], place: Any) -> str:
    """The other end of the range, for a value below its lower end."""
    if kind not in ("greater_than", "greater_than_equal") or not isinstance(place, type) or not last:
        return ""
    field = place.model_fields.get(last[0]) if issubclass(place, BaseModel) else None
    ends = [getattr(each, "le", None) for each in (field.metadata if field else [])]
    return "".join(f" and at most {end}" for end in ends if end not in (None, LARGEST))


def _locate(annotation: Any, location: Sequence[int | str]) -> tuple[list[str], Any]:
    """The keys in pydantic's location, without the tags of unions, and the type that contains the last key."""
    keys: list[str] = []
    place = annotation
    for part in location:
        place, annotation, is_key = _step(annotation, str(part))
        if is_key:
            keys.append(str(part))
    return keys, place


def _step(annotation: Any, part: str) -> tuple[Any, Any, bool]:
    """One step down: the type before it, the type after it, and whether `part` is a key (else it is a union's tag)."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        tagged = [member for member in members if part in _tags(member)]
        if tagged:
            return annotation, tagged[0], False
        named = [member for member in members if isinstance(member, type) and member.__name__ == part]
        if named or part.startswith(("literal[", "list[")):
            return annotation, (named or members)[0], False
        return _step(members[0], part)
    if get_origin(annotation) is dict:
        return annotation, get_args(annotation)[1], True
    return annotation, _fields(annotation).get(part), True


def _fields(annotation: Any) -> dict[str, Any]:
    fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
    return {name: field.annotation for name, field in fields.items()}


def _tags(member: Any) -> tuple[Any, ...]:
    return get_args(_fields(member).get("kind"))
