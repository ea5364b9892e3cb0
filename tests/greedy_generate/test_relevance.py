"""Relevance and hits are what plain transformers gives for the same tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.greedy_generate import relevance
from stages.greedy_generate.relevance import fits_of, within
from stages.language_model.encoding import encode_pairs
from stages.methods import reading
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import Relevance
from stages.records import Fit, Pair, write_records
from tests.models import plain_loss
from tests.trained import write_method, write_model

QUERIES = ["where are you ?", "do you like tea", "No way !", "my sister is great", "why", "the weather is nice", "Hi"]
PAIRS = [Pair(f"d{at}", 0, query, f"{query} I think {'so ' * at}") for at, query in enumerate(QUERIES)]
RESPONSES = ["", "yes", "yes", "I do not know", "my sister", "the weather", ""]


def model_of(folder: Path, family: str) -> TrainedMethod:
    model = write_model(folder / "model", family)
    return load_trained(write_method(folder / "trained", model, "zero-shot"), model)


def matrix(trained: TrainedMethod, pairs: list[Pair]) -> Tensor:
    """[answers, queries and behind them none]."""
    tokens, _ = encode_pairs(pairs, trained.tokenizer, trained.prompt_template, trained.lengths)
    asked = [*tokens["query"], trained.encode([""])[0]]
    model = trained.method.base.model
    return torch.tensor([[-plain_loss(model, query, answer) for query in asked] for answer in tokens["response"]])


def of_row(fits: list[Fit], row: str) -> list[Fit]:
    return [fit for fit in fits if fit.row == row]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_is_what_plain_transformers_gives(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 3)  # queries and answers are read in several parts
    monkeypatch.setattr(relevance, "AT_ONCE", 5)
    trained, others = model_of(tmp_path, family), len(PAIRS) - 2  # not the query in front, whose answer is in shuffled
    fits = fits_of(trained, trained.method, PAIRS, RESPONSES, Relevance(queries=7, others=others), 0)
    drawn = [int(fit.dialogue[1:]) for fit in of_row(fits, "human")]
    assert sorted(drawn) == list(range(len(PAIRS)))
    told = [PAIRS[at] for at in drawn]
    said = {
        "test": [replace(PAIRS[at], response=RESPONSES[at]) for at in drawn],
        "human": told,
        "shuffled": [replace(pair, response=told[at - 1].response) for at, pair in enumerate(told)],
    }
    hits = []
    for row, pairs in said.items():
        likely = matrix(trained, pairs)
        for at, fit in enumerate(of_row(fits, row)):
            assert fit.dialogue == pairs[at].dialogue
            assert fit.relevance == pytest.approx(float(likely[at, at] - likely[at, -1]), abs=2e-3)
            assert fit.hit == all(
                likely[at, at] > likely[at, (at + step) % len(PAIRS)] for step in range(1, others + 1)
            )
            hits.append(fit.hit)
    assert 0 < sum(hits) < len(hits)


def test_so_many_different_queries_are_drawn_by_the_seed(tmp_path: Path) -> None:
    trained, twice = model_of(tmp_path, "gpt2"), [*PAIRS, replace(PAIRS[0], dialogue="again")]
    settings = Relevance(queries=4, others=2)
    drawn = [
        [fit.dialogue for fit in of_row(fits_of(trained, trained.method, twice, [""] * 8, settings, seed), "test")]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(each) for each in drawn] == [4, 4, 4]
    every = fits_of(trained, trained.method, twice, [""] * 8, Relevance(queries=7, others=1), 0)
    assert len(of_row(every, "test")) == len(QUERIES)
    assert within(Relevance(queries=99, others=99), twice).model_dump() == {"queries": 7, "others": 5}
    assert within(settings, twice).model_dump() == {"queries": 4, "others": 2}


@pytest.mark.parametrize("count", [1, 2])
def test_without_other_queries_there_is_a_relevance_and_no_hit(count: int, tmp_path: Path) -> None:
    trained = model_of(tmp_path, "gpt2")
    settings = within(Relevance(queries=9, others=19), PAIRS[:count])
    fits = fits_of(trained, trained.method, PAIRS[:count], RESPONSES[:count], settings, 0)
    assert [fit.hit for fit in fits] == [None] * 3 * count
    assert any(fit.relevance for fit in fits)


def test_the_untouched_model_sees_no_examples(tmp_path: Path) -> None:
    trained = model_of(tmp_path, "gpt2")
    write_records(tmp_path / "pairs", PAIRS)
    model, near = tmp_path / "model", tmp_path / "pairs"
    looked_up = load_trained(write_method(tmp_path / "nearest", model, "few-shot", nearest=near), model)
    settings = Relevance(queries=7, others=2)
    found = [fits_of(one, trained.method, PAIRS, RESPONSES, settings, 0) for one in (trained, looked_up)]
    assert found[0] == found[1]
