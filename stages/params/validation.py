"""Strict models for params.yaml, and readable errors: the key, what was found, what is allowed."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.plumbing.errors import one_line

LONGEST_VALUE = 60
LARGEST = 2**31 - 1  # limit of every count
TABLE = "a table of keys (`key: value` lines)"
TYPES = {  # pydantic's kinds of errors are int_type, bool_type and so on
    "model": TABLE, "dict": TABLE, "list": "a list", "string": "text", "int": "a whole number", "float": "a number",
    "bool": "true or false",
}  # fmt: skip
RENAMED = {  # names of before 29 November 2026
    "gpus_per_unit": "gpus_per_trial", "row_format": "prompt_template",
    "query_tokens": "max_query_tokens", "response_tokens": "max_new_tokens",
    "gradient_clip": "max_grad_norm", "precision": "dtype", "decoding_precision": "decoding_dtype",
    "schedule": "lr_scheduler_type", "max_epochs": "num_train_epochs", "patience": "early_stopping_patience",
    "select_by": "metric_for_best_model", "decode_rows": "generation_batch_size", "initial": "init",
    "licence": "license",
}  # fmt: skip

Positive = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(gt=0, le=1)]  # also a learning rate, or a factor of one
Text = Annotated[str, Field(min_length=1)]


class Refused(ValueError):
    """A validator does not allow a value; `key` is relative to the validator's model."""

    def __init__(self, key: str, found: str, remedy: str) -> None:
        super().__init__(f"{key}: {found}; {remedy}")
        self.key, self.found, self.remedy = key, found, remedy


class Strict(BaseModel):
    """No unknown key, no silent conversion ("8" is not 8)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        """Before all other checks: a misspelt key is also missing under its right name, which is the same mistake."""
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                new = RENAMED.get(key)
                if new in cls.model_fields:
                    raise Refused(key, "an old name", f"write {new}")
                raise Refused(str(key), "unknown key", allowed(key, cls.model_fields))
        return value


def _name(name: str) -> str:
    if (other := re.sub(r"[.\[\]]+", "-", name).strip("-")) != name.strip("-"):
        raise Refused("", "DVC finds no name with a dot or a bracket in it", f"name it {other}")
    return name


def _unescaped(text: str) -> str:
    if found := re.search(r"\\[nt]", text):
        said = f"'{text}' has {found[0]} as two characters, where a line break or a tab is meant"
        raise Refused("", said, "write the text in params.yaml, between double quotes; or in bash: -S $'KEY=\"...\"'")
    return text


Name = Annotated[str, AfterValidator(_name)]  # of an entry
Spacing = Annotated[str, AfterValidator(_unescaped)]  # around or between texts; `-S` takes no escapes


def redact(text: str) -> str:
    """Make a text safe to show: replace user names, passwords and queries in URLs, and access tokens, by ***.

    And the folders of a source like file:~/corpora/mine, of which the last part stays.
    """
    text = re.sub(r"^('?file:).*/", r"\1***/", text)
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    text = re.sub(r"((?:https?://|url: /)[^\s?#'\"]*)([?#])[^\s'\"]+", r"\1\2***", text)
    return re.sub(r"\bhf_\w{8,}", "hf_***", text)


def show(value: object) -> str:
    """A value for a message: short, and without secrets."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        kind, unit = ("table", "keys") if isinstance(value, dict) else ("list", "entries")
        return f"a {kind} of {len(value)} {unit}" if value else f"an empty {kind}"
    text = redact(repr(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}… ({len(text)} characters)"


def allowed(found: object, names: Iterable[str]) -> str:
    """Advice for a wrong name: the closest allowed name, and all allowed names."""
    names = list(names)
    near = difflib.get_close_matches(str(found), names, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {', '.join(names)}"


def explain(content: Any, error: ValidationError) -> tuple[str, str, str]:
    """The first of pydantic's errors about the content of a file: key ("": the file), what was found, what to do."""
    places: dict[tuple[str, ...], list[Any]] = {}
    for each in error.errors():
        places.setdefault(tuple(_keys(content, each["loc"])), []).append(each)
    (keys, members), *rest = places.items()
    others = [place for place, _ in rest if keys[: len(place)] != place]  # not what else might stand in its place
    # Where a word or something else may stand there is an error for both: for text, it is the word that was meant.
    words = [each for each in members if each["type"] == "literal_error" and isinstance(each["input"], str)]
    meant = next(iter([*words, *(each for each in members if each["type"] != "literal_error"), *members]))
    key, found, remedy = _words(meant, keys)
    return key, found, remedy + (f" (and {len(others)} more)" if others else "")


def _keys(content: Any, location: Sequence[int | str]) -> list[str]:
    """The keys in pydantic's location, which also names the members of unions; those are in no file."""
    keys = []
    for part in location:
        below = {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
        if str(part) in below:
            content = below[str(part)]
            keys.append(str(part))
    return keys


def _words(error: Any, keys: Sequence[str]) -> tuple[str, str, str]:
    key, kind, context = ".".join(keys), error["type"], error.get("ctx", {})
    if isinstance(refused := context.get("error"), Refused):
        return ".".join(filter(None, (key, refused.key))), refused.found, refused.remedy
    if kind in ("missing", "union_tag_not_found"):
        name = error["loc"][-1] if kind == "missing" else "kind"
        return ".".join([*keys, str(name)]), "missing", "add it (params.yaml as published shows every key)"
    expected = context.get("expected_tags") or context.get("expected", "")  # 'a', 'b' or 'c'
    names = re.findall(r"'([^']+)'", expected)
    if kind == "union_tag_invalid":
        return f"{key}.kind", f"found {show(context['tag'])}", allowed(context["tag"], names)
    if error["loc"][-1:] == ("[key]",):
        return key, "unknown key", "write it as text"
    found, word = f"found {show(error['input'])}", kind.partition("_")[0]
    if kind == "literal_error":
        return key, found, allowed(error["input"], names or [expected])
    if kind.endswith(("_type", "_from_float")) and word in TYPES:
        return key, found, f"it must be {TYPES[word]}"
    return key, found, re.sub("^(Input|String|List|Value) should", "it must", one_line(error["msg"]))
