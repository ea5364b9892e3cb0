"""The README's table: the methods with the parameters of params.yaml, with retrieval and human baselines."""

from typing import Any

from stages.report.lines import interval, mean, seeds_of, spread
from stages.report.markdown import NONE, number, plain, table, value
from stages.report.runs import SWITCHES, Collection, Run, Runs
from stages.report.scores import parts_of
from stages.report.settings import KINDS

BLEUS = ["method", "test loss", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]
REST = ["BLEU-4 of unseen", "novelty", "diversity", "empty"]


def methods_table(collection: Collection, params: dict[str, Any]) -> str:
    """One row per method of params.yaml, with all other parameters but the seed as there, then `retrieval` and `human`.

    If a method was run with several seeds, scores are means over seeds, and those that matter have standard deviations;
    what each seed scored takes the place of the interval, which is about a single run. Below the table are the number
    of pairs, the switches, and the commands for the methods that were not run.
    """
    runs = {method: found for method in params["methods"] if (found := runs_of(collection, params, method))}
    several = any(len(each) > 1 for each in runs.values())
    rows = [row(method, "test", each, several) for method, each in runs.items()]
    shown = {name: value(params[name]) for name in SWITCHES if name != "method"}
    notes = ""
    if runs:
        longest = max(runs.values(), key=len)
        rows += [row(name, name, longest, several) for name in ("retrieval", "human")]
        shown["seed"] = seeds_of(longest)
        notes = counts_of(longest)
    notes += ", ".join(f"`{name}={each}`" for name, each in shown.items()) + "."
    missing = [f"`dvc exp run -S method={method}`" for method in params["methods"] if method not in runs]
    header = [*BLEUS, *(["of each seed"] if several else ["its 95 % interval"]), *REST]
    return "\n\n".join([table(header, rows), notes, *([f"Not run: {', '.join(missing)}."] if missing else [])])


def counts_of(runs: Runs) -> str:
    """The numbers of pairs, which can differ between seeds."""
    found = []
    for run in runs:
        training = (run.files.json("metrics/scores.json") or {}).get("training_pairs", NONE)
        found.append((run.rows["test"]["pairs"], run.rows["unseen"]["pairs"], training))
    test, unseen, train = (", ".join(dict.fromkeys(map(str, each))) for each in zip(*found, strict=True))
    return f"{test} test pairs, {unseen} of them unseen; {train} training pairs; "


def row(name: str, scored: str, runs: Runs, several: bool) -> list[str]:
    """A row; small scores get more digits."""
    wholes, unseens, _ = zip(*(parts_of(run, scored) for run in runs), strict=True)
    bleu4 = [each["bleu4"] for each in wholes]
    loss, bounds = spread([each.get("loss") for each in wholes], 3), wholes[0].get("loss_interval")
    middle = ", ".join(map(number, bleu4)) if several else interval(wholes[0].get("bleu4_interval"))
    return [
        plain(name),
        loss if several or not bounds else f"{loss} ({interval(bounds, 2)})",
        *(number(mean([each[f"bleu{order}"] for each in wholes]), 3) for order in (1, 2, 3)),
        spread(bleu4),
        middle,
        spread([each.get("bleu4") for each in unseens]),
        *(number(mean([one.get(each) for one in wholes]), 3) for each in ("novelty", "diversity", "empty")),
    ]


def runs_of(collection: Collection, params: dict[str, Any], method: str) -> Runs:
    """The run of each seed of a method that agrees with params.yaml in every other parameter that can change scores."""
    wanted = deciding(params, method)
    found: dict[int, Run] = {}
    for run in sorted(collection.runs, key=lambda run: KINDS.index(run.kind)):
        if deciding(run.params, run.switch("method")) == wanted:
            found.setdefault(run.switch("seed"), run)
    return tuple(found[seed] for seed in sorted(found))


def deciding(params: dict[str, Any], method: str) -> dict[str, Any]:
    """The parameters, other than the seed, that can change the scores of a method."""
    switches = {name: params[name] for name in (*SWITCHES, "pairs") if name != "seed"} | {"method": method}
    entries = {name: params[f"{name}s"].get(switches[name]) for name in ("dataset", "model", "method", "protocol")}
    return {**switches, "entries": entries}
