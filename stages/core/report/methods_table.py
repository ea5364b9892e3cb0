"""The README's table: the methods with the parameters of params.yaml, and what gives their scores a scale."""

from typing import Any

from stages.core.report.markdown import NONE, number, plain, table, value
from stages.core.report.runs import SHORT, SWITCHES, Collection, Run
from stages.core.report.settings import KINDS

COLUMNS = {"bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4"}
COLUMNS |= {"novelty": "novelty", "diversity": "diversity"}


def methods_table(collection: Collection, params: dict[str, Any]) -> str:
    """A row a method of params.yaml, all with its other switches and its entries; `human` and `retrieval` below."""
    runs = {method: found for method in params["methods"] if (found := run_of(collection, params, method))}
    rows = []
    for method in params["methods"]:
        if run := runs.get(method):
            unseen = number(run.rows["unseen"].get("bleu4"))
            rows.append([plain(method), *(number(run.rows["test"][name]) for name in COLUMNS), unseen, origin(run)])
        else:
            rows.append([plain(method), *[NONE] * (len(COLUMNS) + 1), f"`dvc exp run -S method={method}`"])
    scale = next(iter(runs.values()), None)
    switches = ", ".join(f"`{name}={value(params[name])}`" for name in SWITCHES if name != "method")
    if scale:
        for row in ("retrieval", "human"):
            rows.append([row, *(number(scale.rows[row][name]) for name in COLUMNS), NONE, ""])
        switches += "; {} test pairs, {} of them unseen".format(
            *(scale.rows[row]["pairs"] for row in ("test", "unseen"))
        )
    return table(["method", *COLUMNS.values(), "BLEU-4 of unseen", "experiment"], rows) + f"\n\n{switches}."


def run_of(collection: Collection, params: dict[str, Any], method: str) -> Run | None:
    """The run of a method that agrees with params.yaml in every parameter that decides about scores."""
    wanted = deciding(params, method)
    found = (run for run in collection.runs if deciding(run.params, run.switch("method")) == wanted)
    return min(found, key=lambda run: KINDS.index(run.kind), default=None)


def deciding(params: dict[str, Any], method: str) -> dict[str, Any]:
    """The parameters that decide about the scores of a method."""
    switches = {name: params[name] for name in (*SWITCHES, "pairs")} | {"method": method}
    entries = {name: params[f"{name}s"].get(switches[name]) for name in ("dataset", "model", "method", "protocol")}
    return {**switches, "entries": entries}


def origin(run: Run) -> str:
    """Where the row comes from."""
    return f"{plain(run.name)} (`{run.commit[:SHORT]}`)" if run.kind == "experiment" else plain(run.name)
