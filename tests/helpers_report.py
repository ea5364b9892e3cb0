"""A project with experiments that were never run (real DVC and real scores, but random responses); runs in memory."""

import argparse
import contextlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.bootstrap import bleu_of_sums, loss_of_sums, losses_of, sentence_counts
from stages.plumbing.files import output_folder, write_json
from stages.records import Dialogue, Pair, References, Response
from stages.report.results import Revision
from stages.report.runs import Run
from stages.score import __main__ as score
from stages.score.variety import DIGITS
from tests.helpers_scores import write_responses, write_subset
from tests.tiny import change_params, command, commit_all, read_yaml, shipped_params, tiny_project

WORDS = [f"word{number}" for number in range(28)]
TEST_PAIRS, TRAINING_DIALOGUES = 80, 60
ODD = 'a|b *c* `d` <b>e</b> <script>alert("f")</script> [g](http://h.example/i) ![j](http://h.example/k.png) $l$ & _m_'


def sentence(chance: random.Random) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(chance.randint(6, 12)))


def corpus(regime: float) -> tuple[list[Pair], list[Pair], list[Dialogue]]:
    """Training pairs of a regime, test pairs, training dialogues; the last 20 test pairs are also training pairs."""
    chance = random.Random(0)
    test = [Pair(f"t{number:02}", 0, sentence(chance), sentence(chance)) for number in range(TEST_PAIRS)]
    train = [Pair(f"d{number:02}", 0, sentence(chance), sentence(chance)) for number in range(TRAINING_DIALOGUES)]
    train = [Pair(f"l{number:02}", 0, each.query, each.response) for number, each in enumerate(test[-20:])] + train
    train = train[: round(len(train) * regime / 100)]
    return train, test, [Dialogue(each.dialogue, [each.query, each.response]) for each in train]


def answers(test: Sequence[Pair], copied: Sequence[str], quality: float, seed: int) -> list[str]:
    """Responses with a share `quality` of the reference's words; the first two are copied from `copied`."""
    chance = random.Random(seed)
    made = [
        " ".join(word if chance.random() < quality else chance.choice(WORDS) for word in pair.response.split())
        for pair in test
    ]
    return [*copied[:2], ODD, *made[3:]]


def write_results(project: Path, quality: float, rates: Sequence[float], diverged: int = 0) -> None:
    """Write what `dvc repro` would write with the present params.yaml; `rates` are the trials' BLEU-4."""
    params = read_yaml(project / "params.yaml")
    for name in ("download/dialogues", "download/model", "pair_extract"):
        with output_folder(project / "data" / name) as folder:
            (folder / "content").write_text(params["model"], encoding="utf-8")
    train, test, dialogues = corpus(params["regime"])
    references = [References(each.dialogue, each.position, [f"{each.response} word0"]) for each in test[:30]]
    subset = write_subset(project / "data/subset", train, test, dialogues, references)
    trials = [
        {
            "trial": number,
            "learning_rate": 1e-5 * 10**number,
            "bleu4": bleu4,
            "epoch": 3,
            "status": "diverged at 7" if number >= len(rates) - diverged else "finished",
        }
        for number, bleu4 in enumerate(rates)
    ]
    with output_folder(project / "data/train") as folder:
        write_json(folder / "method.json", {"environment": {"torch": "9.9", "device": "cpu"}})
    seed = hash((params["method"] == "soft", params["model"] == "gpt2", params["regime"]))
    responses = answers(test, [train[0].response, train[1].query], quality, seed)
    unended = [number % 8 == 0 for number in range(len(test))]
    write_responses(project / "data/greedy_generate", test, responses, unended, cut_queries=0)
    metrics = project / "metrics"
    for name in ("pairs", "subset", "train"):
        write_json(metrics / f"{name}.json", {"learning_rate": 1e-4, "trained_parameters": 7})
    for stage, counted in (("train", "pairs"), ("greedy_generate", "responses")):
        cost: dict[str, Any] = {
            "seconds": 20.0,
            counted: 80,
            f"{counted}_per_second": 4.0,
            "peak_memory_bytes": 3 * 10**9,
        }
        cost |= {"validation_seconds": 5.0, "trained_parameters": 7, "bytes": 28, "peak_gpu_bytes": None, "stopped": 0}
        write_json(metrics / "cost" / f"{stage}.json", cost)
    write_json(metrics / "learning_rates.json", trials)
    write_json(metrics / "curves.json", [{"trial": 0, "epoch": 1, "bleu4": 0.1, "learning_rate": 1e-4}])
    paths = {"subset": subset, "responses": project / "data/greedy_generate"}
    with contextlib.chdir(project):
        score.main(argparse.Namespace(**paths, scores=metrics / "scores.json", rows=metrics / "scores"))


def switch(project: Path, **switches: Any) -> None:
    """Change params.yaml; `__` stands for the dots of a key."""
    change_params(project, {name.replace("__", "."): value for name, value in switches.items()})


def save(project: Path, name: str, quality: float, rates: Sequence[float], diverged: int = 0, **switches: Any) -> None:
    """Make an experiment with made-up results."""
    switch(project, **switches)
    write_results(project, quality, rates, diverged)
    command(project, "dvc", "exp", "save", "--force", "--name", name)


def project_with_results(folder: Path, quality: float = 0.8, **switches: Any) -> Path:
    """A project whose first commit has results; by default those of dynamic prompts on GPT-2."""
    project = tiny_project(folder, kept=("dailydialog", "gpt2", "dialogpt", "smollm2", "paper", "quick"))
    first = {"dataset": "dailydialog", "model": "gpt2", "method": "dynamic", "regime": 100, "protocol": "paper"}
    switch(project, **first, **switches)
    write_results(project, quality, [0.1, 0.3, 0.2])
    command(project, "dvc", "commit", "--force")
    commit_all(project)
    return project


class MemoryFiles(Revision):
    """A revision with the given files: JSON content, or records."""

    def __init__(self, files: dict[str, Any]) -> None:
        super().__init__(Path("nowhere"), "0" * 40)
        self.files = files

    def read(self, path: str) -> bytes | None:
        content = self.files.get(path)
        if path.endswith(".json"):
            return None if content is None else json.dumps(content).encode()
        return None if content is None else b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in content)


# Of each method: the share of right words, validation loss, trained parameters, seconds; as on the default data.
METHODS = {
    "fine-tune": (0.5, 3.75, 134_515_008, 210.0),
    "soft": (0.45, 3.93, 28_385_280, 190.0),
    "dynamic": (0.48, 3.85, 35_392_320, 212.3),
    "lora": (0.55, 3.74, 2_442_240, 240.0),
    "soft-frozen": (0.42, 4.06, 73_728, 150.0),
    "dynamic-frozen": (0.44, 4.01, 7_080_768, 170.0),
    "embeddings": (0.40, 4.07, 28_311_552, 180.0),
    "zero-shot": (0.35, 4.17, 0, 12.0),
}


DEFAULTS = {"dataset": "chitchat", "model": "smollm2", "protocol": "quick", "regime": 100, "drop_overlap": False}


def hardness(pairs: int, seed: int) -> list[float]:
    """How much harder than the mean each test pair is, the same for all methods: more than methods differ."""
    chance = random.Random(f"pairs {seed}")
    return [chance.uniform(-2, 2) for _ in range(pairs)]


def run_in_memory(
    method: str,
    seed: int = 0,
    measured: bool = True,
    part: slice = slice(None),
    device: str | None = "cpu",
    files: dict[str, Any] | None = None,
    **switches: Any,
) -> Run:
    """A run that exists only in memory, with the default data and protocol, and made-up results.

    measured: its costs and what it forgot are known. part: of the test pairs.
    """
    quality, loss, parameters, seconds = METHODS[method]
    params = shipped_params() | {"method": method, "seed": seed, **DEFAULTS} | switches
    train, test, _ = corpus(params["regime"])
    chance = random.Random(f"{method} {seed}")
    given = answers(test, [train[0].response, train[1].query], quality + chance.uniform(-0.02, 0.02), seed)
    responses = [
        Response(
            each.dialogue,
            each.position,
            each.query,
            each.response,
            answer,
            False,
            round(5 * (loss + hard + chance.uniform(-0.5, 0.5)), 4) if measured else None,
            5 if measured else None,
        )
        for (each, answer), hard in zip(zip(test, given, strict=True), hardness(len(test), seed), strict=True)
    ][part]
    counts = sentence_counts([each.response for each in responses], [each.reference for each in responses])
    row: dict[str, Any] = {f"bleu{order}": quality / order for order in (1, 2, 3)}
    row |= {"bleu4": round(float(bleu_of_sums(counts.sum(0))), DIGITS), "matches": counts.sum(0)[2:6].tolist()}
    known = losses_of(responses)
    if known is not None:
        row["loss"] = round(float(loss_of_sums(known.sum(0))), DIGITS)
    row |= {"novelty": 0.95, "diversity": 0.9 + chance.uniform(-0.02, 0.02), "empty": 0.0, "pairs": len(responses)}
    trial = {"trial": 0, "bleu4": 0.1, "validation_loss": loss + chance.uniform(-0.02, 0.02), "status": "finished"}
    rates = [{**trial, "learning_rate": rate, "epoch": 1 if parameters else 0} for rate in (1e-4, 1e-3, 1e-2)]
    cost = {
        "train": {
            "seconds": seconds + seed, "validation_seconds": 40.1, "pairs": 1374, "pairs_per_second": 6.5,
            "trained_parameters": parameters, "bytes": 4 * parameters, "peak_memory_bytes": 5_000_000_000,
            "peak_gpu_bytes": None, "stopped": 0,
        },
        "greedy_generate": {
            "seconds": 20.1, "responses": 200, "responses_per_second": 9.9, "peak_memory_bytes": 2_000_000_000,
            "peak_gpu_bytes": None,
        },
    }  # fmt: skip
    before = {"loss_before": 3.9, "tokens": 5000, "text": "the test part of dailydialog"}
    forgotten = before | {"loss_after": 4.1, "difference": 0.2 + seed / 100, "interval": [0.1, 0.3]}
    ends = {"loss_interval": [loss - 0.1, loss + 0.1]} if known is not None else {}
    baselines = {name: row | {"loss": None} for name in ("human", "retrieval", "shuffled")}
    scores = {**row, **ends, "unseen": row, "unlike": row, **baselines, "training_pairs": len(train)}
    scores |= {"generation": {"device": device}, "parts": {part: "1" * len(responses) for part in ("unseen", "unlike")}}
    content = {
        "data/greedy_generate/responses.jsonl": responses,
        "data/subset/train.jsonl": train,
        "metrics/learning_rates.json": rates,
        "metrics/scores.json": scores | {"forgetting": forgotten if measured and parameters else None},
        **({f"metrics/cost/{stage}.json": each for stage, each in cost.items()} if measured else {}),
        **(files or {}),
    }
    name = f"{params['model']}-{method}-{params['regime']}-seed-{seed}"
    return Run(name, "0" * 40, params, content["metrics/scores.json"], MemoryFiles(content))
