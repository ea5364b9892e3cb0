"""Tables 1 and 2 of the paper: what it scored on DailyDialog with each of its 36 configurations."""

import csv
from pathlib import Path

DATASET, PROTOCOL = "dailydialog", "paper"
MODELS = ("gpt2", "dialogpt")
METHODS = ("fine-tune", "soft", "dynamic")
REGIMES = (10, 20, 30, 50, 70, 100)
SCORES = ("bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity")
DIGITS = 3  # of the paper's numbers

Six = dict[str, float]


def paper_scores() -> dict[tuple[str, str, float], Six]:
    """The paper's six scores by model, method and regime (percent), from paper.csv beside this file."""
    with Path(__file__).with_name("paper.csv").open(encoding="utf-8", newline="") as file:
        return {
            (row["model"], row["method"], float(row["regime"])): {name: float(row[name]) for name in SCORES}
            for row in csv.DictReader(file)
        }
