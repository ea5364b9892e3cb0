"""Which runs stand in one table, which of several of a configuration counts, and how numbers are written."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from stages.report.document import build, search_notes
from stages.report.figures import LOOK, Picture, to_svg
from stages.report.markdown import count, digits_for, plain, slug, spread, value
from stages.report.page import to_markdown
from stages.report.runs import RESPONSES, Collection, Run
from stages.report.settings import Cell, settings_of
from tests.helpers_report import PAPERS, run_in_memory
from tests.tiny import shipped_params

PARAMS = shipped_params()
PAPERS_TITLE = "dailydialog, protocol paper"


def with_protocol(**training: Any) -> dict[str, Any]:
    """The paper's protocol with other values of training."""
    own = PARAMS["protocols"]["paper"]
    return {"protocols": {**PARAMS["protocols"], "paper": {**own, "training": {**own["training"], **training}}}}


def titles(*runs: Run) -> list[str]:
    return [setting.title for setting in settings_of(runs)[0]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"regime": 30}, [PAPERS_TITLE]),
        ({"seed": 4}, [PAPERS_TITLE]),
        (with_protocol(learning_rates={"low": 1e-4, "high": 1e-3, "trials": 3}), [PAPERS_TITLE]),
        ({"drop_overlap": True}, [PAPERS_TITLE, f"{PAPERS_TITLE}, without overlap"]),
        ({"pairs": {**PARAMS["pairs"], "stride": 1}}, [PAPERS_TITLE, f"{PAPERS_TITLE}, stride 1"]),
        ({"relevance": {"queries": 16, "others": 7}}, [f"{PAPERS_TITLE} (relevance.others={each})" for each in (7, 9)]),
        (
            {"forgetting": {"text": "~/scikit-learn", "tokens": 512}},
            [f"{PAPERS_TITLE} (forgetting.tokens={each})" for each in (4096, 512)],
        ),
        ({"forgetting": None}, [PAPERS_TITLE]),
        (with_protocol(dropout=0.2), [f"{PAPERS_TITLE} (dropout={each})" for each in (0.1, 0.2)]),
    ],
    ids=["regime", "seed", "learning rates", "overlap", "pairs", "relevance", "forgetting", "kept earlier", "protocol"],
)
def test_runs_stand_in_one_table_if_they_differ_in_nothing_else(changes: dict[str, Any], expected: list[str]) -> None:
    other: dict[str, Any] = {**PAPERS, **changes}
    assert sorted(titles(run_in_memory("soft", **PAPERS), run_in_memory("dynamic", **other))) == expected


@pytest.mark.parametrize(
    ("changes", "so"),
    [
        ({}, True),
        ({"dataset": "dailydialog-files"}, True),
        ({"dataset": "chitchat"}, False),
        ({"drop_overlap": True}, False),
        ({"pairs": {**PARAMS["pairs"], "history": 2}}, False),
        (with_protocol(num_train_epochs=3), False),
    ],
)
def test_what_is_the_papers_experiment_is_told_by_its_values_not_by_the_name(changes: dict[str, Any], so: bool) -> None:
    switches: dict[str, Any] = {**PAPERS, **changes}
    [setting], _ = settings_of([run_in_memory("soft", **switches)])
    assert setting.as_in_paper == so


def test_two_contents_of_one_method_are_two_methods() -> None:
    other = {**PARAMS["methods"], "soft": {**PARAMS["methods"]["soft"], "prompt_tokens": 64}}
    [setting], _ = settings_of([run_in_memory("soft"), run_in_memory("soft", methods=other)])
    assert [cell.method for cell in setting.runs] == ["soft (prompt_tokens=128)", "soft (prompt_tokens=64)"]


def test_of_runs_of_one_configuration_that_with_most_rates_counts_and_the_other_is_named() -> None:
    fewer = {"metrics/learning_rates.json": [{"learning_rate": 1e-4, "validation_loss": 3.0, "bleu4": 0.1}]}
    first, second = run_in_memory("soft", files=fewer, **PAPERS), run_in_memory("soft", **PAPERS)
    [setting], repeated = settings_of([first, second])
    assert setting.runs[Cell("smollm2", "soft", 100.0)] == (second,)
    assert [(each.state, each.name) for each in repeated] == [("other learning rates", first.name)]
    unanswered = replace(second, name="again", files={**second.files, RESPONSES: {}})  # of a clone without its cache
    [_], repeated = settings_of([unanswered, second])
    assert [(each.state, each.name) for each in repeated] == [("the same parameters", "again")]


def test_each_seed_is_a_row_of_the_frame_and_the_baselines_stand_below() -> None:
    [setting], _ = settings_of([run_in_memory("soft", seed) for seed in (0, 1)] + [run_in_memory("lora")])
    frame = setting.frame
    assert frame["method"].tolist() == ["lora", "soft", "soft"] + ["people"] * 2 + ["lookup"] * 2 + ["shuffled"] * 2
    soft = setting.runs[Cell("smollm2", "soft", 100.0)]
    assert frame["loss"].tolist()[1:3] == [run.scores["loss"] for run in soft]
    assert frame["train.trained_parameters"].tolist()[1:3] == [28_385_280] * 2


@pytest.mark.parametrize("count", [0, 3])
def test_a_bleu_of_a_few_matching_4_grams_or_none_is_no_number(count: int) -> None:
    run = run_in_memory("zero-shot")
    scores = {**run.scores, "matches": [90, 30, 10, count]}
    [setting], _ = settings_of([replace(run, scores=scores)])
    row = setting.frame.iloc[0]
    assert math.isnan(row["bleu4"])
    assert (row["matches"], row["bleu1"]) == (count, scores["bleu1"])


def test_settings_that_differ_in_signs_have_figures_of_their_own() -> None:
    pairs = [{**PARAMS["pairs"], "history": 2, "joined_by": sign} for sign in (" ", " | ")]
    runs = tuple(run_in_memory("soft", seed, pairs=each) for each in pairs for seed in (0, 1))
    found = build(Collection(runs, ()))
    names = [block.name for block in found if isinstance(block, Picture)]
    assert len(names) == len(set(names)) > 1 and max(map(len, names)) < 120


def test_a_corpus_that_may_be_quoted_now_or_lies_elsewhere_is_the_same_corpus() -> None:
    entry = {**PARAMS["datasets"]["chitchat"], "quote": False, "license": None}
    earlier = run_in_memory("soft", datasets={**PARAMS["datasets"], "chitchat": entry})
    runs = (earlier, run_in_memory("lora"))
    own = [PARAMS["datasets"]["chitchat"] | {"source": f"file:{place}"} for place in ("chats", "/home/jane/texts")]
    moved = [run_in_memory("soft", seed, datasets={"chitchat": each}) for seed, each in enumerate(own)]
    assert titles(*runs) == titles(*moved) == ["chitchat, protocol quick"]
    (setting,), _ = settings_of([*runs, run_in_memory("soft", regime=10)])
    assert [setting.data(regime) for regime in (10, 100)] == ["7 dialogues, 8 pairs", "70 dialogues, 80 pairs"]
    text = to_markdown(build(Collection(runs, ()))).partition("## Answers")[2].partition("##")[2]
    assert "| lora | " in text and "| soft | word" not in text, "what it said then is not quoted"


def test_few_shot_shows_its_curve_by_the_number_of_examples() -> None:
    trials = [
        {"learning_rate": 0.0, "examples": count, "validation_loss": loss, "bleu4": None, "epoch": 0}
        for count, loss in ((16, 3.88), (1, 4.05), (4, 3.98))
    ]
    run = run_in_memory("zero-shot", files={"metrics/learning_rates.json": trials})
    other = [{**each, "validation_loss": loss} for each, loss in zip(trials, (4.04, 4.06, 4.02), strict=True)]
    second = run_in_memory("zero-shot", 1, files={"metrics/learning_rates.json": other})
    [setting], _ = settings_of([run, second])
    (line,) = search_notes(setting)
    curve = "4.055 ± 0.007 with 1, 4.00 ± 0.03 with 4, 3.96 ± 0.11 with 16 examples"
    assert line.replace("\u00a0", " ").endswith(f"validation loss {curve}")
    [setting], _ = settings_of([run])
    (line,) = search_notes(setting)
    assert "report/rates" not in to_markdown(build(Collection((run,), ()))), "none were tried"
    assert line.endswith("validation loss 4.050 with 1, 3.980 with 4, 3.880 with 16 examples")


def test_a_number_in_a_figure_keeps_its_digits() -> None:
    with rc_context(LOOK):
        (figure := Figure()).text(0.123456, 0.5, "0.123456")
        svg = to_svg(figure, "x")
    assert ">0.123456<" in svg and not re.search(r"<[^>]*\d\.\d{3}", svg)


def test_numbers_have_no_digit_that_their_uncertainty_blurs() -> None:
    assert [digits_for(width) for width in (0.09, 0.0035, 0.4, 12.0, 0.0)] == [2, 3, 1, 0, 4]
    assert spread([3.61, 3.70, 3.79], 3) == "3.70\u00a0±\u00a00.09"
    assert (spread([3.6104], 3), spread([2.0, 2.0], 1), spread([None, float("nan")])) == ("3.610", "2.0", "-")
    assert [count(each) for each in (134_515_008, 73_728, 7, None)] == ["135M", "73.7k", "7", "-"]


def test_text_is_shown_as_it_is_and_headings_can_be_linked() -> None:
    assert plain("a|b\n*c* <d> [e](f)") == r"a\|b \*c\* \<d\> \[e\](f)"
    assert slug("The search: 1e-3, *all*") == "the-search-1e-3-all"
    assert value("\nB: ") == '"\\nB: "'
