"""Made-up trained methods, with randomly changed weights, in quickly written folders of the stages and in a project."""

import argparse
import contextlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
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
from stages.plumbing.files import check_folder, files_hash, output_folder, write_json
from stages.records import References
from stages.score import __main__ as score
from tests.helpers_report import answers, corpus, costs
from tests.helpers_scores import write_responses, write_subset
from tests.models import SETTINGS
from tests.scratch import made_once
from tests.tiny import change_params, command, commit_all, tiny_model, tiny_project
from tests.training_runs import workspace

LENGTHS = {"max_query_tokens": 32, "max_new_tokens": 10}
FORMATS: dict[str, dict[str, str]] = {
    "end-of-text": {"prefix": "", "separator": "<end-of-text>", "end": "<end-of-text>"},
    "text": {"prefix": "A: ", "separator": "\nB: ", "end": "\n"},
}
QUERIES = [
    "my sister is really great", "Are you sure ?", "", "naïve café 😀 שלום", "the weather " * 30,
    "<|endoftext|> is text here", "that book was a surprise", "No way !", "two\nlines ", "nai\u0308ve",
]  # fmt: skip
EXAMPLES = [[40, 41, 42, 43], [44, 45, 46]]  # rows of training pairs, as tokens


def write_model(folder: Path, family: str = "llama", tied: bool = True) -> Path:
    """A tiny base model as the stage download writes one."""
    with output_folder(folder) as made:
        tiny_model(made, family, tied)
    return folder


def write_method(
    folder: Path,
    model: Path,
    name: str,
    text: dict[str, str] | str = FORMATS["text"],
    moved: float = 0.02,
    nearest: Path | None = None,
) -> Path:
    """Write what the stage train writes for `name` of tests/models.py; `moved`: change its initial weights randomly.

    nearest: the file of training pairs, of which few-shot looks up three for each query.
    """
    base = load_base_model(model, torch.device("cpu"), torch.float32)
    settings = SETTINGS[name].model_copy(update={"choose": "nearest"} if nearest else {})
    generator = torch.Generator().manual_seed(0)
    weights = build_method(base, settings).initial_weights(generator, EXAMPLES)
    for key, value in weights.items():
        if key == CONTEXT:
            continue
        size = 10 * moved if key in (EMBEDDINGS, PROMPT) else moved
        weights[key] = value + size * torch.randn(value.shape, generator=generator)
    description: dict[str, Any] = {
        "method": settings.model_dump(), "base_model": files_hash(check_folder(model)), "learning_rate": 1e-3,
        "epoch": 2, "validation_bleu4": 0.01, "validation_loss": 3.5, "best_at_range_end": None, "seed": 0,
        "training": {}, "lengths": LENGTHS, "prompt_template": text, **({"examples": 3} if nearest else {}),
    }  # fmt: skip
    with output_folder(folder) as made, TemporaryDirectory() as beside:
        save_file(weights, saved := Path(beside, "weights"))
        write_trained(made, saved if weights else None, description, nearest or Path())
    return folder


def trained_workspace(folder: Path, family: str = "llama") -> Path:
    """A workspace with params.yaml, data/download/model, data/subset and data/train: dynamic prompts."""
    changes: dict[str, Any] = {
        "method": "dynamic",
        "methods.dynamic": SETTINGS["dynamic"].model_dump() | {"learning_rate": 1e-3},
        "models.smollm2.prompt_template": FORMATS["text"],
        "protocols.tiny.lengths": LENGTHS,
    }
    model = write_model(workspace(folder, **changes) / "data/download/model", family)
    write_method(folder / "data/train", model, "dynamic")
    return folder


def trained_project(folder: Path) -> Path:
    """A project with real DVC: dynamic prompts in the last commit and the workspace, and an experiment `softly` (soft).

    Its corpus is the one in tests/helpers_report.py, its scores are those of random answers.
    """
    project = tiny_project(folder, kept=("dailydialog", "gpt2", "quick"))
    switches = {"dataset": "dailydialog", "model": "gpt2", "protocol": "quick", "pairs.history": 3}
    lengths = {"models.gpt2.prompt_template": FORMATS["text"], "protocols.quick.lengths": LENGTHS}
    change_params(project, switches | lengths)
    _write_results(project, "dynamic", 0.8)
    command(project, "dvc", "commit", "--force")
    commit_all(project)
    save(project, "softly", "soft")
    command(project, "git", "checkout", "--", ".")
    command(project, "dvc", "checkout", "--force")
    return project


def save(project: Path, name: str, method: str) -> None:
    """Make an experiment with made-up results, worse than those of the last commit."""
    change_params(project, {"method": method})
    _write_results(project, method, 0.3)
    command(project, "dvc", "exp", "save", "--force", "--name", name)


def trained_copy(factory: pytest.TempPathFactory) -> Path:
    """A copy of `trained_project` for a test file; the project is made once for all processes that run tests."""
    project = made_once(factory, "trained", lambda folder: trained_project(folder / "project")) / "project"
    return Path(shutil.copytree(project, factory.mktemp("trained") / "project", symlinks=True))


def _write_results(project: Path, method: str, quality: float) -> None:
    """Write what `dvc repro` would, with a base model and a trained method that can answer; quality: of the scores."""
    for name in ("download/dialogues", "pair_extract"):
        with output_folder(project / "data" / name) as folder:
            (folder / "content").write_text("x")
    model = write_model(project / "data/download/model", "gpt2")
    write_method(project / "data/train", model, method)
    train, test, dialogues = corpus(100)
    references = [References(each.dialogue, each.position, [f"{each.response} word0"]) for each in test[:30]]
    subset = write_subset(project / "data/subset", train, test, dialogues, references)
    said = answers(test, [train[0].response, train[1].query], quality, seed=0)
    responses = write_responses(
        project / "data/greedy_generate", test, said, [number % 8 == 0 for number in range(len(test))], cut_queries=0
    )
    metrics = project / "metrics"
    for name in ("pairs", "subset", "train"):
        write_json(metrics / f"{name}.json", {"learning_rate": 1e-4, "trained_parameters": 7})
    for stage, cost in costs(20.0, 7).items():
        write_json(metrics / "cost" / f"{stage}.json", cost)
    trial = {"trial": 0, "learning_rate": 1e-4, "bleu4": 0.1, "epoch": 1, "status": "finished"}
    write_json(metrics / "learning_rates.json", [trial])
    write_json(metrics / "curves.json", [trial])
    paths = {"scores": metrics / "scores.json", "rows": metrics / "scores"}
    with contextlib.chdir(project):
        score.main(argparse.Namespace(subset=subset, responses=responses, **paths))
