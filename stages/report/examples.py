"""Table 3: the same queries, answered by each method. A seed draws the queries; nobody picks them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

from stages.records import Response, single_line
from stages.report.answers import Answers, NotMeasured
from stages.report.markdown import percent, plain, table
from stages.report.runs import Run
from stages.report.settings import Setting

QUERIES = 8
MARK = "‡"


def drawn(responses: list[Response], seed: int) -> list[int]:
    """The indices of the responses to show: those with the lowest sha256 of the seed and their place in the corpus."""

    def lot(number: int) -> str:
        each = responses[number]
        return hashlib.sha256(f"table 3:{seed}:{each.dialogue}:{each.position}".encode()).hexdigest()

    return sorted(sorted(range(len(responses)), key=lot)[:QUERIES])


def example_tables(setting: Setting, answers: Answers) -> Iterator[str]:
    """One table per model, in the regime and with the seed that have the most methods (the largest, the lowest)."""
    for model in setting.models:
        runs: dict[tuple[float, int], dict[str, Run]] = defaultdict(dict)
        for cell in setting.cells():
            if cell.model == model:
                for run in setting.runs[cell]:
                    runs[cell.regime, -run.switch("seed")][cell.method] = run
        place = max(runs, key=lambda each: (len(runs[each]), each))
        yield f"#### Table 3, {plain(model)} at {percent(place[0])}, seed {-place[1]}"
        yield examples(runs[place], answers)


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
