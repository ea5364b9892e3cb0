"""The rules of the report, on runs that exist only in memory: what is compared, and when a claim holds."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from stages.bleu import bleu
from stages.records import Pair, Response
from stages.report.answers import Answers, Comparison, NotMeasured
from stages.report.claims import FAILS, HOLDS, NOT_MEASURED, OPEN, Judge
from stages.report.diagnostics import bleu_tables, diagnostics_tables
from stages.report.document import summary
from stages.report.figures import method_styles, model_dashes
from stages.report.markdown import anchor, plain, slug, value
from stages.report.methods_table import methods_table
from stages.report.paper import METHODS, MODELS, REGIMES, SCORES, paper_scores
from stages.report.rates import chosen, rates_of, validation_loss
from stages.report.revision import Revision
from stages.report.runs import Collection, Run, Runs
from stages.report.sections import rates_taken
from stages.report.settings import Cell, settings_of
from stages.report.stale import MISSING, look_up
from tests.tiny import ROOT, read_yaml

DATASETS = read_yaml(ROOT / "params.yaml")["datasets"]
RATES = {"low": 3e-6, "high": 9e-3, "trials": 12}
TRAINING: dict[str, Any] = {
    "learning_rates": RATES,
    "batch_size": 8,
    "num_train_epochs": 300,
    "early_stopping_patience": 100,
    "dropout": 0.1,
}
WHOLE: dict[str, Any] = {"train_dialogues": None, "validation_pairs": None, "test_pairs": None}
PAPER: dict[str, Any] = {"data": WHOLE, "training": TRAINING}
QUICK: dict[str, Any] = {"data": {**WHOLE, "test_pairs": 9}, "training": TRAINING}
PARAMS: dict[str, Any] = {
    "dataset": "dailydialog", "model": "gpt2", "method": "soft", "regime": 100, "protocol": "paper", "seed": 0,
    "drop_overlap": False, "pairs": {"stride": 2}, "datasets": DATASETS,
    "models": {"gpt2": {}, "dialogpt": {}}, "methods": {"soft": {"rows": 8}, "dynamic": {}, "fine-tune": {}},
    "protocols": {"paper": PAPER, "quick": QUICK},
}  # fmt: skip


def changed(table: str, **values: Any) -> dict[str, Any]:
    """The paper's protocol with other values in one of its tables."""
    return {**PAPER, table: {**PAPER[table], **values}}


def with_another(part: str) -> dict[str, Any]:
    """DailyDialog with another file for one of its parts."""
    entry = DATASETS["dailydialog"]
    return {**entry, "files": {**entry["files"], part: {"path": "mine.txt", "sha256": "0" * 64}}}


class Files(Revision):
    """A revision with the given files."""

    def __init__(self, **files: Any) -> None:
        super().__init__(Path("nowhere"), "0" * 40)
        self.files = {name.replace("__", "/"): content for name, content in files.items()}

    def read(self, path: str) -> bytes | None:
        content = self.files.get(Path(path).stem)
        return None if content is None else json.dumps(content).encode() if path.endswith("json") else content


def lines(*records: Pair | Response) -> bytes:
    return b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in records)


def make_run(responses: list[str] | None = None, bleu4: float = 0.1, **switches: Any) -> Run:
    """A run with these responses to the queries q0, q1, ...; the references are r0 r0 r0 r0 r0, ..."""
    params = {**PARAMS, **{name: value for name, value in switches.items() if name in PARAMS}}
    row = dict.fromkeys(SCORES, 0.95) | {"bleu4": bleu4, "empty": 0.0, "pairs": 40, **switches.get("row", {})}
    scores = {"unlike": switches.get("unlike", row), "human": row, "retrieval": row}
    files = Files(scores={**row, **scores}, train=switches.get("train", b""))
    if responses is not None:
        given = [Response("d", number, f"q{number}", reference(number), each) for number, each in enumerate(responses)]
        files.files["responses"] = lines(*given)
        row["bleu4"] = round(bleu(responses, [reference(number) for number in range(len(responses))]), 6)
    name = f"{params['model']}-{params['method']}-{params['regime']}"
    rows = {"test": row, "unseen": switches.get("unseen", row), "human": row, "retrieval": row}
    return Run(name, "experiment", "0" * 40, "0" * 40, params, rows, f"data-{params['regime']}", files)


def reference(number: int) -> str:
    return " ".join([f"r{number}"] * 5)


def answers(right: int, of: int = 40) -> list[str]:
    return [reference(number) if number < right else "wrong" for number in range(of)]


def judge(*runs: Run) -> dict[str, dict[str, str]]:
    """The verdicts on the claims about gpt2, by claim and part."""
    [setting], _ = settings_of(runs)
    found = Judge(setting, Answers()).claims()
    return {
        claim.text.split(":")[0] if "stops" in claim.text else claim.text: {
            part: each.verdict for part, each in claim.findings.items()
        }
        for claim in found
        if claim.model in ("gpt2", "both")
    }


def everywhere(verdict: str) -> dict[str, str]:
    return dict.fromkeys(("all", "unseen", "unlike"), verdict)


ORDER = "BLEU-4 at 100 %: dynamic > fine-tune"
STOPS = "soft stops improving above 30 %"
VARIED = "dynamic keeps novelty and diversity above 0.90"
LANGUAGE_MODELS = "BLEU-4 at 100 % with dynamic: gpt2 > dialogpt"


@pytest.mark.parametrize(
    ("dynamic", "fine_tune", "verdict"),
    [(30, 10, HOLDS), (10, 30, FAILS), (20, 20, OPEN), (20, 19, OPEN), (19, 20, OPEN)],
    ids=["better", "worse", "the same", "better by chance", "worse by chance"],
)
def test_one_method_is_above_or_below_another_if_it_is_so_by_more_than_chance(
    dynamic: int, fine_tune: int, verdict: str
) -> None:
    found = judge(make_run(answers(dynamic), method="dynamic"), make_run(answers(fine_tune), method="fine-tune"))
    assert found[ORDER] == everywhere(verdict)


def test_a_claim_about_runs_that_are_not_there_is_not_measured() -> None:
    found = judge(make_run(answers(30), method="dynamic"), make_run(answers(10), method="fine-tune", regime=50))
    assert found[ORDER] == found[STOPS] == found[LANGUAGE_MODELS] == everywhere(NOT_MEASURED)
    assert set(found) == {ORDER, "BLEU-4 at 100 %: fine-tune > soft", STOPS, VARIED, LANGUAGE_MODELS}


@pytest.mark.parametrize(
    ("at_30", "at_50", "at_100", "verdict"),
    [(20, 20, 20, HOLDS), (20, 20, 39, FAILS), (20, 39, 20, FAILS), (20, 20, 10, HOLDS), (20, 20, 21, OPEN)],
    ids=["the same", "100 is better", "50 is better", "100 is worse", "better by chance"],
)
def test_a_method_stops_improving_if_a_larger_regime_cannot_be_better_by_much(
    at_30: int, at_50: int, at_100: int, verdict: str
) -> None:
    runs = [make_run(answers(right), regime=regime) for right, regime in ((at_30, 30), (at_50, 50), (at_100, 100))]
    assert judge(*runs)[STOPS] == everywhere(verdict)
    assert judge(*runs[:2])[STOPS] == everywhere(NOT_MEASURED), "there is no run on all data"


class Compared(Answers):
    """Answers with fixed results of every comparison: BLEU-4 of the first and the second run, bounds of the gain."""

    def __init__(self, first: float, second: float, gain: tuple[float, float]) -> None:
        super().__init__()
        self.found, self.bounds = Comparison(first, second, 0.2, 40), gain

    def compare(self, first: Runs, second: Runs, part: str) -> Comparison:
        return self.found

    def gain(self, first: Runs, second: Runs, part: str) -> tuple[float, float]:
        return self.bounds


@pytest.mark.parametrize(("at_100", "at_30", "verdict"), [
    (0.087, 0.084, HOLDS), (0.0090, 0.0060, OPEN), (0.0060, 0.0060, OPEN), (0.0, 0.0, OPEN)
])  # fmt: skip
def test_which_gain_is_negligible_depends_on_the_score(at_100: float, at_30: float, verdict: str) -> None:
    [setting], _ = settings_of([make_run(regime=30), make_run(regime=100)])
    claim = Judge(setting, Compared(at_100, at_30, (-0.001, 0.0045))).stops("gpt2", "soft")
    assert {part: each.verdict for part, each in claim.findings.items()} == everywhere(verdict)


@pytest.mark.parametrize(("name", "value", "verdict"), [
    ("novelty", 0.91, HOLDS), ("novelty", 0.90, FAILS), ("diversity", 0.5, FAILS)
])  # fmt: skip
def test_novelty_and_diversity_are_kept_if_the_lowest_is_above_the_limit(name: str, value: float, verdict: str) -> None:
    runs = [make_run(method="dynamic", regime=10), make_run(method="dynamic", row={name: value})]
    assert judge(*runs)[VARIED] == everywhere(verdict)
    alone = NOT_MEASURED if verdict == HOLDS else FAILS
    assert judge(runs[1])[VARIED] == everywhere(alone), "a single regime cannot show an effect of the data"


@pytest.mark.parametrize("part", ["unseen", "unlike"])
def test_novelty_and_diversity_of_a_part_are_those_of_its_own_pairs(part: str) -> None:
    low: dict[str, Any] = {part: {"novelty": 0.1, "diversity": 1.0, "pairs": 20}}
    none: dict[str, Any] = {part: {"pairs": 9, "novelty": 1.0, "diversity": 1.0}}
    other = make_run(method="dynamic", regime=10)
    assert judge(other, make_run(method="dynamic", **low))[VARIED] == everywhere(HOLDS) | {part: FAILS}
    assert judge(other, make_run(method="dynamic", **none))[VARIED] == everywhere(HOLDS) | {part: NOT_MEASURED}


def test_gpt2_is_compared_with_dialogpt() -> None:
    found = judge(make_run(answers(30), method="dynamic"), make_run(answers(10), method="dynamic", model="dialogpt"))
    assert found[LANGUAGE_MODELS] == everywhere(HOLDS)


def test_each_part_is_judged_by_its_own_pairs() -> None:
    """The first 20 pairs are in the training regime, and only on those is one method better."""
    train = lines(*(Pair("l", number, f"q{number}", reference(number)) for number in range(20)))
    runs = [make_run(answers(right), method=name, train=train) for right, name in ((20, "dynamic"), (2, "fine-tune"))]
    assert judge(*runs)[ORDER] == {"all": HOLDS, "unseen": OPEN, "unlike": OPEN}


def compare(first: Run, second: Run, part: str = "unseen") -> Comparison:
    return Answers().compare((first,), (second,), part)


def test_two_regimes_are_compared_on_the_pairs_that_neither_has_seen() -> None:
    some, all_but_10 = (lines(*(Pair("l", at, f"q{at}", "no") for at in range(count))) for count in (5, 30))
    small, large = (
        make_run(answers(20), regime=regime, train=train) for regime, train in ((30, some), (100, all_but_10))
    )
    assert compare(small, large).pairs == compare(large, small).pairs == 10
    assert compare(small, small).pairs == 35


def test_a_pair_like_one_of_training_is_unseen_but_not_unlike() -> None:
    run = make_run(answers(20), train=lines(*(Pair("l", number, f"Q{number} !", "no") for number in range(10))))
    assert [compare(run, run, part).pairs for part in ("all", "unseen", "unlike")] == [40, 40, 30]


def without(name: str) -> Callable[[Run], Run]:
    def change(run: Run) -> Run:
        assert isinstance(run.files, Files)
        del run.files.files[name]
        return run

    return change


@pytest.mark.parametrize(("change", "reason"), [
    (without("responses"), "responses not in the cache"),
    (without("train"), "training pairs not in the cache"),
    (lambda run: replace(run, rows={**run.rows, "test": {"bleu4": 0.2}}), "but its metrics differ"),
    (lambda run: make_run(answers(20, of=39), regime=100), "their test pairs differ"),
])  # fmt: skip
def test_what_cannot_be_compared_is_not(change: Callable[[Run], Run], reason: str) -> None:
    with pytest.raises(NotMeasured, match=reason):
        compare(make_run(answers(20), regime=30), change(make_run(answers(20), regime=100)))


def test_scores_that_are_equal_differ_by_chance() -> None:
    found = compare(make_run(["wrong"] * 40, regime=30), make_run(["false"] * 40), part="all")
    assert (found.first, found.p) == (found.second, 1.0)


@pytest.mark.parametrize(("known", "reason"), [(40, "no such pairs"), (39, "1 such pairs, too few")])
def test_a_part_with_no_pairs_or_few_is_not_measured(known: int, reason: str) -> None:
    train = lines(*(Pair("l", number, f"q{number}", "no") for number in range(known)))
    with pytest.raises(NotMeasured, match=reason):
        compare(make_run(answers(20), train=train), make_run(answers(20), train=train))


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ({"protocol": "quick"}, ["dailydialog, protocol paper", "dailydialog, protocol quick"]),
        ({"drop_overlap": True}, [
            "dailydialog, protocol paper", "dailydialog, protocol paper, without overlap",
        ]),
        ({"pairs": {"stride": 1}}, [
            "dailydialog, protocol paper", "dailydialog, protocol paper, stride 1",
        ]),
        ({"pairs": {"stride": 2, "history": 3, "joined_by": " "}}, [
            "dailydialog, protocol paper", "dailydialog, protocol paper, history 3",
        ]),
        ({"protocols": {"paper": changed("training", dropout=0.0)}}, [
            "dailydialog, protocol paper (protocol.training.dropout=0.0)",
            "dailydialog, protocol paper (protocol.training.dropout=0.1)",
        ]),
        ({"protocols": {"paper": changed("training", learning_rates={"spread": 10, "trials": 3})}}, [
            "dailydialog, protocol paper (learning_rates=of App. B)",
            "dailydialog, protocol paper (learning_rates=others)",
        ]),
    ],
)  # fmt: skip
def test_what_may_not_be_compared_stands_in_settings_of_its_own(changes: dict[str, Any], titles: list[str]) -> None:
    settings, repeated = settings_of([make_run(), make_run(**changes)])
    assert [each.title for each in settings] == titles
    assert repeated == []


def test_what_joins_turns_tells_settings_apart_only_where_there_are_several() -> None:
    def titles(history: int) -> list[str]:
        made = [{"stride": 2, "history": history, "joined_by": between} for between in (" ", "|")]
        return [each.title for each in settings_of([make_run(pairs=each) for each in made])[0]]

    assert titles(1) == ["dailydialog, protocol paper"]
    assert titles(2) == [
        'dailydialog, protocol paper, history 2 (pairs.joined_by=" ")',
        "dailydialog, protocol paper, history 2 (pairs.joined_by=|), 2",
    ]
    assert len({slug(each) for each in titles(2)} | {anchor(each) for each in titles(2)}) == 4


def test_white_space_at_the_ends_of_a_parameter_can_be_seen() -> None:
    words = [value(each) for each in ("A: ", "\nB: ", "a b", None, True, 0.1)]
    assert words == ['"A: "', r'"\nB: "', "a b", "null", "true", "0.1"]


def test_a_file_of_a_commit_is_read_once_and_one_of_the_workspace_may_change() -> None:
    commit, workspace = Files(scores={"loss": 1}), Files(scores={"loss": 1})
    workspace.commit = None
    for each, later in ((commit, 1), (workspace, 2)):
        assert each.json("scores.json") == {"loss": 1}
        each.files["scores"] = {"loss": 2}
        assert each.json("scores.json") == {"loss": later}


@pytest.mark.parametrize(("changes", "so"), [
    ({"protocols": {"mine": PAPER}, "protocol": "mine"}, True),
    ({"protocols": {"paper": changed("training", dropout=0.3)}}, True),
    ({"protocols": {"paper": changed("data", test_pairs=100)}}, False),
    ({"protocols": {"paper": changed("training", num_train_epochs=1)}}, False),
    ({"protocols": {"paper": changed("training", learning_rates={**RATES, "trials": 1})}}, False),
    ({"drop_overlap": True}, False),
    ({"pairs": {"stride": 1}}, False),
    ({"pairs": {"stride": 2, "history": 1, "joined_by": " "}}, True),
    ({"pairs": {"stride": 2, "history": 2, "joined_by": " "}}, False),
    ({"dataset": "dailydialog-files"}, True),
    ({"dataset": "mine", "datasets": {"mine": DATASETS["dailydialog"]}}, True),
    ({"dataset": "chitchat"}, False),
    *(({"datasets": {"dailydialog": with_another(part)}}, False) for part in ("train", "validation", "test")),
])  # fmt: skip
def test_what_is_the_papers_experiment_is_told_by_its_values_not_by_the_name(changes: dict[str, Any], so: bool) -> None:
    [setting], _ = settings_of([make_run(**changes)])
    assert setting.as_in_paper == so


def test_a_configuration_of_the_paper_counts_once_and_with_trained_embeddings() -> None:
    def measured(*runs: Run) -> str:
        settings, _ = settings_of(runs)
        text = "\n".join(summary(settings, {each.title: [] for each in settings}, {}, ()))
        [found] = re.findall(r"Of the paper's \d+ configurations, (\d+) were measured", text)
        return str(found)

    assert measured(make_run(), make_run(seed=1), make_run(regime=50)) == "2"
    assert measured(make_run(), make_run(method="dynamic", methods={"dynamic": {"train_embeddings": False}})) == "1"
    assert measured(make_run(protocol="quick")) == "0"


def test_two_contents_of_one_method_are_two_methods() -> None:
    other = make_run(methods={"soft": {"rows": 9}})
    [setting], _ = settings_of([make_run(), other])
    assert list(setting.runs) == [Cell("gpt2", "soft (rows=8)", 100), Cell("gpt2", "soft (rows=9)", 100)]
    assert len(set(method_styles(setting.methods).values())) == 2


def test_of_runs_of_one_configuration_an_experiment_counts_first_and_other_scores_are_told() -> None:
    first = make_run()
    commit, workspace = replace(first, name="commit", kind="commit"), replace(make_run(bleu4=0.7), kind="workspace")
    [setting], repeated = settings_of([replace(workspace, name="workspace"), commit, first])
    assert list(setting.runs.values()) == [(first,)]
    assert [(each.name, each.state) for each in repeated] == [("commit", "the same"), ("workspace", "other scores")]
    assert "0.7" in repeated[1].reason


def test_a_repeat_whose_rows_have_other_columns_is_the_same_if_the_shared_ones_are() -> None:
    first, older = make_run(), make_run(row={"loops": 0.1})
    _, [other] = settings_of([first, replace(older, name="older", kind="workspace")])
    assert (other.name, other.state) == ("older", "the same")


def with_rates(trials: int, name: str, **switches: Any) -> Run:
    """A run of a protocol that is not the paper's, with so many learning rates; its name is `name`."""
    tried = [{"learning_rate": 1e-4 * 2**at, "bleu4": 0.1, "epoch": 1, "status": "finished"} for at in range(trials)]
    protocols = {"paper": changed("training", learning_rates={"spread": 10, "trials": trials})}
    return replace(make_run(protocols=protocols, **switches), name=name, files=Files(learning_rates=tried))


def test_runs_that_tried_other_rates_are_compared_and_one_that_tried_a_single_rate_is_named() -> None:
    three = with_rates(3, "three")
    one = with_rates(1, "one", method="dynamic", methods={"dynamic": {"learning_rate": 1e-4}})
    [setting], repeated = settings_of([one, three])
    assert (setting.as_in_paper, repeated) == (False, [])
    assert list(setting.runs) == [Cell("gpt2", "dynamic", 100), Cell("gpt2", "soft", 100)]
    assert rates_taken(setting) == ["dailydialog, protocol paper: gpt2, dynamic, 100\u00a0%, seed\u00a00: 0.0001"]


def test_of_runs_of_one_configuration_that_with_most_rates_counts() -> None:
    [setting], [other] = settings_of([with_rates(1, "one"), with_rates(3, "three")])
    assert [run.name for runs in setting.runs.values() for run in runs] == ["three"]
    assert (other.name, other.state) == ("one", "other learning rates")
    assert other.reason.startswith("three is in the tables; this one tried training.learning_rates.spread=10, ")


def test_a_repeat_around_another_rate_is_named_as_such_and_zero_shot_has_no_rates() -> None:
    around = {"kind": "soft", "learning_rate": 1e-3}
    one = with_rates(3, "one", methods={"soft": around})
    two = with_rates(3, "two", methods={"soft": {**around, "learning_rate": 1e-4}})
    _, [other] = settings_of([one, two])
    assert (other.name, other.state) == ("two", "other learning rates")
    assert "learning_rate=0.0001" in other.reason
    nothing = [with_rates(n, f"n{n}", method="zero-shot", methods={"zero-shot": {"kind": "zero-shot"}}) for n in (3, 4)]
    _, [other] = settings_of(nothing)
    assert (other.name, other.state) == ("n4", "the same")


def rates(*bleu4: float, diverged: int | None = None, epoch: int = 1) -> Any:
    trials = [
        {"trial": at, "learning_rate": 10.0**at, "bleu4": value, "epoch": epoch if at == diverged else 1,
         "status": "diverged at 3" if at == diverged else "finished"}
        for at, value in enumerate(bleu4)
    ]  # fmt: skip
    return rates_of(replace(make_run(), files=Files(learning_rates=trials)))


@pytest.mark.parametrize(("scores", "end"), [
    ((0.3, 0.2, 0.1), "lowest"), ((0.1, 0.2, 0.3), "highest"), ((0.1, 0.3, 0.2), None), ((0.2, 0.2, 0.2), "lowest"),
])  # fmt: skip
def test_a_best_trial_at_an_end_of_the_range_is_noticed(scores: tuple[float, ...], end: str | None) -> None:
    assert rates(*scores).end == end


def test_a_trial_that_diverged_takes_part_with_the_epochs_that_it_ended_as_in_training() -> None:
    found = rates(0.1, 0.2, 0.9, diverged=2)
    assert (found.best["bleu4"], found.end, found.diverged) == (0.9, "highest", 1)
    found = rates(0.1, 0.2, 0.9, diverged=2, epoch=0)
    assert (found.best["bleu4"], found.end, found.diverged) == (0.2, None, 1)


def test_the_best_trial_and_its_loss_are_those_that_the_protocol_selects_by() -> None:
    trials = [
        {"learning_rate": rate, "bleu4": bleu4, "validation_loss": loss, "epoch": 1, "status": "finished"}
        for rate, bleu4, loss in ((1e-4, 0.2, 3.5), (1e-3, 0.3, 3.9), (1e-2, 0.1, None))
    ]
    by_loss = {"paper": changed("training", metric_for_best_model="loss")}
    for protocols, rate, loss in ((PARAMS["protocols"], 1e-3, 3.9), (by_loss, 1e-4, 3.5)):
        run = replace(make_run(protocols=protocols), files=Files(learning_rates=trials))
        assert (chosen(run, trials)["learning_rate"], validation_loss(run)) == (rate, loss)


def test_where_there_was_no_choice_there_is_no_range() -> None:
    assert rates(0.1) is None
    assert rates_of(replace(make_run(), files=Files())) is None


def test_the_papers_tables_are_whole() -> None:
    """Spot checks against Tables 1 and 2; every configuration is present, and BLEU falls with its order."""
    known = paper_scores()
    assert set(known) == {(model, method, at) for model in MODELS for method in METHODS for at in REGIMES}
    assert list(known["gpt2", "dynamic", 100].values()) == [0.258, 0.190, 0.164, 0.142, 0.913, 0.944]
    assert list(known["dialogpt", "fine-tune", 10].values()) == [0.138, 0.063, 0.044, 0.034, 0.850, 0.732]
    for row in known.values():
        assert list(row) == list(SCORES)
        assert row["bleu1"] > row["bleu2"] > row["bleu3"] > row["bleu4"]


def test_as_in_the_paper_gpt2_is_drawn_full_and_dialogpt_dashed() -> None:
    assert model_dashes(["gpt2", "dialogpt"]) == {"gpt2": "-", "dialogpt": "--"}
    assert model_dashes(["dialogpt", "smollm2"]) == {"dialogpt": "--", "smollm2": "-"}


def test_the_table_of_the_methods_takes_no_run_with_another_parameter() -> None:
    runs = (make_run(bleu4=0.1),)
    for changes, found in (
        ({}, True),
        ({"seed": 1}, True),
        ({"regime": 30}, False),
        ({"methods": {**PARAMS["methods"], "soft": {}}}, False),
    ):
        text = methods_table(Collection(runs, ()), {**PARAMS, **changes})
        assert ("| soft | - | 0.950 | 0.950 | 0.950 | 0.1000 |" in text) == found
        assert ("`dvc exp run -S method=soft`" in text) == (not found)


def test_scores_of_before_the_diagnostics_have_dashes_in_their_tables() -> None:
    [setting], _ = settings_of([make_run()])
    wrong, variety = diagnostics_tables(setting)
    assert "| 100\u00a0% | gpt2 | soft | 0 | 0.0000 | - | - | - | - | - |" in wrong
    assert "| 100\u00a0% | gpt2 | soft | 0 | - | - | - | - |" in variety
    assert list(bleu_tables(setting)) == ["Not scored: these runs are older than the other kinds of BLEU."]


def test_without_further_references_there_is_no_table_of_several() -> None:
    scores = dict.fromkeys(("bleu1", "bleu2", "bleu3", "bleu4"), 0.25)
    run = make_run(row={"bleu_variants": {"lower-case": {"label": "nrefs:1", "test": scores}}})
    [setting], _ = settings_of([run])
    shown = "\n\n".join(bleu_tables(setting))
    assert "| 100\u00a0% | gpt2 | soft | 0 | 0.2500 / 0.2500 / 0.2500 / 0.2500 |" in shown
    assert "| 100\u00a0% |  | human | 0 | - |  |" in shown
    assert "several" not in shown


def test_text_is_shown_as_it_is_and_headings_can_be_linked() -> None:
    assert plain("a|b\n*c* [d](e)") == r"a\|b \*c\* \[d\](e)"
    assert anchor("Table 2, gpt2-soft-0.5 (x)") == "table-2-gpt2-soft-05-x"


def test_dotted_keys_are_found_in_tables_whose_names_have_dots() -> None:
    table = {"models": {"qwen2.5": {"format": "safetensors"}, "qwen2": {"6": 1}}}
    assert look_up(table, "models.qwen2.5") == {"format": "safetensors"}
    assert look_up(table, "models.qwen2.6") == 1
    assert look_up(table, "models.gpt2") is MISSING
