"""Files that hold what the report shows of runs, small enough for Git: whoever has no experiments makes it from them.

A file holds the runs of a setting, with the texts that they share, once compressed, taking room once.
"""

import json
import lzma
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stages.params.validation import redact
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes, write_json
from stages.report.markdown import slug
from stages.report.runs import RESPONSES, SWITCHES, Absent, Collection, Run, as_allowed_now, with_unique_names
from stages.report.settings import settings_of

CHOICES = ("dataset", "model", "method", "protocol")  # each names an entry of a table
KEPT, ABSENT = ".json.xz", "absent.json"  # files of kept runs, and of those that are not in the tables
MOST = 3_000_000  # bytes that a repository should have of them


def keep(collection: Collection, folder: Path, private: Set[str] = frozenset()) -> None:
    """Add the runs that the report shows to those in a folder.

    Of one configuration and seed that with the most learning rates stays, else one with its answers (a clone without
    DVC's cache has none), else the new one. Of a corpus that may not be quoted, or is `private` now, only a hash of the
    responses is written; of parameters no folder and no secret.

    Raises:
        StageError: they would be too large, or a file there is damaged; nothing is written.
    """
    settings, repeated = settings_of(collection.runs)
    shown = [run for setting in settings for _, run in setting.all_runs]
    earlier = (as_allowed_now(run, private) for run in _runs(folder))
    found = sorted(map(_public, (*shown, *earlier)), key=lambda run: RESPONSES not in run.files)
    merged = with_unique_names([run for setting in settings_of(found)[0] for _, run in setting.all_runs])
    contents = {}
    for setting in settings_of(merged)[0]:
        records = [
            {"facts": {key: each for key, each in vars(run).items() if key != "files"}, "files": run.files}
            for _, run in setting.all_runs
        ]
        contents[folder / f"{slug(setting.title)}{KEPT}"] = lzma.compress(json.dumps(records).encode(), preset=9)
    size = sum(map(len, contents.values()))
    if size > MOST:
        said = f"{size / 1e6:.1f} MB with these runs, more than {MOST / 1e6:g}"
        raise StageError(folder, said, "remove a file there")
    write_bytes(folder / "README.md", _page(merged).encode())
    write_json(folder / ABSENT, [asdict(each) for each in (*collection.absent, *repeated)])
    for path, compressed in contents.items():
        write_bytes(path, compressed)
    for path in set(folder.glob(f"*{KEPT}")) - contents.keys():
        path.unlink()
    print(f"{folder}: {len(merged)} runs, {len(shown)} of them new, {size / 1e6:.2f} MB")


def kept(folder: Path) -> Collection:
    """The runs that `keep` wrote into a folder.

    Raises:
        OSError: there are none.
        StageError: a file is damaged.
    """
    absent = tuple(Absent(**each) for each in json.loads((folder / ABSENT).read_bytes()))
    return Collection(tuple(_runs(folder)), absent)


def _runs(folder: Path) -> Iterator[Run]:
    for path in sorted(folder.glob(f"*{KEPT}")):
        try:
            records = json.loads(lzma.decompress(path.read_bytes()))
        except (lzma.LZMAError, ValueError) as error:
            raise StageError(path, f"damaged ({error})", "take it from Git again") from None
        yield from (Run(**record["facts"], files=record["files"]) for record in records)


def _public(run: Run) -> Run:
    """A run with the parameters that the report needs, redacted, and without texts of a corpus that has no `quote`."""
    params = {name: run.params.get(name) for name in (*SWITCHES, "pairs", "relevance")}
    if passage := run.params.get("forgetting"):
        params["forgetting"] = {**passage, "text": Path(passage["text"]).name}
    params |= {f"{switch}s": {run.params[switch]: run.entry(switch)} for switch in CHOICES}
    private = [] if run.entry("dataset").get("quote") else [RESPONSES]
    files = {path: content for path, content in run.files.items() if path not in private}
    return replace(run, params=_redacted(params), files=files)


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(each) for key, each in value.items()}
    return redact(value) if isinstance(value, str) else value


def _page(runs: Sequence[Run]) -> str:
    """Whose texts are in kept runs: each corpus that may be quoted, its source and its license."""
    named = {run.params["dataset"]: run.entry("dataset") for run in runs if run.entry("dataset").get("quote")}
    told = (f"- {key}: `{redact(each['source'])}`, license: {each.get('license')}" for key, each in named.items())
    texts = "\n".join(sorted(told)) or "- none"
    return f"What `python -m stages.report --keep` kept of runs. It has the test pairs of these corpora:\n\n{texts}\n"
