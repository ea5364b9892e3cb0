"""Workspaces in which a stage can run: a tiny model, a dozen dialogues and params.yaml."""

from pathlib import Path
from typing import Any

from stages.plumbing.files import output_folder
from stages.records import Dialogue, write_records
from tests.helpers_scores import pairs_in
from tests.stage_runs import contents
from tests.tiny import change_params, shipped_params, tiny_dialogues, tiny_model, tiny_protocol, write_yaml

PROTOCOL = tiny_protocol(
    learning_rates={"low": 0.001, "high": 0.01, "trials": 3}, batch_size=4, num_train_epochs=4,
    early_stopping_patience=2, weight_decay=0.01, warmup_steps=2, max_grad_norm=1.0, dropout=0.1,
)  # fmt: skip


def write_subset(folder: Path, dialogues: int = 16, test_seed: int = 2) -> None:
    with output_folder(folder) as made:
        for split, seed in (("train", 0), ("validation", 1), ("test", test_seed)):
            turns = tiny_dialogues(dialogues if split == "train" else 6, seed)
            own = [Dialogue(f"{split}-{number}", each) for number, each in enumerate(turns)]
            write_records(made / f"{split}.jsonl", pairs_in(own))
            if split == "train":
                write_records(made / "turns.jsonl", own)


def workspace(folder: Path, **changes: Any) -> Path:
    """Make a folder with params.yaml, data/subset and data/download/model, ready to train; `changes`: dotted keys."""
    folder.mkdir(parents=True, exist_ok=True)
    params = shipped_params()
    params["protocols"]["tiny"] = PROTOCOL
    params |= {"protocol": "tiny", "runtime": {**params["runtime"], "device": "cpu", "threads": 1}}
    params["models"][params["model"]]["prompt_template"] = {"separator": "<end-of-text>", "end": "<end-of-text>"}
    write_yaml(folder / "params.yaml", params)
    change_params(folder, changes)
    write_subset(folder / "data/subset")
    with output_folder(folder / "data/download/model") as model:
        tiny_model(model)
    return folder


def result(folder: Path) -> dict[str, str]:
    """sha256 of every artifact of the stage that must repeat: of all but what it cost."""
    found = contents(folder / "data/train", folder / "metrics")
    return {name: value for name, value in found.items() if not name.startswith("metrics/cost/")}
