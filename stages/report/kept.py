"""Files that hold what the report shows of runs, small enough for Git: whoever has no experiments makes it from them.

A file holds the runs of a setting, with the texts that they share, once compressed, taking room once.
"""

import hashlib
import json
import lzma
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from stages.params.validation import redact
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes, write_json
from stages.records import Response
from stages.report.markdown import slug
from stages.report.results import Record, Revision
from stages.report.runs import RESPONSES, SWITCHES, Absent, Collection, Run, with_unique_names
from stages.report.settings import configuration_of, settings_of

CHOICES = ("dataset", "model", "method", "protocol")  # each names an entry of a table
METRICS = ("learning_rates", "curves", "train", "cost/train", "cost/greedy_generate")  # files of metrics/
KEPT, ABSENT = ".json.xz", "absent.json"  # files of kept runs, and of those that are not in the tables
MOST = 3_000_000  # bytes that a repository should have of them


class KeptFiles(Revision):
    """The files of a run that was kept: the content of JSON files, and the columns of records."""

    def __init__(self, commit: str, files: dict[str, Any]) -> None:
        super().__init__(Path(), commit)
        self.content, self._parsed = files, dict(files)

    def read(self, path: str) -> bytes | None:
        """No other file was kept."""
        return None

    def records(self, path: str, kind: type[Record]) -> list[Record] | None:
        """The records of a file; None if they were not kept."""
        columns = self._parsed.get(path)
        return columns and [kind(*each) for each in zip(*columns.values(), strict=True)]


def keep(collection: Collection, folder: Path) -> None:
    """Add the runs that the report shows to those in a folder; one of the same configuration and seed is replaced.

    Where the corpus may not be quoted, of the responses only a hash is written; of parameters no folder and no secret.

    Raises:
        StageError: they would be too large, or a file there is damaged; nothing is written.
    """
    settings, repeated = settings_of(collection.runs)
    records = [_as_record(run) for each in settings for _, run in each.all_runs]
    new = {configuration_of(run): record for record in records for run in [_as_run(record)]}
    earlier = {configuration_of(_as_run(record)): record for record in _records(folder)}
    merged = with_unique_names([_as_run(record) for record in (earlier | new).values()])
    contents = {}
    for setting in settings_of(merged)[0]:
        content = json.dumps([_as_record(run) for _, run in setting.all_runs])
        contents[folder / f"{slug(setting.title)}{KEPT}"] = lzma.compress(content.encode(), preset=9)
    size = sum(map(len, contents.values()))
    if size > MOST:
        raise StageError(
            folder, f"{size / 1e6:.1f} MB with these runs, more than {MOST / 1e6:g}", "remove a file there"
        )
    write_bytes(folder / "README.md", page(merged).encode())
    write_json(folder / ABSENT, [asdict(each) for each in (*collection.absent, *repeated)])
    for path, compressed in contents.items():
        write_bytes(path, compressed)
    for path in set(folder.glob(f"*{KEPT}")) - contents.keys():
        path.unlink()
    print(f"{folder}: {len(merged)} runs, {len(new)} of them new, {size / 1e6:.2f} MB")


def page(runs: Iterable[Run]) -> str:
    """Whose texts are in kept runs: each corpus that may be quoted, its source and its license."""
    named = {str(run.switch("dataset")): run.entry("dataset") for run in runs if run.entry("dataset").get("quote")}
    told = (f"- {key}: `{redact(each['source'])}`, license: {each.get('license')}" for key, each in named.items())
    texts = "\n".join(sorted(told)) or "- none"
    return f"What `python -m stages.report --keep` kept of runs. It has the test pairs of these corpora:\n\n{texts}\n"


def kept(folder: Path) -> Collection:
    """The runs that `keep` wrote into a folder.

    Raises:
        StageError: there are none, or a file is damaged.
    """
    if not (folder / ABSENT).exists():
        raise StageError(folder, "no runs that --keep wrote", "name the folder that it wrote")
    absent = tuple(Absent(**each) for each in json.loads((folder / ABSENT).read_bytes()))
    return Collection(tuple(map(_as_run, _records(folder))), absent)


def _records(folder: Path) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for path in sorted(folder.glob(f"*{KEPT}")):
        try:
            found += json.loads(lzma.decompress(path.read_bytes()))
        except (lzma.LZMAError, ValueError) as error:
            raise StageError(path, f"damaged ({error})", "take it from Git again") from None
    return found


def _as_run(record: dict[str, Any]) -> Run:
    return Run(**record["facts"], files=KeptFiles(record["facts"]["commit"], record["files"]))


def _as_record(run: Run) -> dict[str, Any]:
    """A run as it is written, or as it was read."""
    facts = {"name": run.name, "commit": run.commit, "baseline": run.baseline, "scores": run.scores}
    params = {name: run.params.get(name) for name in (*SWITCHES, "pairs", "relevance")}
    if passage := run.params.get("forgetting"):
        params["forgetting"] = {**passage, "text": Path(passage["text"]).name}
    params |= {f"{switch}s": {run.params[switch]: run.entry(switch)} for switch in CHOICES}
    files = run.files.content if isinstance(run.files, KeptFiles) else _files_of(run)
    return {"facts": facts | {"params": _public(params)}, "files": files}


def _files_of(run: Run) -> dict[str, Any]:
    """The JSON files of a run, and its responses if they may be quoted; a hash for whoever has them."""
    files = {f"metrics/{name}.json": run.files.json(f"metrics/{name}.json") for name in METRICS}
    if run.entry("dataset").get("quote") and (responses := run.files.records(RESPONSES, Response)):
        names = [field.name for field in fields(Response)]
        files[RESPONSES] = {name: [getattr(each, name) for each in responses] for name in names}
    return files | {f"{RESPONSES}.sha256": hashlib.sha256(run.files.read(RESPONSES) or b"").hexdigest()}


def _public(value: Any) -> Any:
    """Parameters without what nobody else should see."""
    if isinstance(value, dict):
        return {key: _public(each) for key, each in value.items()}
    return redact(value) if isinstance(value, str) else value
