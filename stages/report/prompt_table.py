"""What each part of a prompt method adds: {no prompt, soft, dynamic} x {E frozen, E trained}, E the word embeddings.

The settings of a method say where it belongs, not its name.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from stages.report.answers import Answers, NotMeasured
from stages.report.lines import spread
from stages.report.markdown import SPACE, items, percent, plain, table
from stages.report.rates import validation_loss
from stages.report.runs import Run, Runs, same_seeds
from stages.report.settings import Setting

PROMPTS = {"none": "no prompt", "soft": "soft", "dynamic": "dynamic"}
EMBEDDINGS = {False: "E frozen", True: "E trained"}
SCORES: dict[str, Callable[[Run], float | None]] = {
    "validation loss": validation_loss,
    "BLEU-4": lambda run: run.rows["test"]["bleu4"],
}

Place = tuple[str, bool]  # a key of PROMPTS, a key of EMBEDDINGS


def place_of(entry: dict[str, Any] | None) -> Place | None:
    """The prompt of a method and whether it trains E, from its entry in params.yaml; None if it has no place here."""
    settings = entry or {}
    kind = settings.get("kind")
    if kind in ("zero-shot", "embeddings"):
        return "none", kind == "embeddings"
    return (kind, settings["train_embeddings"]) if kind in ("soft", "dynamic") else None


def places(setting: Setting, model: str, regime: float) -> dict[Place, tuple[str, Runs]]:
    """The method at each place, and its runs; of several methods the first."""
    found: dict[Place, tuple[str, Runs]] = {}
    for cell in setting.cells():
        place = place_of(setting.runs[cell][0].entry("method"))
        if place and (cell.model, cell.regime) == (model, regime):
            found.setdefault(place, (cell.method, setting.runs[cell]))
    return found


def prompt_tables(setting: Setting, answers: Answers) -> Iterator[str]:
    """The table for each model and regime that has at least two of the six, and the names of its methods."""
    rows, notes = [], []
    for model, regime in dict.fromkeys((cell.model, cell.regime) for cell in setting.cells()):
        found = places(setting, model, regime)
        if len(found) < 2:
            continue
        runs = {place: each for place, (_, each) in found.items()}
        rows += [[plain(model), percent(regime), *cells] for cells in table_rows(runs, answers)]
        notes += [
            f"{PROMPTS[prompt]}, {EMBEDDINGS[trained]}: {plain(method)}"
            for (prompt, trained), (method, _) in found.items()
        ]
    if rows:
        columns = [f"{name}: {score}" for name in (*EMBEDDINGS.values(), "training E adds") for score in SCORES]
        yield table(["model", "regime", "prompt", *columns], rows, left=3)
        yield items(dict.fromkeys(notes))


def table_rows(runs: dict[Place, Runs], answers: Answers) -> Iterator[list[str]]:
    """A row for each prompt, then what each prompt adds."""
    for prompt, name in PROMPTS.items():
        frozen, trained = (runs.get((prompt, each), ()) for each in EMBEDDINGS)
        values = [spread([look(run) for run in each]) for each in (frozen, trained) for look in SCORES.values()]
        yield [name, *values, *gains(trained, frozen, answers)]
    for prompt in ("soft", "dynamic"):
        pairs = [(runs.get((prompt, each), ()), runs.get(("none", each), ())) for each in EMBEDDINGS]
        yield [
            f"{PROMPTS[prompt]} adds",
            *(cell for pair in pairs for cell in gains(*pair, answers)),
            *[""] * len(SCORES),
        ]


def gains(first: Runs, second: Runs, answers: Answers) -> list[str]:
    """First minus second in each score, over the seeds that both have; for BLEU-4 with the p-value of the claims."""
    cells = []
    for look in SCORES.values():
        values = [(look(a), look(b)) for a, b in same_seeds(first, second)]
        differences = [a - b for a, b in values if a is not None and b is not None]
        cells.append(("+" if differences and sum(differences) >= 0 else "") + spread(differences))
    with suppress(NotMeasured):
        cells[-1] += f", p{SPACE}={SPACE}{answers.compare(first, second, 'all').p:.3f}"
    return cells
