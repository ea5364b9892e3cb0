"""Tables of scores: the paper's Tables 1 and 2 next to ours, and the scores of the unseen and unlike pairs."""

from collections.abc import Iterator
from typing import Any

from stages.report import paper
from stages.report.markdown import NONE, SPACE, link, number, percent, plain, table
from stages.report.runs import Run
from stages.report.settings import Cell, Setting

PAPERS_TABLES = {"dialogpt": "Table 1", "gpt2": "Table 2"}
SIX = list(paper.SCORES)
COLUMNS = [*paper.SCORES.values(), "empty"]

Scores = dict[str, Any]


def score_tables(setting: Setting) -> Iterator[str]:
    """One table per model: the six scores of all test pairs, with the paper's and the difference where it has them."""
    known = paper.paper_scores() if setting.on_papers_data else {}
    for model in setting.models:
        of_model = [cell for cell in setting.runs if cell.model == model]
        compared = [cell for cell in of_model if (cell.model, cell.method, cell.regime) in known]
        name = f"{PAPERS_TABLES[model]}, {model}" if compared else f"{model}, which the paper does not have"
        yield f"#### {name if setting.on_papers_data else model}"
        if compared:
            other = "" if setting.as_in_paper else ", with a protocol or pairs that differ from the paper's"
            whole = len(paper.REGIMES) * len(paper.METHODS)
            yield (
                f"Each cell: ours (the paper's, the difference). Measured: {len(compared)} of the {whole} "
                f"configurations in the paper's table{other}."
            )
        yield table(["regime", "method", *COLUMNS, "experiment"], score_rows(setting, model, known), left=2)


def score_rows(setting: Setting, model: str, known: dict[tuple[str, str, float], paper.Six]) -> Iterator[list[str]]:
    """The rows of a table; each regime ends with the scores of the lookup and of people."""
    for regime in setting.regimes(model=model):
        for method in setting.methods:
            run = setting.runs.get(Cell(model, method, regime))
            if run is None:
                continue
            papers = known.get((model, method, regime), {})
            scores = [with_papers(run.rows["test"][name], papers.get(name)) for name in SIX]
            yield [percent(regime), plain(method), *scores, number(run.rows["test"].get("empty")), link(run.name)]
        for row in ("retrieval", "human"):
            baseline = run_at(setting, regime).rows[row]
            yield [percent(regime), row, *(number(baseline.get(name)) for name in (*SIX, "empty")), ""]


def run_at(setting: Setting, regime: float) -> Run:
    """Any run of a regime: all of them have the same scores of people and of the lookup."""
    return next(run for cell, run in setting.runs.items() if cell.regime == regime)


def with_papers(ours: float, papers: float | None) -> str:
    """Our score, the paper's and the difference: `0.1423 (0.142, +0.000)`."""
    return (
        number(ours)
        if papers is None
        else f"{number(ours)} ({papers:.{paper.DIGITS}f},{SPACE}{ours - papers:+.{paper.DIGITS}f})"
    )


def parts_tables(setting: Setting) -> Iterator[str]:
    """BLEU-4, then the scores of variety, of all, the unseen and the unlike pairs; with people and the lookup."""
    first = ["regime", "model", "method"]
    rows = list(parts_rows(setting))
    yield table(
        [*first, "BLEU-4 of all", "of unseen", "of unlike", "experiment"],
        ([*words, *(with_interval(part) for part in parts), link_to_run] for words, parts, link_to_run in rows),
        left=3,
    )
    names = ("novelty", "diversity", "empty")
    variety = [f"{name}: {part}" for name in names for part in ("all", "unseen", "unlike")]
    yield table(
        [*first, *variety],
        ([*words, *(number(part.get(name)) for name in names for part in parts)] for words, parts, _ in rows),
        left=3,
    )


def parts_rows(setting: Setting) -> Iterator[tuple[list[str], list[Scores], str]]:
    """For each row: the cells at its left, the scores of the parts, the link to the run."""
    for regime in setting.regimes():
        for cell in [Cell(model, method, regime) for model in setting.models for method in setting.methods]:
            if run := setting.runs.get(cell):
                yield [percent(regime), plain(cell.model), plain(cell.method)], parts_of(run, "test"), link(run.name)
        for row in ("retrieval", "human"):
            yield [percent(regime), "", row], parts_of(run_at(setting, regime), row), ""


def with_interval(part: Scores) -> str:
    """BLEU-4 and the bounds of the middle 95 % of the bootstrap."""
    low, high = part.get("bleu4_interval") or (None, None)
    return number(part.get("bleu4")) + (f" ({number(low)} to {number(high)})" if low is not None else "")


def parts_of(run: Run, row: str) -> list[Scores]:
    """The scores of a row on all, the unseen and the unlike pairs; empty if the run left no such scores."""
    scores = run.files.json("metrics/scores.json")
    if scores is None:
        return [run.rows[row], run.rows["unseen"] if row == "test" else {}, {}]
    whole = scores if row == "test" else scores[row]
    return [whole, whole.get("unseen") or {}, whole.get("unlike") or {}]


def leakage_table(setting: Setting) -> str:
    """The shares of the test set that are in the training regime."""
    header = ["regime", "training pairs", "test pairs", "unseen", "unlike"]
    header += [f"{kind} {what}" for kind in ("exact", "near") for what in ("queries", "responses", "pairs")]
    rows = []
    for regime in setting.regimes():
        run = run_at(setting, regime)
        scores = run.files.json("metrics/scores.json") or {}
        whole, unseen, unlike = (part.get("pairs", NONE) for part in parts_of(run, "test"))
        shares = [share for kind in ("exact", "near") for share in scores.get("leakage", {}).get(kind, {}).values()]
        counts = [scores.get("training_pairs", NONE), whole, unseen, unlike]
        cells = [f"{share:.1%}" for share in shares] or [NONE] * 6
        rows.append([percent(regime), *map(str, counts), *cells])
    return table(header, rows)
