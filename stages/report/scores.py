"""Tables of scores: the paper's Tables 1 and 2 next to ours, and the scores of the unseen and unlike pairs."""

from collections.abc import Iterator
from dataclasses import replace

from stages.report import paper
from stages.report.lines import FIRST, LAST, Line, Scores, interval, lines_of, mean, spread
from stages.report.markdown import NONE, SPACE, percent, table
from stages.report.rates import validation_loss
from stages.report.runs import Run
from stages.report.settings import Setting

PAPERS_TABLES = {"dialogpt": "Table 1", "gpt2": "Table 2"}
SIX = list(paper.SCORES)
COLUMNS = [*paper.SCORES.values(), "empty", "validation loss"]


def score_tables(setting: Setting) -> Iterator[str]:
    """One table per model: the six scores of all test pairs, with the paper's and the difference where it has them."""
    known = paper.paper_scores() if setting.on_papers_data else {}
    for model in setting.models:
        compared = [cell for cell in setting.runs if cell.model == model and (model, cell.method, cell.regime) in known]
        name = f"{PAPERS_TABLES[model]}, {model}" if compared else f"{model}, which the paper does not have"
        yield f"#### {name if setting.on_papers_data else model}"
        if compared:
            other = "" if setting.as_in_paper else ", with a protocol or pairs that differ from the paper's"
            whole = len(paper.REGIMES) * len(paper.METHODS)
            yield (
                f"Each cell: ours (the paper's, the difference). Measured: {len(compared)} of the {whole} "
                f"configurations in the paper's table{other}."
            )
        yield table(["regime", "method", "seed", *COLUMNS, LAST], score_rows(setting, model, known), left=3)


def score_rows(setting: Setting, model: str, known: dict[tuple[str, str, float], paper.Six]) -> Iterator[list[str]]:
    """The rows of a table: configurations, each followed by its seeds if there are several; then lookup and people."""
    for line in lines_of(setting):
        if line.regime not in setting.regimes(model=model) or line.model not in ("", model):
            continue
        yield score_row(line, known.get((model, line.method, line.regime), {}))
        if line.row == "test" and len(line.runs) > 1:
            yield from (score_row(replace(line, runs=(run,)), {}) for run in line.runs)


def score_row(line: Line, papers: paper.Six) -> list[str]:
    """A row: means over seeds, the paper's numbers beside them."""
    scores = [with_papers([run.rows[line.row][name] for run in line.runs], papers.get(name)) for name in SIX]
    empty = line.cell(lambda run: run.rows[line.row].get("empty"))
    loss = line.cell(validation_loss) if line.row == "test" else NONE
    regime, _, method, seeds = line.words
    return [regime, method, seeds, *scores, empty, loss, line.link]


def with_papers(ours: list[float], papers: float | None) -> str:
    """Our score, the paper's and the difference: `0.1423 (0.142, +0.000)`."""
    if papers is None:
        return spread(ours)
    difference = (mean(ours) or 0.0) - papers
    return f"{spread(ours)} ({papers:.{paper.DIGITS}f},{SPACE}{difference:+.{paper.DIGITS}f})"


def parts_tables(setting: Setting) -> Iterator[str]:
    """BLEU-4, then the scores of variety, of all, the unseen and the unlike pairs; with people and the lookup."""
    rows = [(line, [parts_of(run, line.row) for run in line.runs]) for line in lines_of(setting)]
    yield table(
        [*FIRST, "BLEU-4 of all", "of unseen", "of unlike", LAST],
        (
            [*line.words, *(with_interval(list(each)) for each in zip(*parts, strict=True)), line.link]
            for line, parts in rows
        ),
        left=len(FIRST),
    )
    names = ("novelty", "diversity", "empty")
    variety = [f"{name}: {part}" for name in names for part in ("all", "unseen", "unlike")]
    yield table(
        [*FIRST, *variety],
        (
            [
                *line.words,
                *(spread([one.get(name) for one in each]) for name in names for each in zip(*parts, strict=True)),
            ]
            for line, parts in rows
        ),
        left=len(FIRST),
    )


def with_interval(parts: list[Scores], score: str = "bleu4") -> str:
    """A score; of a single run also the bounds of the middle 95 % of the bootstrap, which draws test pairs."""
    bounds = parts[0].get(f"{score}_interval") if len(parts) == 1 else None
    return spread([each.get(score) for each in parts]) + (f" ({interval(bounds)})" if bounds else "")


def parts_of(run: Run, row: str) -> list[Scores]:
    """The scores of a row on all, the unseen and the unlike pairs; empty if the run left no such scores."""
    scores = run.files.json("metrics/scores.json")
    if scores is None:
        return [run.rows[row], run.rows["unseen"] if row == "test" else {}, {}]
    whole = scores if row == "test" else scores[row]
    return [whole, whole.get("unseen") or {}, whole.get("unlike") or {}]


def leakage_table(setting: Setting) -> str:
    """The shares of the test set that are in the training regime, which the seed draws."""
    header = ["regime", "seed", "training pairs", "test pairs", "unseen", "unlike"]
    header += [f"{kind} {what}" for kind in ("exact", "near") for what in ("queries", "responses", "pairs")]
    rows = []
    for run in (run for regime in setting.regimes() for run in setting.at(regime)):
        scores = run.files.json("metrics/scores.json") or {}
        whole, unseen, unlike = (part.get("pairs", NONE) for part in parts_of(run, "test"))
        shares = [share for kind in ("exact", "near") for share in scores.get("leakage", {}).get(kind, {}).values()]
        counts = [scores.get("training_pairs", NONE), whole, unseen, unlike]
        cells = [f"{share:.1%}" for share in shares] or [NONE] * 6
        rows.append([percent(run.regime), str(run.switch("seed")), *map(str, counts), *cells])
    return table(header, rows, left=2)
