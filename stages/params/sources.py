"""The entries of `datasets` and `models` in params.yaml: where files come from; every file must be pinned."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from stages.params.validation import Refused, Spacing, Strict, allowed, redact, text_or_other

License = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")]  # an SPDX identifier: CC-BY-NC-SA-4.0
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

NAME = re.compile(r"[A-Za-z0-9](?:[\w.+!-]*[A-Za-z0-9])?", re.ASCII)  # never an option of pip, never `..`
FORMS = {
    "pypi": "pypi:NAME==VERSION, an exact version",
    "hub": "hub:OWNER/NAME@REVISION or hub:datasets/OWNER/NAME@REVISION",
    "url": "url:https://HOST/PATH, without a password and without #",
    "file": "file:FOLDER",
}
QUERY = "url-with-query"  # an address as in `url:`, for those who know that its query is no secret
COMMIT = re.compile(r"[0-9a-f]{40}")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".joblib", ".npy", ".npz")
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
    kind, _, place = text.partition(":")
    if kind not in (*FORMS, QUERY):
        raise Refused("", f"found {redact(text)!r}", f"it must be one of {', '.join(FORMS.values())}")
    revision = ""
    if kind == "pypi":
        place, _, revision = place.partition("==")
        fits = all(map(NAME.fullmatch, (place, revision)))
    elif kind == "hub":
        place, _, revision = place.partition("@")
        names = place.removeprefix("datasets/").split("/")
        fits = len(names) == 2 and all(map(NAME.fullmatch, names + revision.split("/")))
    elif kind in ("url", QUERY):
        host = place.partition("://")[2].partition("/")[0]
        web = place.startswith(("https://", "http://")) and len(place.split()) == 1 and "#" not in place
        fits = web and host != "" and "@" not in host
        if fits and kind == "url" and "?" in place:
            found = f"found {redact(text)!r}: its query may let others in, and params.yaml is published"
            raise Refused("", found, f"leave the query out, or write {QUERY}: in place of url:")
        kind = "url"
    else:
        fits = place.strip() != "" and not re.search(r"[\0\r\n]", place)
    if not fits:
        raise Refused("", f"found {redact(text)!r}", f"it must be {FORMS[kind]}")
    return Source(kind, place, revision)


def inside(path: str) -> str:
    """The same path, if it cannot lead out of its folder.

    Raises:
        Refused: it is empty, absolute, has a part `..`, a backslash or a NUL.
    """
    parts = path.split("/")
    if not all(parts) or {".", ".."} & set(parts) or re.search(r"[\\\0]", path):
        raise Refused("", f"found {path!r}", "use a path inside the source: no leading /, no .., no empty part")
    return path


SourceText = Annotated[str, AfterValidator(lambda text: parse_source(text) and text)]
Inside = Annotated[str, AfterValidator(inside)]


class SourceFile(Strict):
    """One file of a source; see the comment above `datasets` in params.yaml."""

    source: SourceText | None = None  # None: the entry's own
    path: Inside | None = None
    member: Inside | None = None
    sha256: Sha256 | None = None
    member_sha256: Sha256 | None = None

    def check(self, source: Source, key: str, name: str | None) -> None:
        """Refuse a file that is not pinned, or that does not say where it is in its source.

        Args:
            source: where it comes from.
            key: its key in the entry (`files.NAME`).
            name: its path in the source if `path` does not say it.

        Raises:
            Refused: it is wrong; the error names its key.
        """
        pinned = self.sha256 or (source.kind == "hub" and (self.member_sha256 or COMMIT.fullmatch(source.revision)))
        if not pinned and source.kind == "hub":
            found = f"missing, and revision {source.revision!r} can change"
            raise Refused(f"{key}.sha256", found, "add it (or member_sha256), or use the 40 hex digits of a commit")
        path = self.path or name
        if not pinned:
            how = f": `sha256sum {source.place}/{path or ''}` prints it" if source.kind == "file" else ""
            raise Refused(f"{key}.sha256", "missing", f"add it{how or ', so that it is pinned'}")
        if source.kind == "url" and "?" in source.place and self.path is not None:
            raise Refused(
                f"{key}.path", "given beside an address with a query", "write the whole address as the source"
            )
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
    prompt_template: Annotated[
        Annotated[PromptTemplateText, Tag("other")] | Annotated[Literal["chat-template"], Tag("text")],
        Discriminator(text_or_other),
    ]

    @model_validator(mode="after")
    def _pinned_and_safe(self) -> Self:
        for name, file in self.files.items():
            if "/" in name or name.lower() in RESERVED:
                raise Refused(f"files.{name}", f"{name!r} is not a name for a model's file", "use a plain file name")
            file.check(parse_source(file.source or self.source), f"files.{name}", name)
            for path in (name, file.member or file.path or name):
                self._check_suffix(f"files.{name}", path)
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

    def _check_suffix(self, key: str, path: str) -> None:
        suffix, suffixes = PurePosixPath(path).suffix.lower(), (".gguf",) if self.format == "gguf" else MODEL_SUFFIXES
        if suffix in PICKLES:
            found = f"{path!r} can hold a pickle, which can run code when it is loaded"
            raise Refused(key, found, "use this model's model.safetensors, or a GGUF file")
        if suffix not in suffixes:
            raise Refused(key, f"{path!r} does not fit format {self.format}", f"allowed: {', '.join(suffixes)}")
