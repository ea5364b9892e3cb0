"""The score stage on a few pairs whose scores can be worked out by hand."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.plumbing.errors import StageError
from stages.records import Dialogue, Fit, Pair, References
from stages.score import copies
from stages.score.__main__ import main
from stages.score.diagnostics import diagnostics
from stages.score.leakage import exact_leakage, near_leakage
from stages.score.scorer import BESIDE, ROW, SIX
from stages.score.variety import novelty
from stages.similarity.bleu import bleu
from tests.helpers_scores import dailydialog, look_up, needs_dailydialog, pairs_in, write_responses, write_subset
from tests.tiny import shipped_params, write_yaml

TURNS = [
    Dialogue("t1", ["How are you today ?", "I am fine , thank you .", "And you ?", "Not too bad ."]),
    Dialogue("t2", ["Where is the bank ?", "It is just over there , sir .", "Thank you !"]),
]
TRAIN = pairs_in(TURNS)
TEST = [
    Pair("e1", 0, "How are you today ?", "I am fine , thank you ."),  # a training pair
    Pair("e1", 2, "And you ?", "I am very well indeed ."),  # a training query
    Pair("e2", 0, "Can you see the big bank ?", "Yes , it is just over there , sir ."),  # resembles one
    Pair("e2", 2, "Do you have a dog ?", "No , I have two cats ."),
]
RESPONSES = ["I am fine , thank you .", "I am very well .", "It is over there .", "I am fine , thank you ."]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_yaml(tmp_path / "params.yaml", shipped_params())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(place: Path) -> dict[str, Any]:
    """Run the stage on the folders of `place` and return what it wrote, with the rows under `rows`."""
    folders = {"subset": place / "subset", "responses": place / "responses"}
    main(argparse.Namespace(**folders, scores=place / "scores.json", rows=place / "rows"))
    rows = {path.stem: json.loads(path.read_text()) for path in sorted((place / "rows").iterdir())}
    scores: dict[str, Any] = json.loads((place / "scores.json").read_text())
    return {**scores, "rows": rows}


def score(
    place: Path,
    test: Sequence[Pair] = TEST,
    responses: Sequence[str] = RESPONSES,
    references: Sequence[References] = (),
    **more: Any,
) -> dict[str, Any]:
    """The scores of responses, of which write_responses can be given more."""
    facts: dict[str, Any] = {"regime": 50.0, "test": {"pairs": 4, "pairs_of_corpus": 9}}
    write_subset(place / "subset", TRAIN, test, TURNS, references, **facts)
    write_responses(place / "responses", test, responses, **more, cut_queries=3)
    return run(place)


def test_the_papers_six_come_first_and_are_right(place: Path) -> None:
    scores = score(place)
    assert tuple(scores)[:6] == SIX == ("bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity")
    assert scores["novelty"] == 0.5  # the first and the last response are training turns
    assert scores["diversity"] == 0.75
    assert scores["bleu4"] <= scores["bleu3"] <= scores["bleu2"] <= scores["bleu1"]
    # 7 + 5 + 4 + 3 of the 24 words match; the references have 30
    assert scores["bleu1"] == pytest.approx(19 / 24 * math.exp(1 - 30 / 24), abs=1e-6)
    low, high = scores["bleu4_interval"]
    assert low <= scores["bleu4"] <= high
    assert scores["distinct1"] == round(13 / 24, 6)  # 24 words, of which 13 differ


def test_each_part_of_the_test_set_has_its_own_scores(place: Path) -> None:
    scores = score(place)
    assert scores["pairs"] == 4
    assert scores["unseen"]["pairs"] == 2  # without the known pair and the known query
    assert scores["unseen"]["novelty"] == 0.5
    assert scores["unlike"]["pairs"] == 1  # the third reference is nearly a training response
    assert scores["unlike"]["novelty"] == 0.0
    assert scores["leakage"]["exact"] == {"queries": 0.5, "responses": 0.25, "pairs": 0.25}
    assert scores["leakage"]["near"] == {"queries": 0.5, "responses": 0.5, "pairs": 0.25}
    assert scores["parts"] == {"unseen": "0011", "unlike": "0001"}


def test_the_loss_is_a_mean_over_the_tokens_of_the_references_if_that_of_each_is_known(place: Path) -> None:
    losses: list[Any] = [(10.0, 5), (6.0, 3), (20.0, 4), (8.0, 8)]
    scores = score(place, losses=losses)
    assert scores["loss"] == scores["rows"]["test"]["loss"] == 2.2
    assert scores["unseen"]["loss"] == pytest.approx(28 / 12, abs=1e-6)
    assert scores["unlike"]["loss"] == 1.0
    low, high = scores["loss_interval"]
    assert 1.0 <= low < 2.2 < high <= 5.0
    assert scores["human"]["loss"] is scores["retrieval"]["loss_interval"] is None
    scores = score(place, losses=[*losses[:3], (None, None)])
    assert (scores["loss"], scores["loss_interval"]) == (None, None)
    assert "loss" not in scores["rows"]["test"]


def test_relevance_and_hits_are_means_over_the_answers_of_a_row(place: Path) -> None:
    values: dict[str, list[tuple[float, bool | None]]]
    values = {"test": [(1.0, True), (2.0, False), (-6.0, False)], "human": [(4.0, True)], "shuffled": [(0.5, None)]}
    fits = [Fit(row, f"d{at}", *own) for row, each in values.items() for at, own in enumerate(each)]
    scores = score(place, fits=fits)
    assert (scores["relevance"], scores["hits"]) == (-1.0, pytest.approx(1 / 3, abs=1e-6))
    low, high = scores["relevance_interval"]
    assert -6.0 <= low < -1.0 < high <= 2.0
    assert scores["hits_interval"][0] < 1 / 3 < scores["hits_interval"][1]
    # Where all or none hit, every draw of the bootstrap does: that is no certainty.
    assert (scores["human"]["relevance"], scores["human"]["hits"], scores["human"]["hits_interval"]) == (4.0, 1.0, None)
    assert (scores["shuffled"]["relevance"], scores["shuffled"]["hits"]) == (0.5, None)
    assert (scores["rows"]["test"]["relevance"], scores["rows"]["human"]["relevance"]) == (-1.0, 4.0)
    assert "relevance" not in scores["retrieval"]
    assert score(place)["hits"] is None


def test_people_the_lookup_and_a_control_stand_beside_the_model(place: Path) -> None:
    scores = score(place)
    human, lookup, control = scores["human"], scores["retrieval"], scores["shuffled"]
    assert [human[f"bleu{order}"] for order in (1, 2, 3, 4)] == [1.0] * 4
    assert human["bleu4_interval"] == [1.0, 1.0]
    assert (human["novelty"], human["unseen"]["novelty"], human["chrf"]) == (0.75, 1.0, 1.0)
    assert (lookup["novelty"], lookup["diversity"], lookup["exact"]) == (0.0, 0.75, 0.25)
    assert lookup["unseen"]["pairs"] == human["unseen"]["pairs"] == 2
    assert [control[name] for name in ("diversity", "mean_words")] == [human["diversity"], human["mean_words"]]
    assert control["bleu1"] < human["bleu1"]
    variants = scores["bleu_variants"]
    assert [list(each) for each in variants.values()] == [["label", "test", "human", "retrieval", "shuffled"]] * 2


def test_what_the_scores_depend_on_stands_beside_them(place: Path) -> None:
    scores = score(place, responses=["", *RESPONSES[1:]])
    assert scores["signature"].startswith("nrefs:1|case:mixed")
    assert scores["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|")
    assert scores["ead_vocabulary"] == 50_257  # GPT-2's
    assert (scores["protocol"], scores["training_pairs"]) == ("quick", len(TRAIN))
    assert scores["generation"] == {"cut_queries": 3}
    assert scores["subset"] == {"regime": 50.0, "test": {"pairs": 4, "pairs_of_corpus": 9}}
    assert scores["mean_words"] == (0 + 5 + 5 + 7) / 4


def test_what_went_wrong_with_the_responses_stands_beside_their_scores(place: Path) -> None:
    wrong = ["How are you today ?", "I am . I am . I am .", "", "No , I have two cats ."]
    scores = score(place, responses=wrong, unended=[False, True, False, False])
    shares = dict.fromkeys(("empty", "loops", "echoes", "unended", "exact"), 0.25)
    assert {name: scores[name] for name in shares} == shares
    unseen = {"empty": 0.5, "loops": 0.0, "echoes": 0.0, "unended": 0.0, "exact": 0.5}
    assert {name: scores["unseen"][name] for name in shares} == unseen
    assert (scores["human"]["exact"], scores["human"]["unended"]) == (1.0, None)


def test_further_references_give_every_row_a_second_bleu(place: Path) -> None:
    plain = score(place)
    references = [References("e1", 2, ["I am very well ."]), References("e2", 2, ["No .", "I am fine , thank you !"])]
    scores = score(place, references=references)
    assert (scores["references"]["pairs"], scores["references"]["further"]) == (2, 3)
    for row in (scores, scores["human"], scores["retrieval"]):
        assert row["several_references"]["pairs"] == (2 if row is scores["human"] else 4)
        assert row["unseen"]["several_references"]["pairs"] == (1 if row is scores["human"] else 2)
    assert scores["several_references"]["bleu4"] > scores["bleu4"]
    assert scores["human"]["several_references"]["bleu1"] < 1.0
    text = json.dumps(scores)
    without = json.loads(text, object_hook=lambda each: {k: v for k, v in each.items() if k != "several_references"})
    del without["references"]
    assert without == plain, "all else is as it was"


def test_the_seed_of_the_interval_is_that_of_the_parameters(place: Path) -> None:
    test = [replace(each, dialogue=f"{number:02}-{each.dialogue}") for number in range(10) for each in TEST]
    losses = [(float(number * number % 37), 3 + number % 5) for number in range(40)]
    first = score(place, test, RESPONSES * 10, losses=losses)
    params = (place / "params.yaml").read_text()
    (place / "params.yaml").write_text(params.replace("\nseed: 0", "\nseed: 1"))
    second = run(place)
    assert all(first[name] != second[name] for name in ("bleu4_interval", "loss_interval"))
    assert first["shuffled"]["bleu1"] != second["shuffled"]["bleu1"]


def test_without_a_matching_4_gram_bleu_4_has_no_interval(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score(place, responses=["I am well .", "I am very well .", "It is over there .", "I have a dog ."])
    assert scores["matches"] == [15, 6, 2, 1]
    assert scores["bleu4_interval"] is not None
    scores = score(place, responses=["I am well .", "I am well .", "It is over there .", "I have a dog ."])
    assert scores["matches"][3] == 0 < scores["bleu4"]
    assert scores["bleu4_interval"] is None
    assert "BLEU-4 of the model - (no matching 4-gram)" in capsys.readouterr().out


def test_the_interval_draws_dialogues(place: Path) -> None:
    """Two pairs of a dialogue with one loss are one piece of evidence."""
    losses = [(1.0, 1), (1.0, 1), (3.0, 1), (3.0, 1)] * 5
    test = [replace(each, dialogue=f"{number}-{each.dialogue}") for number in range(5) for each in TEST]
    low, high = score(place, test, RESPONSES * 5, losses=losses)["loss_interval"]
    alone = [replace(each, dialogue=f"{number:02}") for number, each in enumerate(test)]
    narrower = score(place, alone, RESPONSES * 5, losses=losses)["loss_interval"]
    assert high - low > 1.2 * (narrower[1] - narrower[0])


def test_a_row_a_file_with_the_same_numbers_but_no_bleu_without_a_match_and_few_beside_the_model_s(
    place: Path,
) -> None:
    scores = score(place)
    rows = scores["rows"]
    assert sorted(rows) == ["human", "retrieval", "test", "unseen"]
    assert scores["unseen"]["matches"][-1] == 0 and "bleu4" not in rows["unseen"]
    for name, row in rows.items():
        source = scores if name == "test" else scores[name]
        keys = [key for key in (ROW if name == "test" else BESIDE) if (name, key) != ("unseen", "bleu4")]
        assert row == {key: source[key] for key in keys if source.get(key) is not None}
    assert sum(map(len, rows.values())) <= 23


def test_a_part_without_pairs_has_no_scores_and_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score(place, TEST[:2], RESPONSES[:2])
    assert scores["unseen"] is scores["human"]["unlike"] is None
    assert scores["rows"]["unseen"] == {"pairs": 0}
    assert "the model on unseen pairs - (no pairs)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (TEST[:3], "3 responses for 4 test pairs"),
        ([TEST[1], TEST[0], *TEST[2:]], "responses.jsonl:1: its dialogue, position"),
        ([*TEST[:3], replace(TEST[3], response="What ?")], "responses.jsonl:4: its dialogue"),
    ],
)
def test_responses_to_other_pairs_are_refused(place: Path, answered: list[Pair], message: str) -> None:
    write_subset(place / "subset", TRAIN, TEST, TURNS)
    write_responses(place / "responses", answered, [each.response for each in answered])
    with pytest.raises(StageError, match=message):
        run(place)
    assert not (place / "scores.json").exists()


@needs_dailydialog
def test_the_figures_of_dailydialog() -> None:
    """By the parts of the stage alone: the whole of it takes half a minute."""
    (turns, train), test = dailydialog("train"), dailydialog("test")[1]
    queries, own = [each.query for each in test], [each.response for each in test]
    assert (len(train), len(test)) == (41637, 3700)
    leakages = exact_leakage(train, test), near_leakage(train, test)
    published = (
        {"queries": 0.241, "responses": 0.259, "pairs": 0.158},
        {"queries": 0.38, "responses": 0.38, "pairs": 0.279},
    )
    for leakage, shares in zip(leakages, published, strict=True):
        assert leakage.shares() == pytest.approx(shares, abs=5e-4)
    assert novelty(own, (turn for each in turns for turn in each.turns)) == pytest.approx(0.73, abs=1e-6)
    human = diagnostics(queries, own, own, [])
    assert (human["loops"], human["echoes"]) == pytest.approx((0.0, 0.0014), abs=5e-5)
    found = look_up(train, queries)
    assert diagnostics(queries, own, found, [])["exact"] == pytest.approx(0.1822, abs=5e-5)  # most of its BLEU-4
    parts = np.ones(len(test), dtype=np.bool_), *(each.unseen for each in leakages)
    assert [int(part.sum()) for part in parts] == [3700, 2458, 1981]
    bleus = [bleu([*compress(found, part)], [*compress(own, part)]) for part in parts]
    assert bleus == pytest.approx([0.3257, 0.1242, 0.0213], abs=1e-4)


def test_what_copies_alone_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A novelty of one leaves nothing to copies; one of zero lets every pair that stands in training be right."""
    names = "it", "her", "Paul", "Ann"
    test = [Pair("e", 0, f"what about {name} ?", f"I have seen {name} in the garden") for name in names]
    leaked = test[:2]
    turns = [Dialogue("t", [leaked[0].query, *(each.response for each in leaked)])]
    write_subset(tmp_path / "pairs", leaked, test, turns)
    copies.main(argparse.Namespace(pairs=tmp_path / "pairs", novelty=[1.0, 0.75, 0.0]))
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("2 of 4 test pairs stand in training; no copies")
    found = [re.findall(r"up to (\d) copies, BLEU-4 ([\d.]+) if drawn, ([\d.]+)", row)[0] for row in rows]
    assert [count for count, *_ in found] == ["0", "1", "2"]
    none, one, both = (float(drawn) for _, drawn, _ in found)
    assert none < one < both
