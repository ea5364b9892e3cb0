"""The README's table: the methods with the parameters of params.yaml, with retrieval and human baselines."""

from typing import Any

from stages.report.markdown import NONE, number, plain, table, value
from stages.report.runs import SWITCHES, Collection, Run
from stages.report.scores import Scores, parts_of
from stages.report.settings import KINDS

HEADER = ["method", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "its 95 % interval", "BLEU-4 of unseen"]
HEADER += ["novelty", "diversity", "empty"]


def methods_table(collection: Collection, params: dict[str, Any]) -> str:
    """One row per method of params.yaml, with all other parameters as they are there, then `retrieval` and `human`.

    Below the table are the number of pairs, the switches, and the commands for the methods that were not run.
    """
    runs = {method: found for method in params["methods"] if (found := run_of(collection, params, method))}
    rows = [row(method, *parts_of(run, "test")) for method, run in runs.items()]
    notes = ", ".join(f"`{name}={value(params[name])}`" for name in SWITCHES if name != "method") + "."
    if any_run := next(iter(runs.values()), None):
        rows += [row(name, *parts_of(any_run, name)) for name in ("retrieval", "human")]
        test, unseen = (any_run.rows[name]["pairs"] for name in ("test", "unseen"))
        training = (any_run.files.json("metrics/scores.json") or {}).get("training_pairs", NONE)
        notes = f"{test} test pairs, {unseen} of them unseen; {training} training pairs; {notes}"
    missing = [f"`dvc exp run -S method={method}`" for method in params["methods"] if method not in runs]
    return "\n\n".join([table(HEADER, rows), notes, *([f"Not run: {', '.join(missing)}."] if missing else [])])


def row(name: str, whole: Scores, unseen: Scores, _: Scores) -> list[str]:
    """A row; small scores get more digits."""
    low, high = (number(each) for each in whole.get("bleu4_interval") or (None, None))
    return [
        plain(name),
        *(number(whole[f"bleu{order}"], 3) for order in (1, 2, 3)),
        number(whole["bleu4"]),
        f"{low} to {high}",
        number(unseen.get("bleu4")),
        *(number(whole.get(each), 3) for each in ("novelty", "diversity", "empty")),
    ]


def run_of(collection: Collection, params: dict[str, Any], method: str) -> Run | None:
    """The run of a method that agrees with params.yaml in every parameter that can change the scores."""
    wanted = deciding(params, method)
    found = (run for run in collection.runs if deciding(run.params, run.switch("method")) == wanted)
    return min(found, key=lambda run: KINDS.index(run.kind), default=None)


def deciding(params: dict[str, Any], method: str) -> dict[str, Any]:
    """The parameters that can change the scores of a method."""
    switches = {name: params[name] for name in (*SWITCHES, "pairs")} | {"method": method}
    entries = {name: params[f"{name}s"].get(switches[name]) for name in ("dataset", "model", "method", "protocol")}
    return {**switches, "entries": entries}
