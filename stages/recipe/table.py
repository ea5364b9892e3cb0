"""The recipe study as Markdown: metrics/recipe.md."""

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
`recipe-cpu.md` is an earlier study, with one rate for prompt and E and with fine-tuning on DailyDialog.
"""


def render(result: dict[str, Any]) -> str:
    """The whole study: a table a corpus, best loss in bold."""
    rows: list[Row] = result["rows"]
    environment = ", ".join(f"{name} {value}" for name, value in result["environment"].items())
    parts = [INTRODUCTION]
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        own = [row for row in rows if row["corpus"] == corpus]
        parts.append(f"## {corpus}\n\n{table(own)}\n\n{left_out(own)}\n")
    return "\n".join([*parts, f"Made with {environment}.\n"])


def table(rows: Sequence[Row]) -> str:
    """One corpus: its trials in the order in which they were run."""
    best = min(row["validation_loss"] for row in rows if row["validation_loss"] is not None)
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    lines += [" | ".join(cells(row, best)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def left_out(rows: Sequence[Row]) -> str:
    """How many cells of the study one corpus lacks."""
    measured = [row["facts"]["cell"] for row in rows]
    missing = sum(cell.facts not in measured for cell in CELLS)
    return f"{missing} of the {len(CELLS)} cells (`CELLS` in `stages/recipe/cells.py`) are not measured on this corpus."


def cells(row: Row, best: float) -> list[str]:
    """The cells of one row."""
    loss = row["validation_loss"]
    shown = "diverged" if loss is None else f"**{loss:.3f}**" if loss == best else f"{loss:.3f}"
    trained = row["learning_rate"] > 0
    return [
        f"`{row['format']}`",
        row["method"],
        f"{row['embeddings_rate']:g}" if "," in row["method"] else "",
        row["schedule"] if trained else "",
        str(row["batch_size"]) if trained else "",
        str(row["seed"]) if trained else "",
        f"{row['learning_rate']:.2g}" if trained else "",
        shown,
        f"{row['bleu4']:.4f}",
        f"{row.get('empty', 0):.3f}",
        f"{row.get('distinct', 0):.3f}",
    ]
