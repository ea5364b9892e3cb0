"""The report on runs with several seeds, their costs and what they forgot; all runs exist only in memory."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest

from stages.report.answers import Answers, NotMeasured
from stages.report.claims import Judge
from stages.report.cost import device_of, usual_device
from stages.report.document import TITLE, Document, build
from stages.report.losses import losses_table
from stages.report.methods_table import methods_table
from stages.report.page import to_html
from stages.report.pareto import explanation, marks_of, pareto_figure
from stages.report.prompt_table import place_of, prompt_tables
from stages.report.rates import validation_loss
from stages.report.runs import Collection, Run
from stages.report.seeds import Counts, Difference, compare_over_seeds
from stages.report.settings import STYLES, settings_of
from stages.score.bootstrap import paired_test
from tests.browser import Browser, needs_browser
from tests.helpers_report import METHODS, run_in_memory
from tests.report.test_report import rows, section
from tests.tiny import ROOT, read_yaml

SEEDS = (0, 1, 2)
GROUP = "## chitchat, protocol quick"


@pytest.fixture(scope="module")
def runs() -> tuple[Run, ...]:
    return tuple(run_in_memory(method, seed) for method in METHODS for seed in SEEDS)


@pytest.fixture(scope="module")
def document(runs: tuple[Run, ...]) -> Document:
    return build(Collection(runs, ()), "report")


def of(runs: tuple[Run, ...], method: str) -> tuple[Run, ...]:
    return tuple(run for run in runs if run.switch("method") == method)


def spread(values: list[float]) -> str:
    return f"{fmean(values):.4f}\u00a0±\u00a0{stdev(values):.4f}"


def below(document: Document, heading: str) -> str:
    return section(section(document.markdown, GROUP), heading)


def losses(runs: tuple[Run, ...]) -> list[float]:
    return [loss for run in runs if (loss := validation_loss(run)) is not None]


def test_runs_that_differ_only_in_their_seed_are_one_configuration(runs: tuple[Run, ...]) -> None:
    [setting], repeated = settings_of(runs[::-1])
    assert repeated == []
    assert [[run.switch("seed") for run in each] for each in setting.runs.values()] == [[0, 1, 2]] * len(METHODS)


def test_the_main_table_has_mean_deviation_and_each_seed(runs: tuple[Run, ...], document: Document) -> None:
    table = [row for row in rows(below(document, "#### smollm2")) if row["method"] == "lora"]
    lora = of(runs, "lora")
    scores = [run.rows["test"]["bleu4"] for run in lora]
    assert [row["seed"] for row in table] == ["0, 1, 2", "0", "1", "2"]
    assert [row["BLEU-4"] for row in table] == [spread(scores), *(f"{each:.4f}" for each in scores)]
    assert table[0]["validation loss"] == spread(losses(lora))
    assert table[1]["experiment"] == f"[{lora[0].name}](#{lora[0].name})"


def test_the_table_of_the_readme_has_them_too_and_with_one_seed_the_interval(runs: tuple[Run, ...]) -> None:
    params = read_yaml(ROOT / "params.yaml")
    text = methods_table(Collection(runs, ()), params)
    (row,) = (each for each in rows(text) if each["method"] == "lora")
    scores = [run.rows["test"]["bleu4"] for run in of(runs, "lora")]
    loss = [run.rows["test"]["loss"] for run in of(runs, "lora")]
    assert row["test loss"] == f"{fmean(loss):.3f}\u00a0±\u00a0{stdev(loss):.3f}"
    assert (row["BLEU-4"], row["of each seed"]) == (spread(scores), ", ".join(f"{each:.4f}" for each in scores))
    assert "`seed=0, 1, 2`" in text
    alone = rows(methods_table(Collection(runs[::3], ()), params))
    assert "its 95 % interval" in alone[0]
    assert re.fullmatch(r"\d\.\d{3} \(\d\.\d\d to \d\.\d\d\)", alone[0]["test loss"])
    assert alone[0]["BLEU-4"] == f"{runs[0].rows['test']['bleu4']:.4f}"


def test_the_loss_of_the_references_tells_methods_apart_over_the_same_pairs(
    runs: tuple[Run, ...], document: Document
) -> None:
    table = rows(below(document, "### The loss of the test references"))
    found = {row["method"]: [run.rows["test"]["loss"] for run in of(runs, row["method"])] for row in table}
    assert len(found) == len(METHODS)
    best = min(found, key=lambda method: fmean(found[method]))
    for row in table:
        own = found[row["method"]]
        assert row["loss of all"] == spread(own)
        if row["method"] == best:
            assert row["above the best"] == "**the best**"
            continue
        gap, low, high = map(float, re.findall(r"-?\d+\.\d+", row["above the best"]))
        assert gap == pytest.approx(fmean(own) - fmean(found[best]), abs=2e-4)
        assert low < gap < high
        # Pairs differ by up to 4 and methods by 0.4: only the same pairs can show it.
        assert (low > 0) or METHODS[row["method"]][1] - METHODS[best][1] < 0.15


def test_runs_that_are_older_than_this_loss_have_none() -> None:
    [setting], _ = settings_of([run_in_memory("lora", measured=False), run_in_memory("soft", measured=False)])
    assert list(losses_table(setting, Answers())) == ["Not measured: these runs are older than this loss."]


def test_what_has_fewer_seeds_is_compared_on_those_and_what_has_no_loss_stays_in_the_table() -> None:
    runs = [run_in_memory("lora", seed) for seed in (0, 1)] + [run_in_memory("soft", 0)]
    old = [run_in_memory("fine-tune", 0, measured=False), run_in_memory("fine-tune", 1)]
    [setting], _ = settings_of([*runs, *old])
    _, text = losses_table(setting, Answers())
    found = {row["method"]: row["above the best"] for row in rows(text)}
    assert found["lora"] == "**the best**"
    assert re.fullmatch(r"0\.\d+ \(0\.\d+ to 0\.\d+, one\u00a0seed\)", found["soft"])
    assert found["fine-tune"] == "-"


def test_without_the_cache_the_loss_is_that_of_the_committed_metrics() -> None:
    run = run_in_memory("lora")
    run.files.files.pop("metrics/scores.json")  # type: ignore[attr-defined]
    [setting], _ = settings_of([run])
    _, text = losses_table(setting, Answers())
    assert rows(text)[0]["loss of all"] == f"{run.rows['test']['loss']:.4f}"


def verdicts(runs: tuple[Run, ...]) -> dict[str, str]:
    [setting], _ = settings_of(runs)
    return {claim.text: claim.findings["all"].numbers for claim in Judge(setting, Answers()).claims()}


def test_a_verdict_says_from_how_many_seeds_it_is(runs: tuple[Run, ...]) -> None:
    order, varied = "BLEU-4 at 100 %: dynamic > fine-tune", "dynamic keeps novelty and diversity above 0.90"
    assert verdicts(runs)[order].endswith(", 3\u00a0seeds")
    assert ", 3\u00a0seeds" in verdicts(runs)[varied]
    assert verdicts(runs[::3])[order].endswith(", one\u00a0seed")
    some = tuple(run for run in runs if run.switch("method") != "dynamic" or run.switch("seed") == 1)
    assert verdicts(some)[order].endswith(", one\u00a0seed"), "one seed in common"


def test_with_one_seed_test_pairs_alone_are_drawn_and_without_a_common_one_nothing_is_compared(
    runs: tuple[Run, ...],
) -> None:
    answers, first, second = Answers(), of(runs, "lora"), of(runs, "zero-shot")
    a, b, references = answers.common(first[1], second[1], "all")
    found = answers.compare(first[1:2], second, "all")
    assert (found.p, found.seeds) == (paired_test(a, b, references), 1)
    with pytest.raises(NotMeasured, match="no seed that both were run with"):
        answers.compare(first[:1], second[1:], "all")


def test_over_seeds_scores_are_means_and_a_clear_difference_is_found(runs: tuple[Run, ...]) -> None:
    answers, first, second = Answers(), of(runs, "lora"), of(runs, "zero-shot")
    found = answers.compare(first, second, "all")
    assert found.first == pytest.approx(fmean(run.rows["test"]["bleu4"] for run in first), abs=1e-6)
    assert found.second == pytest.approx(fmean(run.rows["test"]["bleu4"] for run in second), abs=1e-6)
    assert found.p < 0.05
    low, high = answers.gain(first, second, "all")
    assert 0 < low < found.first - found.second < high
    assert answers.compare(first, first, "all").p == 1.0


def test_seeds_with_other_test_pairs_are_compared_each_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 0 has the first 50 test pairs and seed 1 the last 60, so that 30 are in both and drawn together."""
    tables: list[Counts] = []

    def compare(first: Counts, second: Counts) -> Difference:
        tables.extend((first, second))
        return compare_over_seeds(first, second)

    monkeypatch.setattr("stages.report.answers.compare_over_seeds", compare)

    def cut(method: str) -> tuple[Run, ...]:
        return tuple(run_in_memory(method, seed, part=part) for seed, part in ((0, slice(50)), (1, slice(20, 80))))

    first, second = cut("lora"), cut("zero-shot")
    found = Answers().compare(first, second, "all")
    assert (found.pairs, found.seeds) == (80, 2)
    for table in tables:
        there = table[:, :, 1] > 0  # words of the reference
        assert there[0].tolist() == [True] * 50 + [False] * 30
        assert there[1].tolist() == [False] * 20 + [True] * 60
        assert (table[0, 20:50, 1] == table[1, 20:50, 1]).all()
    assert found.first == pytest.approx(fmean(run.rows["test"]["bleu4"] for run in first), abs=1e-6)


def test_a_method_has_its_place_by_its_settings_not_by_its_name() -> None:
    methods = read_yaml(ROOT / "params.yaml")["methods"]
    assert {name: place_of(entry) for name, entry in methods.items()} == {
        "fine-tune": None, "lora": None, "soft": ("soft", True), "dynamic": ("dynamic", True),
        "embeddings": ("none", True), "zero-shot": ("none", False),
        "soft-frozen": ("soft", False), "dynamic-frozen": ("dynamic", False),
    }  # fmt: skip
    assert place_of(None) is None


def test_the_table_of_two_by_three_says_what_each_part_adds(runs: tuple[Run, ...], document: Document) -> None:
    heading = "### What the prompt adds, and what training the word embeddings E adds"
    table = {row["prompt"]: row for row in rows(below(document, heading))}
    assert list(table) == ["no prompt", "soft", "dynamic", "soft adds", "dynamic adds"]
    soft, bare, frozen = (losses(of(runs, name)) for name in ("soft", "embeddings", "soft-frozen"))
    assert table["soft"]["E trained: validation loss"] == spread(soft)
    assert table["soft"]["E frozen: validation loss"] == spread(frozen)
    assert table["soft"]["training E adds: validation loss"] == spread(
        [a - b for a, b in zip(soft, frozen, strict=True)]
    )
    assert table["soft adds"]["E trained: validation loss"] == spread([a - b for a, b in zip(soft, bare, strict=True)])
    assert table["soft adds"]["E trained: BLEU-4"].startswith("+")
    assert ", p\u00a0=\u00a0" in table["soft adds"]["E trained: BLEU-4"]
    [setting], _ = settings_of(of(runs, "soft") + of(runs, "lora"))
    assert list(prompt_tables(setting, Answers())) == [], "nothing to subtract"


def test_costs_are_means_over_seeds_and_what_is_absent_is_said_to_be_not_measured(document: Document) -> None:
    table = {row["method"]: row for row in rows(below(document, "### What each method costs"))}
    assert list(table) == sorted(METHODS, key=list(table).index)
    row = table["dynamic"]
    assert (row["trained parameters"], row["training, s"], row["MiB on disk"]) == ("35,392,320", "213.3", "135.0")
    assert (row["peak memory, GiB"], row["on the GPU"], row["decoding, responses/s"]) == ("4.66", "-", "9.9")
    unmeasured = build(Collection((run_in_memory("soft", measured=False),), ()), "report")
    (row,) = rows(below(unmeasured, "### What each method costs"))
    assert {row[name] for name in ("trained parameters", "training, s", "decoding, responses/s")} == {"not measured"}
    assert "Not measured." in below(unmeasured, "### What tuning destroys")
    assert not any(picture.name.startswith("cost-") for picture in unmeasured.pictures)


def test_times_of_another_device_than_most_are_no_part_of_a_mean() -> None:
    mixed = [run_in_memory("soft", seed, device="a GPU" if seed == 2 else "cpu") for seed in (0, 1, 2)]
    others = [run_in_memory("lora", 0, device="a GPU"), run_in_memory("embeddings")]
    table = {
        row["method"]: row
        for row in rows(below(build(Collection((*mixed, *others), ()), "report"), "### What each method costs"))
    }
    assert {name: (row["device"], row["training, s"]) for name, row in table.items()} == {
        "soft": ("cpu, 2 of 3 seeds", "190.5"), "lora": ("a GPU", "240.0"), "embeddings": ("cpu", "180.0"),
    }  # fmt: skip
    [setting], _ = settings_of([*mixed, *others])
    _, marks = marks_of(setting)
    assert {mark.name: mark.seconds for mark in marks} == {"soft": 190.5, "lora": None, "embeddings": 180.0}
    assert "The area of a mark is the time" in explanation(marks)
    assert "on another device than most: the time of lora." in explanation(marks)
    assert "The area" not in explanation([mark for mark in marks if mark.seconds is None])


def test_a_device_that_is_not_known_is_no_device() -> None:
    known, unknown = run_in_memory("soft"), run_in_memory("soft", 1, device=None)
    assert (device_of(known), device_of(unknown)) == ("cpu", None)
    assert (usual_device([unknown, unknown, known]), usual_device([unknown]), usual_device([])) == ("cpu", None, None)


def test_what_was_forgotten_has_its_interval_and_its_text(document: Document) -> None:
    text = below(document, "### What tuning destroys")
    table = {row["method"]: row for row in rows(text)}
    assert "zero-shot" not in table
    assert table["lora"]["difference"] == spread([0.2, 0.21, 0.22])
    assert table["lora"]["95 % interval (of each seed)"].startswith("0.1000 to 0.3000; ")
    assert "- the text: the test part of dailydialog, 5000 tokens" in text


def test_the_figure_of_costs_has_a_mark_and_a_label_for_each_method(runs: tuple[Run, ...], document: Document) -> None:
    (picture,) = (each for each in document.pictures if each.name.startswith("cost-"))
    for name in METHODS:
        assert picture.svg.count(f">{name}</text>") == 2
    assert "What trains nothing is left of the dotted line" in picture.caption
    [setting], _ = settings_of([run_in_memory("lora"), run_in_memory("soft", measured=False)])
    regime, marks = marks_of(setting)
    assert (regime, [mark.name for mark in marks]) == (100.0, ["lora"]), "parameters of the other are unknown"
    assert "dotted" not in explanation(marks)


def test_a_run_without_an_unseen_pair_has_no_mark_for_them() -> None:
    whole, copied = run_in_memory("lora"), run_in_memory("soft")
    copied.rows["unseen"] = {"pairs": 0}
    [setting], _ = settings_of([whole, copied])
    _, marks = marks_of(setting)
    drawn = pareto_figure(marks, "cost")
    assert (drawn.count(">lora</text>"), drawn.count(">soft</text>")) == (2, 1)


def test_in_grey_no_two_methods_look_the_same() -> None:
    assert set(STYLES) == set(METHODS) == set(read_yaml(ROOT / "params.yaml")["methods"])
    assert len({marker for _, marker in STYLES.values()}) == len(STYLES)


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_all_of_it_at_both_widths(document: Document, tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(document.markdown, TITLE, document.pictures), encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        asked, complaints, seen = browser.open(page, width)
    assert (asked, complaints) == ([], [])
    assert (seen["figures"], seen["clipped"], seen["overlapping"]) == (4, [], [])


@needs_browser
def test_labels_of_marks_that_are_close_together_do_not_cover_each_other(runs: tuple[Run, ...], tmp_path: Path) -> None:
    [setting], _ = settings_of(runs)
    _, marks = marks_of(setting)
    close = [replace(mark, parameters=2.8e7 + number, runs=marks[0].runs) for number, mark in enumerate(marks)]
    page = tmp_path / "figure.html"
    page.write_text(f"<figure>{pareto_figure(close, 'close')}</figure>", encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        _, _, seen = browser.open(page)
    assert (seen["figures"], seen["clipped"], seen["overlapping"]) == (1, [], [])


@needs_browser
def test_the_browser_would_notice_what_is_clipped_or_covered(tmp_path: Path) -> None:
    page, word = tmp_path / "bad.html", '<text x="{}" y="20">a label</text>'
    words = "".join(word.format(x) for x in (10, 12, 390))
    wide = '<table style="width: 1500px"><tr><td>cell</td></tr></table>'
    page.write_text(f'{wide}<figure><svg width="400" height="40">{words}</svg></figure>', encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        _, _, seen = browser.open(page, 1280)
    assert [each.split(":")[0].lower() for each in seen["clipped"]] == ["table", "tbody", "tr", "td", "text"]
    assert len(seen["overlapping"]) == 1
