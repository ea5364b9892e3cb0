"""Tables of what stands beside the paper's six scores: what went wrong, variety of words, other kinds of BLEU."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.report.markdown import NONE, items, link, number, percent, plain, table
from stages.report.scores import run_at, with_interval
from stages.report.settings import Cell, Setting

FIRST = ["regime", "model", "method"]
WENT_WRONG = {name: name for name in ("empty", "loops", "echoes", "unended", "exact")} | {"mean_words": "mean words"}
VARIETY = {"distinct1": "distinct-1", "distinct2": "distinct-2", "ead": "EAD", "chrf": "chrF"}
SEVERAL = {"bleu4_further_only": "against the further ones alone", "bleu4_lower_case": "case overlooked"}

SEVERAL_REFERENCES = """Against several references of a pair. *human* is left out of its own references: it is scored
against the further ones alone, on the pairs that have any. What another row scores against those alone is the number to
compare it with."""


@dataclass(frozen=True)
class Line:
    """A row of the tables: what stands at its left, its scores, and the whole file that they come from."""

    words: list[str]
    row: str  # test | retrieval | human
    file: dict[str, Any]  # metrics/scores.json; empty if it is not in DVC's cache
    link: str

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of all test pairs."""
        found: dict[str, Any] = self.file if self.row == "test" else self.file.get(self.row, {})
        return found


def lines_of(setting: Setting) -> list[Line]:
    """Every run, and below each regime what the lookup and people score there."""
    lines = []
    for regime in setting.regimes():
        for cell in [Cell(model, method, regime) for model in setting.models for method in setting.methods]:
            if run := setting.runs.get(cell):
                words = [percent(regime), plain(cell.model), plain(cell.method)]
                lines.append(Line(words, "test", run.files.json("metrics/scores.json") or {}, link(run.name)))
        file = run_at(setting, regime).files.json("metrics/scores.json") or {}
        lines += [Line([percent(regime), "", row], row, file, "") for row in ("retrieval", "human")]
    return lines


def diagnostics_tables(setting: Setting) -> Iterator[str]:
    """What went wrong with the responses to all test pairs, then the variety of their words."""
    lines = lines_of(setting)
    for names in (WENT_WRONG, VARIETY):
        yield table(
            [*FIRST, *names.values(), "experiment"],
            ([*line.words, *(number(line.scores.get(name)) for name in names), line.link] for line in lines),
            left=3,
        )


def bleu_tables(setting: Setting) -> Iterator[str]:
    """BLEU as others compute it, and against several references where the corpus has them."""
    lines = lines_of(setting)
    labels = {name: each["label"] for line in lines for name, each in line.file.get("bleu_variants", {}).items()}
    if not labels:
        yield "Not scored: these runs are older than the other kinds of BLEU."
        return
    yield "BLEU-1 / BLEU-2 / BLEU-3 / BLEU-4 of all test pairs:"
    yield table(
        [*FIRST, *labels, "experiment"],
        ([*line.words, *(variant(line, name) for name in labels), line.link] for line in lines),
        left=3,
    )
    yield items(f"{name}: `{label}`" for name, label in labels.items())
    found = {facts["signature"]: facts for line in lines if (facts := line.file.get("references"))}
    if not found:
        return
    yield SEVERAL_REFERENCES
    yield several_table(lines)
    yield items(
        f"{facts['further']} further references for {facts['pairs']} of the test pairs: `{signature}`"
        for signature, facts in found.items()
    )


def variant(line: Line, name: str) -> str:
    """BLEU-1 to BLEU-4 by one definition, in a cell."""
    scores = line.file.get("bleu_variants", {}).get(name, {}).get(line.row)
    return " / ".join(number(scores[f"bleu{order}"]) for order in (1, 2, 3, 4)) if scores else NONE


def several_table(lines: list[Line]) -> str:
    """BLEU-4 against the own reference alone and against several; of `human` against the further ones alone."""
    rows = []
    for line in lines:
        several = line.scores.get("several_references") or {}
        counted = str(several.get("pairs", NONE))
        scores = [number(line.scores.get("bleu4")), with_interval(several)]
        rows.append([*line.words, counted, *scores, *(number(several.get(name)) for name in SEVERAL), line.link])
    header = ["pairs", "BLEU-4 against one reference", "against all of them", *SEVERAL.values(), "experiment"]
    return table([*FIRST, *header], rows, left=3)
