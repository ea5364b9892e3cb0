"""The other sections: what was run, what is absent, the claims, the learning rates, an entry for each run."""

from collections.abc import Iterator, Sequence
from typing import Any

from stages.report.answers import PARTS
from stages.report.claims import Claim
from stages.report.markdown import NONE, items, link, number, percent, plain, table, value
from stages.report.rates import Rates
from stages.report.runs import SWITCHES, Absent, Run
from stages.report.settings import Cell, Setting, flatten

ORDER = ("dataset", "protocol", "model", "method")


def absent_table(absent: Sequence[Absent]) -> str:
    """The experiments that are not in the tables, and why."""
    rows = ([plain(each.name), plain(each.state), plain(each.reason)] for each in absent)
    return table(["experiment", "state", "why"], rows, left=3)


def settings_table(settings: Sequence[Setting]) -> str:
    """An overview of what was run."""
    rows = []
    for each in settings:
        regimes = ", ".join(f"{regime:g}" for regime in each.regimes())
        rows.append([link(each.title), *(plain(", ".join(names)) for names in (each.models, each.methods)), regimes])
    return table(["setting", "models", "methods", "regimes (%)"], rows, left=4)


def claims_table(claims: Sequence[Claim]) -> str:
    """One row per claim, one column per part of the test pairs."""
    rows = []
    for claim in claims:
        found = [f"**{claim.findings[part].verdict}**: {plain(claim.findings[part].numbers)}" for part in PARTS]
        rows.append([plain(claim.text), plain(claim.model), *found, claim.papers_numbers or NONE])
    header = ["claim", "model", "all test pairs", "unseen pairs", "unlike pairs", "the paper's numbers"]
    return table(header, rows, left=len(header))


def rates_table(setting: Setting, rates: dict[Cell, Rates]) -> str:
    """The best learning rate of each run."""
    rows = []
    for cell, each in rates.items():
        best, ends = each.best, [each.trials[place]["learning_rate"] for place in (0, -1)]
        rows.append(
            [
                plain(cell.model),
                plain(cell.method),
                percent(cell.regime),
                f"{best['learning_rate']:.3g}",
                f"{best['epoch']}",
                number(best["bleu4"]),
                f"{each.end} of the range" if each.end else "inside",
                f"{ends[0]:.3g} to {ends[1]:.3g}",
                f"{len(each.trials)}",
                f"{each.diverged}",
                link(setting.runs[cell].name),
            ]
        )
    header = ["model", "method", "regime", "best learning rate", "epoch", "validation BLEU-4", "position", "range"]
    return table([*header, "trials", "diverged", "experiment"], rows, left=3)


def warnings(rates: dict[Cell, Rates]) -> list[str]:
    """The runs whose best trial is at an end of the range, so that a better rate may be outside."""
    return [
        f"{plain(f'{cell.model}, {cell.method}, {percent(cell.regime)}')}: the {each.end} learning rate is the best "
        "one; widen `protocols.<name>.training.learning_rates`"
        for cell, each in rates.items()
        if each.end
    ]


def parameters(setting: Setting) -> str:
    """The content of every entry of params.yaml that the runs of a setting chose, one item per entry."""
    chosen = {("dataset", ""): setting.any_run, ("protocol", ""): setting.any_run}
    for cell, run in setting.runs.items():
        chosen |= {("model", cell.model): run, ("method", cell.method): run}
    lines = [
        values(flatten(run.entry(switch), f"{switch}s.{run.switch(switch)}"))
        for (switch, _), run in sorted(chosen.items(), key=lambda each: (ORDER.index(each[0][0]), each[0][1]))
    ]
    return items([*lines, values(flatten(setting.any_run.params["pairs"], "pairs"))])


def entry(run: Run, setting: Setting) -> Iterator[str]:
    """Where the numbers of a run come from: its revision, parameters and all scores in DVC's metrics."""
    yield f"### {plain(run.name)}"
    origin = {
        "experiment": f"experiment at commit `{run.commit}`, started from `{run.baseline}`",
        "commit": f"the results in commit `{run.commit}`",
        "workspace": f"uncommitted results, on top of `{run.baseline}`",
    }[run.kind]
    switches = values({name: run.switch(name) for name in SWITCHES})
    yield items([origin, f"{switches}, and the parameters of {link(setting.title)}", *details(run)])
    header = ["", *next(iter(run.rows.values()))]
    yield table(
        header,
        ([name, *(value(row[key]) if key in row else NONE for key in header[1:])] for name, row in run.rows.items()),
    )


def details(run: Run) -> Iterator[str]:
    """The facts that training, decoding and scoring recorded; those of `data/` only if DVC's cache has them."""
    train, scores = run.files.json("metrics/train.json"), run.files.json("metrics/scores.json") or {}
    description = run.files.json("data/train/method.json") or {}
    noted = {"training": train, "environment": description.get("environment"), "subset": scores.get("subset")}
    noted |= {"decoding": scores.get("generation"), "BLEU": {"signature": scores.get("signature")} if scores else None}
    for name, facts in noted.items():
        if facts:
            yield f"{name}: {values(flatten(facts))}"


def values(table: dict[str, Any]) -> str:
    """Keys and values, written as in `-S key=value`."""
    return ", ".join(f"`{key}={value(each)}`" for key, each in table.items())
