"""The other sections: what was run, what is absent, the claims, the learning rates, an entry for each run."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from stages.report.answers import PARTS
from stages.report.claims import Claim
from stages.report.lines import FIRST, LAST
from stages.report.markdown import NONE, SPACE, items, link, number, percent, plain, table, value
from stages.report.rates import Rates, trials_of
from stages.report.runs import SWITCHES, Absent, Run
from stages.report.settings import RATES_PREFIX, Cell, Setting, flatten, rates_of_run

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
        seeds = sorted({run.switch("seed") for runs in each.runs.values() for run in runs})
        names = (plain(", ".join(map(str, some))) for some in (each.models, each.methods, seeds))
        rows.append([link(each.title), *names, regimes])
    return table(["setting", "models", "methods", "seeds", "regimes (%)"], rows, left=5)


def claims_table(claims: Sequence[Claim]) -> str:
    """One row per claim, one column per part of the test pairs."""
    rows = []
    for claim in claims:
        found = [f"**{claim.findings[part].verdict}**: {plain(claim.findings[part].numbers)}" for part in PARTS]
        rows.append([plain(claim.text), plain(claim.model), *found, claim.papers_numbers or NONE])
    header = ["claim", "model", "all test pairs", "unseen pairs", "unlike pairs", "the paper's numbers"]
    return table(header, rows, left=len(header))


def rates_table(rates: Sequence[tuple[Cell, Rates]]) -> str:
    """The best learning rate of each run."""
    rows = []
    for cell, each in rates:
        best, ends = each.best, [each.trials[place]["learning_rate"] for place in (0, -1)]
        rows.append(
            [
                percent(cell.regime),
                plain(cell.model),
                plain(cell.method),
                str(each.run.switch("seed")),
                f"{best['learning_rate']:.3g}",
                f"{best['epoch']}",
                number(best["bleu4"]),
                f"{each.end} of the range" if each.end else "inside",
                f"{ends[0]:.3g} to {ends[1]:.3g}",
                f"{len(each.trials)}",
                f"{each.diverged}",
                link(each.run.name),
            ]
        )
    header = ["best learning rate", "epoch", "validation BLEU-4", "position", "range", "trials", "diverged", LAST]
    return table([*FIRST, *header], rows, left=len(FIRST))


def warnings(rates: Sequence[tuple[Cell, Rates]]) -> list[str]:
    """The runs whose best trial is at an end of the range, so that a better rate may be outside."""
    seeds: dict[tuple[Cell, str], list[str]] = defaultdict(list)
    for cell, each in rates:
        if each.end:
            seeds[cell, each.end].append(f"seed{SPACE}{each.run.switch('seed')}")
    return [
        f"{plain(f'{cell.model}, {cell.method}, {percent(cell.regime)}')}, {', '.join(found)}: the {end} learning rate "
        "is the best one; move `methods.<name>.learning_rate`, or widen `protocols.<name>.training.learning_rates`"
        for (cell, end), found in seeds.items()
    ]


def rates_taken(setting: Setting) -> list[str]:
    """The runs that tried a single learning rate, so that nothing says whether another is better."""
    found = [
        f"{plain(f'{cell.model}, {cell.method}, {percent(cell.regime)}')}, seed{SPACE}{run.switch('seed')}: "
        f"{trials[0]['learning_rate']:.3g}"
        for cell in setting.cells()
        for run in setting.runs[cell]
        if len(trials := trials_of(run)) == 1 and trials[0]["learning_rate"]
    ]
    return [f"{plain(setting.title)}: {line}" for line in found]


def parameters(setting: Setting) -> str:
    """The content of every entry of params.yaml that the runs of a setting chose, one item per entry.

    Without learning rates: they may differ between the runs of a setting, and stand with each run.
    """
    chosen = {("dataset", ""): setting.any_run, ("protocol", ""): setting.any_run}
    for cell, (run, *_) in setting.runs.items():
        chosen |= {("model", cell.model): run, ("method", cell.method): run}
    lines = [
        values(
            {
                f"{switch}s.{run.switch(switch)}.{key}": each
                for key, each in flatten(run.entry(switch)).items()
                if not key.startswith((RATES_PREFIX, "learning_rate"))
            }
        )
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
    rates = rates_of_run(run)
    tried = [f"learning rates: {values(rates)}"] if rates else []
    yield items([origin, f"{switches}, and the parameters of {link(setting.title)}", *tried, *details(run)])
    header = ["", *next(iter(run.rows.values()))]
    yield table(
        header,
        ([name, *(value(row[key]) if key in row else NONE for key in header[1:])] for name, row in run.rows.items()),
    )


def details(run: Run) -> Iterator[str]:
    """The facts that training, decoding and scoring recorded; the environment of training only if the cache has it."""
    train, scores = run.files.json("metrics/train.json"), run.files.json("metrics/scores.json") or {}
    description = run.files.json("data/train/method.json") or {}
    noted = {"training": train, "environment": description.get("environment"), "subset": scores.get("subset")}
    noted |= {"decoding": scores.get("generation"), "BLEU": {"signature": scores.get("signature")} if scores else None}
    for name, facts in noted.items():
        if facts:
            yield f"{name}: {values(flatten(facts))}"
        elif name == "environment":
            yield "environment: not known here, because DVC's cache lacks data/train of this run"


def values(table: dict[str, Any]) -> str:
    """Keys and values, written as in `-S key=value`."""
    return ", ".join(f"`{key}={value(each)}`" for key, each in table.items())
