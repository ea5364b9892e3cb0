"""Made-up trained methods: quickly written folders of the stages, with randomly changed weights."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stages.language_model.loading import load_base_model
from stages.methods.few_shot import CONTEXT
from stages.methods.method import EMBEDDINGS
from stages.methods.registry import build_method
from stages.methods.soft import PROMPT
from stages.methods.trained_method import write_trained
from stages.plumbing.files import check_folder, files_hash, output_folder
from stages.records import Dialogue, Pair, write_records
from tests.helpers_report import switch, write_results
from tests.models import SETTINGS
from tests.tiny import (
    command,
    commit_all,
    shipped_params,
    tiny_dialogues,
    tiny_model,
    tiny_project,
    write_yaml,
)

LENGTHS = {"max_query_tokens": 32, "max_new_tokens": 10}
FORMATS: dict[str, dict[str, str]] = {
    "end-of-text": {"prefix": "", "separator": "<end-of-text>", "end": "<end-of-text>"},
    "text": {"prefix": "A: ", "separator": "\nB: ", "end": "\n"},
}
QUERIES = [
    "my sister is really great", "Are you sure ?", "", "naïve café 😀 שלום", "the weather " * 30,
    "<|endoftext|> is text here", "that book was a surprise", "No way !", "two\nlines",
]  # fmt: skip


EXAMPLES = [[40, 41, 42, 43], [44, 45, 46]]  # rows of training pairs, as tokens


def write_model(folder: Path, family: str = "llama", tied: bool = True) -> Path:
    """A tiny base model as the stage download writes one."""
    with output_folder(folder) as made:
        tiny_model(made, family, tied)  # type: ignore[arg-type]
    return folder


def write_method(
    folder: Path,
    model: Path,
    name: str,
    text: dict[str, str] | str,
    moved: float = 0.02,
    seed: int = 0,
    nearest: Path | None = None,
) -> Path:
    """Write what the stage train writes for `name` of tests/models.py; `moved`: change its initial weights randomly.

    nearest: the file of training pairs, of which few-shot looks up three for each query.
    """
    base = load_base_model(model, torch.device("cpu"), torch.float32)
    settings = SETTINGS[name].model_copy(update={"choose": "nearest"} if nearest else {})
    generator = torch.Generator().manual_seed(seed)
    weights = build_method(base, settings).initial_weights(generator, EXAMPLES)
    for key, value in weights.items():
        if key == CONTEXT:
            continue
        size = 10 * moved if key in (EMBEDDINGS, PROMPT) else moved
        weights[key] = value + size * torch.randn(value.shape, generator=generator)
    description: dict[str, Any] = {
        "method": settings.model_dump(), "base_model": files_hash(check_folder(model)), "learning_rate": 1e-3,
        "epoch": 2, "validation_bleu4": 0.01, "validation_loss": 3.5, "best_at_range_end": None, "seed": seed,
        "training": {}, "lengths": LENGTHS, "prompt_template": text, "environment": {},
        **({"examples": 3} if nearest else {}),
    }  # fmt: skip
    with output_folder(folder) as made:
        if weights:
            save_file(weights, folder.with_name(f"{folder.name}-weights"))
        saved = folder.with_name(f"{folder.name}-weights") if weights else None
        write_trained(made, saved, description, nearest or Path())
    return folder


def write_subset(folder: Path) -> Path:
    """Write training pairs and turns as the stage subset does."""
    dialogues = tiny_dialogues(16)
    pairs = [Pair(f"train-{number}", 0, turns[0], turns[1]) for number, turns in enumerate(dialogues)]
    with output_folder(folder) as made:
        for split in ("train", "validation", "test"):
            write_records(made / f"{split}.jsonl", pairs)
        write_records(made / "turns.jsonl", [Dialogue(f"train-{n}", turns) for n, turns in enumerate(dialogues)])
    return folder


def write_params(folder: Path, name: str, text: dict[str, str] | str, **changes: Any) -> None:
    """params.yaml with the method and the lengths that `write_method` writes; `changes` are switches and tables."""
    params = shipped_params()
    rate = {} if name in ("zero-shot", "few-shot") else {"learning_rate": 1e-3}
    params["methods"][name] = SETTINGS[name].model_dump() | rate
    params["models"]["smollm2"]["prompt_template"] = text
    params["protocols"]["quick"]["lengths"] = LENGTHS
    params |= {"method": name, "runtime": {**params["runtime"], "device": "cpu", "threads": 1}, **changes}
    write_yaml(folder / "params.yaml", params)


def trained_workspace(
    folder: Path, name: str = "dynamic", family: str = "llama", tied: bool = True, text: str = "text", **changes: Any
) -> Path:
    """A workspace with params.yaml, data/download/model, data/subset and data/train."""
    folder.mkdir(parents=True, exist_ok=True)
    model = write_model(folder / "data/download/model", family, tied)
    write_method(folder / "data/train", model, name, FORMATS[text])
    write_subset(folder / "data/subset")
    write_params(folder, name, FORMATS[text], **changes)
    return folder


def trained_project(folder: Path) -> Path:
    """A project with real DVC: dynamic prompts in the last commit and the workspace, and an experiment `softly` (soft).

    The scores are those of random answers; the data comes from tests/helpers_report.py.
    """
    project = tiny_project(folder, kept=("dailydialog", "gpt2", "quick"))
    switch(project, dataset="dailydialog", model="gpt2", method="dynamic", protocol="quick", pairs__history=3)
    switch(project, models__gpt2__prompt_template=FORMATS["text"], protocols__quick__lengths=LENGTHS)
    _fill(project, "dynamic")
    command(project, "dvc", "commit", "--force")
    commit_all(project)
    switch(project, method="soft")
    _fill(project, "soft")
    command(project, "dvc", "exp", "save", "--force", "--name", "softly")
    command(project, "git", "checkout", "--", ".")
    command(project, "dvc", "checkout", "--force")
    return project


def trained_copy(factory: pytest.TempPathFactory) -> Path:
    """A copy of `trained_project` for a test file; the project is made once for all processes that run tests."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # then that is the process's own folder, beside those of the others
        folder = folder.parent
    project, made = folder / "trained/project", folder / "trained/made"
    made.parent.mkdir(exist_ok=True)
    with (folder / "trained/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not made.exists():
            trained_project(project)
            made.touch()
    return Path(shutil.copytree(project, factory.mktemp("trained") / "project", symlinks=True))


def _fill(project: Path, name: str) -> None:
    """Results of every stage, with a base model and a trained method that can answer."""
    write_results(project, 0.5, [0.1, 0.3, 0.2])
    model = write_model(project / "data/download/model", "gpt2")
    write_method(project / "data/train", model, name, FORMATS["text"])
    project.joinpath("data/train-weights").unlink()
