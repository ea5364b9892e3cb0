"""A file that holds what the report shows of runs, small enough for Git: whoever has no experiments makes it from that.

The texts that runs share take room once, since it is compressed.
"""

import json
import lzma
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.params.validation import redact
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes
from stages.report.runs import RESPONSES, SWITCHES, Run, as_allowed_now, with_unique_names
from stages.report.settings import settings_of

CHOICES = ("dataset", "model", "method", "protocol")  # each names an entry of a table
FILE = "runs.json.xz"
MOST = 3_000_000  # bytes that a repository should have of them


def keep(runs: Sequence[Run], folder: Path, quotable: Set[str]) -> None:
    """Add the runs that the report shows to those in a folder.

    Of one configuration and seed the run that the report shows stays; of equals the new one. Of a corpus that may not
    be quoted, or is not `quotable` now, no responses are written; of parameters no folder and no secret.

    Raises:
        StageError: they would be too large, or the file there is damaged; nothing is written.
    """
    settings, _ = settings_of(runs)
    shown = [run for setting in settings for _, run in setting.all_runs]
    earlier = [as_allowed_now(run, quotable) for run in kept(folder)] if (folder / FILE).exists() else []
    found = list(map(_public, (*shown, *earlier)))
    merged = with_unique_names([run for setting in settings_of(found)[0] for _, run in setting.all_runs])
    compressed = lzma.compress(json.dumps(list(map(vars, merged))).encode(), preset=9)
    if len(compressed) > MOST:
        said = f"{len(compressed) / 1e6:.1f} MB with these runs, more than {MOST / 1e6:g}"
        raise StageError(folder / FILE, said, "remove it and keep fewer runs")
    write_bytes(folder / "README.md", _page(merged).encode())
    write_bytes(folder / FILE, compressed)
    print(f"{folder}: {len(merged)} runs, {len(compressed) / 1e6:.2f} MB")


def kept(folder: Path) -> list[Run]:
    """The runs that `keep` wrote into a folder.

    Raises:
        OSError: there are none.
        StageError: the file is damaged.
    """
    try:
        return [Run(**each) for each in json.loads(lzma.decompress((folder / FILE).read_bytes()))]
    except (lzma.LZMAError, ValueError) as error:
        raise StageError(folder / FILE, f"damaged ({error})", "take it from Git again") from None


def _public(run: Run) -> Run:
    """A run with the parameters that the report needs, redacted, and without texts of a corpus that has no `quote`."""
    params = {name: run.params.get(name) for name in (*SWITCHES, "pairs", "relevance")}
    if passage := run.params.get("forgetting"):
        params["forgetting"] = {**passage, "text": Path(passage["text"]).name}
    params |= {f"{switch}s": {run.params[switch]: run.entry(switch)} for switch in CHOICES}
    quoted = run.entry("dataset").get("quote")
    files = {path: content for path, content in run.files.items() if quoted or path != RESPONSES}
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
