"""The recipe study as Markdown: metrics/recipe.md."""

import json
from collections.abc import Sequence
from typing import Any

from stages.recipe.cells import CELLS

Row = dict[str, Any]
COLUMNS = (
    "format", "method", "rate of E", "schedule", "batch", "seed", "learning rate",
    "loss", "BLEU-4", "empty", "distinct",
)  # fmt: skip
INTRODUCTION = """# How a model is spoken to, where training starts and how fast

Validation loss per response token (the lower the better) and validation BLEU-4 after one epoch, for row formats,
starts and rates. *Rate of E* is the factor of the learning rate for the word embeddings beside a prompt or a
controller, *empty* the share of answers without a word, *distinct* the share of different answers. No test pair was
read. How to make it anew: `python -m stages.recipe --help`. `recipe.json` has all that each row depends on.
`recipe-cpu.md` is an earlier, smaller study on a CPU. The rows here are from two days; the recorded hash of the base
model (`facts.model`) differs between them, though both days read the same pinned GGUF file.

What the defaults take from it: the row format `A: / B:`, the best of five on both corpora; `soft` from the vocabulary;
`dynamic` from the identity; a constant rate, since a falling one gained nothing; a tenth of the rate for E beside a
prompt, which is better for `soft` on DailyDialog (3.07 against 3.18) and a little worse for `dynamic` on ChitChat (3.79
against 3.77). Batches of four were better for prompts in two of four comparisons. The paper has eight, so we do.

`methods.<name>.learning_rate`, around which `quick` tries three rates, is near the best of a method's cells below.
Fine-tune's is near the lower of its two best on ChitChat (3.2e-5 and 1e-4), lora's comes from its only cell, and the
frozen kinds take that of soft and dynamic.

What the default run was to reach, and what it did (`metrics/report.md`, seed 0):

- every trained method below zero-shot's loss, and at most 15 % of the answers loops: reached.
- at most eight minutes on two cores after the download: just reached, 7:57 on a processor without AVX-512. The
  report's runs of seed 0 are from an H100.
- dynamic within 0.05 of fine-tune's validation loss: missed, it is 0.10 away. No start, rate or batch size of this
  study brought it nearer than 0.09 on ChitChat; on DailyDialog, with batches of four for both, it is 0.146.
- at most 2 % empty answers: reached but for `embeddings` (6.5 %). It is 6 to 7 % on ChitChat here too, and none on
  DailyDialog.
- at least 85 % distinct answers: reached by `embeddings` alone (90 %); the others have 73 to 83 %, and here, at their
  best rates, hardly more. People have 98 %. The loss falls while answers become alike: zero-shot has 93 %.
"""


def render(result: dict[str, Any]) -> str:
    """The whole study: for each corpus its cells at their best rates, then all that was measured; best loss in bold."""
    rows: list[Row] = result["rows"]
    environment = ", ".join(f"{name} {value}" for name, value in result["environment"].items())
    parts = [INTRODUCTION]
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        own = [row for row in rows if row["corpus"] == corpus]
        parts.append(f"## {corpus}\n\n{best(own)}\n\n{left_out(own)}\n")
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        own = [row for row in rows if row["corpus"] == corpus]
        parts.append(f"## {corpus}: every rate\n\n{table(own)}\n")
    return "\n".join([*parts, f"Made with {environment}.\n"])


def table(rows: Sequence[Row]) -> str:
    """One corpus: its trials, cell by cell."""
    lowest = min(row["validation_loss"] for row in rows if row["validation_loss"] is not None)
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    lines += [" | ".join(cells(row, lowest)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def best(rows: Sequence[Row]) -> str:
    """One corpus: each cell at its best rate, the lowest loss first."""
    of_cells: dict[str, Row] = {}
    for row in rows:
        cell = json.dumps(row["facts"]["cell"], sort_keys=True)
        if row["validation_loss"] is not None:
            of_cells[cell] = min(of_cells.get(cell, row), row, key=lambda each: float(each["validation_loss"]))
    return table(sorted(of_cells.values(), key=lambda row: float(row["validation_loss"])))


def left_out(rows: Sequence[Row]) -> str:
    """How many cells of the study one corpus lacks."""
    measured = [row["facts"]["cell"] for row in rows]
    missing = sum(cell.facts not in measured for cell in CELLS)
    return f"{missing} of the {len(CELLS)} cells (`CELLS` in `stages/recipe/cells.py`) are not measured on this corpus."


def cells(row: Row, lowest: float) -> list[str]:
    """The cells of one row."""
    loss = row["validation_loss"]
    shown = "diverged" if loss is None else f"**{loss:.3f}**" if loss == lowest else f"{loss:.3f}"
    trained = row["learning_rate"] > 0
    figures = (("bleu4", 4), ("empty", 3), ("distinct", 3))
    return [
        f"`{row['format']}`",
        row["method"],
        f"{row['embeddings_rate']:g}" if "," in row["method"] else "",
        row["schedule"] if trained else "",
        str(row["batch_size"]) if trained else "",
        str(row["seed"]) if trained else "",
        f"{row['learning_rate']:.2g}" if trained else "",
        shown,
        *("" if loss is None else f"{row[name]:.{digits}f}" for name, digits in figures),
    ]
