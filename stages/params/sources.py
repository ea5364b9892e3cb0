"""The entries of `datasets` and `models` in params.yaml: where files come from; every file must be pinned."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stages.params.validation import Refused, Spacing, Strict, allowed, redact

License = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")]  # an SPDX identifier: CC-BY-NC-SA-4.0
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

NAME = "[A-Za-z0-9](?:[A-Za-z0-9_.+!-]*[A-Za-z0-9])?"  # never an option of pip, never `..`
ADDRESS = r"https?://[^/@\s#?]+(?:/[^\s#?]*)?"
FORMS = {  # kind -> how to write it, and the patterns of its place and its revision
    "pypi": ("pypi:NAME==VERSION (an exact version)", rf"({NAME})==({NAME})"),
    "hub": (
        "hub:OWNER/NAME@REVISION or hub:datasets/OWNER/NAME@REVISION",
        rf"((?:datasets/|(?!datasets/)){NAME}/{NAME})@({NAME}(?:/{NAME})*)",
    ),
    "url": ("url:https://HOST/PATH (no password, query or #: they may let others in)", rf"({ADDRESS})()"),
    "url-with-query": ("url-with-query:https://HOST/PATH?QUERY (if all may use it)", rf"({ADDRESS}(?:\?[^\s#]*)?)()"),
    "file": ("file:FOLDER", r"(?=.*\S)([^\0\r\n]+)()"),
}
COMMIT = re.compile(r"[0-9a-f]{40}")
MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
VOCABULARIES = ("tokenizer.json", "tekken.json", "*.model", "vocab*")  # without one of these it would know no word
END_OF_TEXT = "<end-of-text>"  # in a prompt template: the model's end-of-text token, whatever its name
CHAT_TEMPLATE = "chat-template"  # as a prompt template: the tokenizer's chat template
RESERVED = ("manifest.json", "adapter_config.json")  # our own; transformers would fetch the model named in the other


@dataclass(frozen=True)
class Source:
    """A parsed source: `hub:datasets/roskoN/dailydialog@main` has the place `datasets/roskoN/dailydialog`."""

    kind: str
    place: str
    revision: str


def parse_source(text: str) -> Source:
    """Split a source into its parts.

    Raises:
        Refused: it has none of the forms in `FORMS`.
    """
    kind, _, rest = text.partition(":")
    if kind in FORMS and (found := re.fullmatch(FORMS[kind][1], rest)):
        return Source(kind, *found.groups())
    forms = [form for each, (form, _) in FORMS.items() if each.startswith(kind)] or [form for form, _ in FORMS.values()]
    raise Refused("", f"found {redact(text)!r}", f"it must be {' or '.join(forms)}")


def _inside(path: str) -> str:
    parts = path.split("/")
    if not all(parts) or {".", ".."} & set(parts) or re.search(r"[\\\0]", path):
        raise Refused("", f"found {path!r}", "use a path inside the source: no leading /, no .., no empty part")
    return path


SourceText = Annotated[str, AfterValidator(lambda text: parse_source(text) and text)]
Inside = Annotated[str, AfterValidator(_inside)]


class SourceFile(Strict):
    """One file of a source; see the comment above `datasets` in params.yaml."""

    source: SourceText | None = None  # None: the entry's own
    path: Inside | None = None
    member: Inside | None = None
    sha256: Sha256 | None = None
    member_sha256: Sha256 | None = None

    def check(self, source: Source, key: str, name: str | None) -> None:
        """Refuse a file that is not pinned, or that does not say where it is in its source.

        key: its key in the entry (`files.NAME`). name: its path in the source if `path` does not say it.
        """
        path = self.path or name
        if not (self.sha256 or (source.kind == "hub" and (self.member_sha256 or COMMIT.fullmatch(source.revision)))):
            remedies = {
                "hub": f"add it (or member_sha256), or name a commit by 40 hex digits: {source.revision!r} can change",
                "file": f"add it: `sha256sum {source.place}/{path or ''}` prints it",
            }
            raise Refused(f"{key}.sha256", "missing", remedies.get(source.kind, "add it, so that it is pinned"))
        if source.kind == "url-with-query" and "?" in source.place and self.path is not None:
            remedy = "write the whole address as the source"
            raise Refused(f"{key}.path", "given beside an address with a query", remedy)
        if source.kind == "pypi" and self.path is not None:
            raise Refused(f"{key}.path", "a wheel has no path", "use member for a file inside it")
        if source.kind == "pypi" and self.member is None:
            raise Refused(f"{key}.member", "missing", "name the file inside the wheel")
        if source.kind in ("hub", "file") and path is None:
            raise Refused(f"{key}.path", "missing", "name the file inside the source")
        if self.member_sha256 and not self.member:
            found, remedy = "there is no member", "add member, or use sha256 for the whole file"
            raise Refused(f"{key}.member_sha256", found, remedy)


class Split(Strict):
    """Dialogues set aside from a corpus that has no split of its own."""

    validation: Annotated[float, Field(gt=0)]  # so many dialogues; below 1: this part of all, at least one
    test: Annotated[float, Field(gt=0)]
    seed: int

    def number(self, name: str, whole: int) -> int:
        """How many of `whole` dialogues to set aside."""
        size: float = getattr(self, name)
        return int(size) if size >= 1 else max(1, round(size * whole))

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        for name in ("validation", "test"):
            if (size := getattr(self, name)) > 1 and size % 1:
                raise Refused(name, f"found {size}", "write a whole number of dialogues, or a part of all, below 1")
        if max(self.validation, self.test) < 1 <= self.validation + self.test:
            raise Refused("", f"found {self.validation} + {self.test}", "leave a part of the dialogues for training")
        return self


class PromptTemplateText(Strict):
    """The text around query and response in the model's input; see stages/language_model/prompt_template.py."""

    prefix: Spacing = ""
    separator: Spacing
    end: Annotated[Spacing, Field(min_length=1)]


def as_json(prompt_template: PromptTemplateText | str) -> dict[str, str] | str:
    """A prompt template in the form that JSON files have."""
    return prompt_template if isinstance(prompt_template, str) else prompt_template.model_dump()


Format = Literal["chitchat", "eou", "jsonl", "parquet"]
# The file of a split is `train`; several are train-0, train-1, ..., each with a pin of its own.
CORPUS_FILE = re.compile(r"(train|validation|test|all)(-[\w-]+)?|references", re.ASCII)


class Dataset(Strict):
    """A corpus of dialogues."""

    format: Format
    source: SourceText
    files: dict[str, SourceFile]
    split: Split | None = None
    license: License | None = None  # for the model card of an export
    quote: bool = False  # whether files that Git tracks may have dialogues: the report a few, kept runs the test pairs
    messages: Literal["one", "joined"] | None = None  # not for eou; must be there for chitchat; see params.yaml
    max_bad_rows: Annotated[float, Field(ge=0, le=1)] = 0.01  # part of the rows that may be no dialogue; left out

    def names_of(self, split: str) -> list[str]:
        """The names of a split's files."""
        return sorted(name for name in self.files if name.partition("-")[0] == split)

    def file_name(self, name: str) -> str:
        """Name of a file in the folder of the download stage: its name in `files` with its suffix at the source.

        It has nothing of `format`, so that a change of that needs no download.
        """
        file = self.files[name]
        at_source = file.member or file.path or parse_source(file.source or self.source).place.partition("?")[0]
        suffix = re.search(r"(\.\w+(\.gz)?)?$", at_source)
        return name + (suffix[0] if suffix else "")

    @model_validator(mode="after")
    def _pinned_and_split_one_way(self) -> Self:
        names = {name.partition("-")[0] for name in self.files} - {"references"}
        for name, file in self.files.items():
            if not CORPUS_FILE.fullmatch(name):
                several = ("train", "validation", "test", "all", "references; several files of one: train-0, train-1")
                raise Refused(f"files.{name}", "unknown key", allowed(name, several))
            if "*" in (file.path or ""):
                remedy = f"name each file, with a pin of its own: files.{name}-0, files.{name}-1, ..."
                raise Refused(f"files.{name}.path", f"found {file.path!r}", remedy)
            file.check(parse_source(file.source or self.source), f"files.{name}", None)
        if names == {"all"}:
            if self.split is None:
                raise Refused("split", "missing", "files has only `all`: say how many dialogues to set aside")
        elif names != {"train", "validation", "test"}:
            found = f"found {', '.join(sorted(names))}"
            raise Refused("files", found, "it must be train, validation and test, or all with split")
        elif self.split is not None:
            raise Refused("split", "the files are already split", "remove it")
        if self.messages is None and self.format == "chitchat":
            raise Refused("messages", "missing", "set it to one or joined")
        if self.messages is not None and self.format == "eou":
            raise Refused("messages", "not used with format eou", "remove it")
        return self


class Model(Strict):
    """A pre-trained causal language model: safetensors with its configuration and tokenizer, or one GGUF file."""

    format: Literal["safetensors", "gguf"]
    source: SourceText
    files: dict[str, SourceFile]
    license: License | None = None  # for the model card of an export
    prompt_template: PromptTemplateText | Literal["chat-template"]

    @model_validator(mode="after")
    def _pinned_and_safe(self) -> Self:
        suffixes = (".gguf",) if self.format == "gguf" else MODEL_SUFFIXES
        for name, file in self.files.items():
            if "/" in name or name.lower() in RESERVED:
                raise Refused(f"files.{name}", f"{name!r} is not a name for a model's file", "use a plain file name")
            source = parse_source(file.source or self.source)
            file.check(source, f"files.{name}", name)
            whole = source.kind.startswith("url") and not (file.source or file.path or file.member)
            if whole and len(self.files) > 1:
                raise Refused(f"files.{name}.path", "missing", "name the file below the address")
            for path in (name, file.member or file.path or name):
                if not path.lower().endswith(suffixes):
                    found = f"{path!r} does not fit format {self.format}: others can hold a pickle, which can run code"
                    remedy = f"allowed: {', '.join(suffixes)}; weights as model.safetensors or in a GGUF file"
                    raise Refused(f"files.{name}", found, remedy)
        names = set(self.files)
        if self.format == "safetensors":
            missing = [name for name in ("config.json", "model.safetensors") if name not in names]
            if missing and not ("config.json" in names and "model.safetensors.index.json" in names):
                raise Refused(f"files.{missing[0]}", "missing", "a safetensors model needs it")
            if not any(fnmatch(name, pattern) for name in names for pattern in VOCABULARIES):
                raise Refused("files", "no file of the tokenizer", "add tokenizer.json, and tokenizer_config.json")
        elif len(names) != 1:
            raise Refused("files", f"found {len(names)}", "a GGUF model is one file")
        return self
