"""Runs of a made-up corpus with random responses, in memory."""

import random
from collections.abc import Sequence
from typing import Any

from stages.bootstrap import bleu_of_sums, loss_of_sums, losses_of, sentence_counts
from stages.records import Dialogue, Pair, Response
from stages.report.runs import RESPONSES, Run, columns_of
from stages.score.variety import DIGITS
from tests.tiny import shipped_params

WORDS = [f"word{number}" for number in range(28)]
TEST_PAIRS, TRAINING_DIALOGUES = 80, 60
PAPERS: dict[str, Any] = {"dataset": "dailydialog", "protocol": "paper"}
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


def costs(seconds: float, parameters: int) -> dict[str, dict[str, Any]]:
    """What the stages train and greedy-generate write of what they cost."""
    memory = {"peak_memory_bytes": 5_000_000_000, "peak_gpu_bytes": None}
    train: dict[str, Any] = {"seconds": seconds, "validation_seconds": 40.1, "pairs": 1374, "pairs_per_second": 6.5}
    train |= {"trained_parameters": parameters, "bytes": 4 * parameters, "precision": "float32"}
    generate: dict[str, Any] = {"seconds": 20.1, "responses": 200, "responses_per_second": 9.9}
    return {"train": train | memory, "greedy_generate": generate | memory}


def run_in_memory(
    method: str,
    seed: int = 0,
    measured: bool = True,
    part: slice = slice(None),
    files: dict[str, Any] | None = None,
    baseline: str = "f" * 40,
    **switches: Any,
) -> Run:
    """A run that exists only in memory, with the default data and protocol, and made-up results.

    measured: its costs and what it forgot are known. part: of the test pairs.
    """
    quality, loss, parameters, seconds = METHODS[method]
    params = shipped_params() | {"method": method, "seed": seed} | switches
    train, test, _ = corpus(params["regime"])
    chance = random.Random(f"{method} {seed}")
    given = answers(test, [train[0].response, train[1].query], quality + chance.uniform(-0.02, 0.02), seed)
    responses, of_pairs = [], random.Random(f"pairs {seed}")
    for each, answer in zip(test, given, strict=True):
        hard = of_pairs.uniform(-2, 2)  # harder than the mean, for all methods: pairs differ more than methods
        losses = (round(5 * (loss + hard + chance.uniform(-0.5, 0.5)), 4), 5) if measured else (None, None)
        responses.append(Response(each.dialogue, each.position, each.query, each.response, answer, False, *losses))
    responses = responses[part]
    counts = sentence_counts([each.response for each in responses], [[each.reference] for each in responses])
    row: dict[str, Any] = {f"bleu{order}": quality / order for order in (1, 2, 3)}
    row |= {"bleu4": round(float(bleu_of_sums(counts.sum(0))), DIGITS), "matches": counts.sum(0)[2:6].tolist()}
    sums = losses_of(responses)
    if sums is not None:
        row["loss"] = round(float(loss_of_sums(sums.sum(0))), DIGITS)
    row |= {"novelty": 0.95, "diversity": 0.9 + chance.uniform(-0.02, 0.02), "empty": 0.0, "pairs": len(responses)}
    trial = {"trial": 0, "bleu4": 0.1, "validation_loss": loss + chance.uniform(-0.02, 0.02), "status": "finished"}
    rates = [{**trial, "learning_rate": rate, "epoch": 1 if parameters else 0} for rate in (1e-4, 1e-3, 1e-2)]
    before = {"loss_before": 3.9, "tokens": 5000, "text": "scikit-learn"}
    forgotten = before | {"loss_after": 4.1, "difference": 0.2 + seed / 100, "interval": [0.1, 0.3]}
    ends = {"loss_interval": [loss - 0.1, loss + 0.1]} if sums is not None else {}
    baselines = {name: row | {"loss": None} for name in ("human", "retrieval", "shuffled")}
    scores = {**row, **ends, "unseen": row, "unlike": row, **baselines, "training_pairs": len(train)}
    scores |= {"generation": {"device": "cpu"}, "parts": {part: "1" * len(responses) for part in ("unseen", "unlike")}}
    known = costs(seconds + seed, parameters) if measured else {}
    scores |= {"forgetting": forgotten if measured and parameters else None}
    content = {f"metrics/cost/{stage}.json": each for stage, each in known.items()}
    chosen: dict[str, Any] = {**rates[0], "best_at_range_end": "lowest"}
    search: dict[str, Any] = {"metrics/learning_rates.json": rates, "metrics/train.json": chosen}
    content |= search | {RESPONSES: columns_of(responses)} | (files or {})
    name = f"{params['dataset']}-{params['model']}-{method}-{params['regime']}-seed-{seed}"
    return Run(name, "0" * 40, baseline, scores, params, content)
