"""Table 3: the same queries, answered by each method. A seed draws the queries; nobody picks them."""

import hashlib
from collections.abc import Iterator

from stages.records import Response, single_line
from stages.report.answers import Answers, NotMeasured
from stages.report.markdown import percent, plain, table
from stages.report.runs import Run
from stages.report.settings import Cell, Setting

QUERIES = 8
MARK = "‡"


def drawn(responses: list[Response], seed: int) -> list[int]:
    """The indices of the responses to show: those with the lowest sha256 of the seed and their place in the corpus."""

    def lot(number: int) -> str:
        each = responses[number]
        return hashlib.sha256(f"table 3:{seed}:{each.dialogue}:{each.position}".encode()).hexdigest()

    return sorted(sorted(range(len(responses)), key=lot)[:QUERIES])


def example_tables(setting: Setting, answers: Answers) -> Iterator[str]:
    """One table per model, in the regime with the most methods (the largest of several)."""
    for model in setting.models:
        runs = {regime: runs_of(setting, model, regime) for regime in setting.regimes(model=model)}
        regime = max((len(some), regime) for regime, some in runs.items())[1]
        yield f"#### Table 3, {plain(model)} at {percent(regime)}"
        yield examples(runs[regime], answers)


def runs_of(setting: Setting, model: str, regime: float) -> dict[str, Run]:
    """The runs of a model in a regime, by method."""
    cells = {method: Cell(model, method, regime) for method in setting.methods}
    return {method: setting.runs[cell] for method, cell in cells.items() if cell in setting.runs}


def examples(runs: dict[str, Run], answers: Answers) -> str:
    """The table of one model: one column per method, and one for the person's response."""
    columns: dict[str, list[str]] = {}
    missing = []
    for method, run in runs.items():
        try:
            responses = answers.of(run)
        except NotMeasured as reason:
            missing.append(f"{plain(method)}: {reason}.")
            continue
        chosen = [responses[number] for number in drawn(responses, run.switch("seed"))]
        turns = answers.training_turns(run)
        columns.setdefault("query", [plain(each.query) for each in chosen])
        columns.setdefault("human", [marked(each.reference, turns) for each in chosen])
        columns[plain(method)] = [marked(each.response, turns) for each in chosen]
        if turns is None:
            missing.append(f"{plain(method)}: training turns not in the cache, so none is marked.")
    shown = table(list(columns), zip(*columns.values(), strict=True), left=len(columns)) if columns else ""
    return "\n\n".join([*missing, shown]).strip()


def marked(response: str, turns: frozenset[str] | None) -> str:
    """The response, with a mark if it is, word for word, a turn of the training dialogues."""
    if not response.strip():
        return "(empty)"
    known = turns is not None and single_line(response) in turns
    return f"*{MARK} {plain(response)}*" if known else plain(response)
