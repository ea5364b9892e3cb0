"""The entries of `datasets` and `models` in params.yaml: where files come from; every file must be pinned."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stages.params.validation import Refused, Strict, redact

License = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")
]  # an SPDX identifier, such as MIT or CC-BY-NC-SA-4.0
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
GRAMMAR: dict[str, tuple[str, str]] = {
    "pypi": (rf"(?P<place>{NAME})==(?P<revision>[0-9][\w.!+-]*)", "pypi:NAME==VERSION, an exact version"),
    "hub": (
        rf"(?P<place>(?:datasets/)?{NAME}/{NAME})@(?P<revision>{NAME}(?:/{NAME})*)",
        "hub:OWNER/NAME@REVISION or hub:datasets/OWNER/NAME@REVISION",
    ),
    "url": (r"(?P<place>https?://[^\s/@]+(?:/\S*)?)(?P<revision>)", "url:https://HOST/PATH, without a password"),
    "file": (r"(?P<place>[^\0\r\n]*\S)(?P<revision>)", "file:FOLDER"),
}
COMMIT = re.compile(r"[0-9a-f]{40}")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".joblib", ".npy", ".npz")
MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
VOCABULARIES = ("tokenizer.json", "tekken.json", "*.model", "vocab*")  # without one of these it would know no word
SUFFIXES = {"chitchat": ".json", "eou": ".txt", "jsonl": ".jsonl", "parquet": ".parquet"}  # of corpora, by format
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
        Refused: it has none of the four forms in `GRAMMAR`.
    """
    kind, _, rest = text.partition(":")
    if kind not in GRAMMAR:
        forms = ", ".join(form for _, form in GRAMMAR.values())
        raise Refused("source", f"found {redact(text)!r}", f"it must be one of {forms}")
    pattern, form = GRAMMAR[kind]
    match = re.fullmatch(pattern, rest, flags=re.ASCII if kind != "file" else 0)
    if match is None:
        raise Refused("source", f"found {redact(text)!r}", f"it must be {form}")
    return Source(kind, match["place"], match["revision"])


def check_path(key: str, path: str) -> None:
    """Refuse a path that could lead out of its folder.

    Raises:
        Refused: it is empty, absolute, has a part `..`, a backslash or a NUL.
    """
    parts = path.split("/")
    if path.startswith("/") or not all(parts) or {".", ".."} & set(parts) or re.search(r"[\\\0]", path):
        raise Refused(key, f"found {path!r}", "use a path inside the source: no leading /, no .., no empty part")


class SourceFile(Strict):
    """One file of a source; see the comment above `datasets` in params.yaml."""

    path: str | None = None
    member: str | None = None
    sha256: Sha256 | None = None
    member_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> Self:
        for key in ("path", "member"):
            if getattr(self, key) is not None:
                check_path(key, getattr(self, key))
        if self.member_sha256 and not self.member:
            raise Refused("member_sha256", "there is no member", "add member, or use sha256 for the whole file")
        return self


class Split(Strict):
    """Dialogues set aside from a corpus that has no split of its own."""

    validation: Annotated[int, Field(gt=0)]
    test: Annotated[int, Field(gt=0)]
    seed: int


def check_files(source: Source, files: Iterable[tuple[str, SourceFile]], names_are_paths: bool) -> None:
    """Refuse files that are not pinned or that do not say where they are in the source.

    Args:
        source: where they come from.
        files: their keys in the entry (`files.NAME`) and what stands there.
        names_are_paths: the name of a file without `path` is its path in the source.

    Raises:
        Refused: a file is wrong; the error names its key.
    """
    for key, file in files:
        _check_pinned(source, key, file)
        if source.kind == "pypi":
            if file.path is not None:
                raise Refused(f"{key}.path", "a wheel has no path", "use member for a file inside it")
            if file.member is None:
                raise Refused(f"{key}.member", "missing", "name the file inside the wheel")
        elif source.kind in ("hub", "file") and file.path is None and not names_are_paths:
            raise Refused(f"{key}.path", "missing", "name the file inside the source")


def _check_pinned(source: Source, key: str, file: SourceFile) -> None:
    if source.kind == "hub":
        if not COMMIT.fullmatch(source.revision) and not (file.sha256 or file.member_sha256):
            found = f"missing, and revision {source.revision!r} can change"
            raise Refused(f"{key}.sha256", found, "add it (or member_sha256), or use the 40 hex digits of a commit")
    elif file.sha256 is None:
        how = f"`sha256sum {source.place}/{file.path or key.removeprefix('files.')}` prints it"
        raise Refused(
            f"{key}.sha256", "missing", "add it" + (f": {how}" if source.kind == "file" else ", so that it is pinned")
        )


class PromptTemplateText(Strict):
    """The text around query and response in the model's input; see stages/language_model/prompt_template.py."""

    prefix: str = ""
    separator: str
    end: Annotated[str, Field(min_length=1)]


def as_json(prompt_template: PromptTemplateText | str) -> dict[str, str] | str:
    """A prompt template in the form that JSON files have."""
    return prompt_template if isinstance(prompt_template, str) else prompt_template.model_dump()


def _keys(files: Mapping[Any, SourceFile]) -> list[tuple[str, SourceFile]]:
    return [(f"files.{name}", file) for name, file in files.items()]


class ReferencesFile(SourceFile):
    """The file of further references to the test pairs; stages/pair_extract/references.py says what is in it."""

    source: str | None = None  # None: the corpus's own


class Dataset(Strict):
    """A corpus of dialogues."""

    format: Literal["chitchat", "eou", "jsonl", "parquet"]
    source: str
    files: dict[Literal["train", "validation", "test", "all"], SourceFile]
    split: Split | None = None
    license: License | None = None  # for the model card of an export
    messages: Literal["one", "joined"] | None = None  # not for eou; must be there for chitchat; see params.yaml
    references: ReferencesFile | None = None

    def file_name(self, split: str) -> str:
        """Name of a corpus file in the download stage's folder: its split, with the suffix of the format."""
        return split + SUFFIXES[self.format]

    @property
    def references_name(self) -> str:
        """Name of the file of further references in the folder of the download stage."""
        return "references.jsonl"

    @model_validator(mode="after")
    def _pinned_and_split_one_way(self) -> Self:
        check_files(parse_source(self.source), _keys(self.files), names_are_paths=False)
        names = set(self.files)
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

    @model_validator(mode="after")
    def _references_pinned(self) -> Self:
        if self.references is not None:
            try:
                source = parse_source(self.references.source or self.source)
            except Refused as refused:
                raise Refused(f"references.{refused.key}", refused.found, refused.remedy) from None
            check_files(source, [("references", self.references)], names_are_paths=False)
        return self


class Model(Strict):
    """A pre-trained causal language model: safetensors with its configuration and tokenizer, or one GGUF file."""

    format: Literal["safetensors", "gguf"]
    source: str
    files: dict[str, SourceFile]
    license: License | None = None  # for the model card of an export
    prompt_template: PromptTemplateText | Literal["chat-template"]

    @model_validator(mode="after")
    def _pinned_and_safe(self) -> Self:
        check_files(parse_source(self.source), _keys(self.files), names_are_paths=True)
        for name, file in self.files.items():
            self._check_name(name, name)
            self._check_name(name, file.member or file.path or name)
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

    def _check_name(self, key: str, name: str) -> None:
        subject, suffix = f"files.{key}", PurePosixPath(name).suffix.lower()
        if name == key and ("/" in name or name.lower() in RESERVED):
            raise Refused(subject, f"{name!r} is not a name for a model's file", "use a plain file name")
        check_path(subject, name)
        if suffix in PICKLES:
            found = f"{name!r} can hold a pickle, which can run code when it is loaded"
            raise Refused(subject, found, "use this model's model.safetensors, or a GGUF file")
        suffixes = (".gguf",) if self.format == "gguf" else MODEL_SUFFIXES
        if suffix not in suffixes:
            raise Refused(subject, f"{name!r} does not fit format {self.format}", f"allowed: {', '.join(suffixes)}")
