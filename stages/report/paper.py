"""Tables 1 and 2 of the paper: the scores of its 36 configurations on DailyDialog, and its protocol (App. B)."""

import csv
from pathlib import Path

from stages.grid.configurations import METHODS, MODELS, REGIMES

# DailyDialog: the sha256 of its text files, and of the archive of the training set that params.yaml pins.
CORPUS = {
    "train": {
        "3db42eef11758c62908fe3183ae93e7ac5c6da5f27771f340543d184973cee9e",
        "c5179ab5a9a86a77b9d29114087c6b82cc4cb366abea25a43a0c24be761133f7",
    },
    "validation": {"2ad64701fe3a4449e7a6ee7cdc6c2a71c80f77b8a34f708ac0532395f499081c"},
    "test": {"3c323651cdfb09f7b529f850eddf96a638fc6cc9b43330b77956ab248484a1a8"},
}
SCORES = {**{f"bleu{order}": f"BLEU-{order}" for order in range(1, 5)}, "novelty": "novelty", "diversity": "diversity"}
__all__ = ["METHODS", "MODELS", "REGIMES"]
DIGITS = 3  # of the paper's numbers
PROTOCOL = {  # App. B; keys as in an entry of `protocols` in params.yaml
    "data.train_dialogues": None,
    "data.validation_pairs": None,
    "data.test_pairs": None,
    "training.learning_rates.low": 3e-6,
    "training.learning_rates.high": 9e-3,
    "training.learning_rates.trials": 12,
    "training.batch_size": 8,
    "training.num_train_epochs": 300,
    "training.early_stopping_patience": 100,
}

Six = dict[str, float]


def paper_scores() -> dict[tuple[str, str, float], Six]:
    """The paper's six scores by model, method and regime (percent), from paper.csv in this folder."""
    with Path(__file__).with_name("paper.csv").open(encoding="utf-8", newline="") as file:
        return {
            (row["model"], row["method"], float(row["regime"])): {name: float(row[name]) for name in SCORES}
            for row in csv.DictReader(file)
        }
