"""The answer, the claims and the page, from runs in memory."""

import html
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.transforms import Bbox
from scipy.stats import t

from stages.records import Response
from stages.report import claims
from stages.report.claims import CONTRADICTED, INCONCLUSIVE, NOT_TESTED, SUPPORTED, claims_of, judge, short_answers
from stages.report.compare import NotMeasured, difference, gaps_of, responses_of
from stages.report.document import build, marked, readme
from stages.report.figures import Picture
from stages.report.markdown import CUT, LOOPS, plain
from stages.report.page import Document, to_html, to_markdown, write_report
from stages.report.runs import RESPONSES, Absent, Collection, Run, as_allowed_now, columns_of
from stages.report.settings import settings_of
from tests.browser import needs_browser, rendered
from tests.helpers_report import METHODS, ODD, run_in_memory

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def runs() -> tuple[Run, ...]:
    """Every method with three seeds; tests must not change them."""
    return tuple(run_in_memory(method, seed) for method in METHODS for seed in SEEDS)


@pytest.fixture(scope="module")
def document(runs: tuple[Run, ...]) -> Document:
    return build(Collection(runs, (Absent("a|b", "", "failed", "every trial *diverged*"),)))


def pictures(document: Document) -> list[Picture]:
    return [block for block in document if isinstance(block, Picture)]


def of(runs: tuple[Run, ...], method: str) -> tuple[Run, ...]:
    return tuple(run for run in runs if run.params["method"] == method)


def answer(*runs: Run) -> str:
    [setting], _ = settings_of(runs)
    return " ".join(short_answers(setting))


def test_the_short_answer_names_what_chance_cannot_separate_and_what_a_prompt_costs(runs: tuple[Run, ...]) -> None:
    found = answer(*runs)
    assert "**use fine-tune or lora** of the 8 methods compared: the test loss cannot separate them (3 seeds)" in found
    prompt = r"The best trained prompt is dynamic, 0\.1\d above \(0\.\d+ to 0\.\d+\) fine-tune .* 35\.4M"
    assert re.search(prompt, found)
    own = called("my own", of(runs, "zero-shot"))
    entry = {**runs[0].params["methods"], "my own": {"kind": "few-shot", "examples": [4]}}
    own = [replace(run, params={**run.params, "methods": entry}) for run in own]
    assert re.search(r"Without training, zero-shot is 0\.\d+ above", found)
    assert re.search(r"Without training, my own is 0\.\d+ above", answer(*of(runs, "fine-tune"), *own))
    reference, (first, *others) = of(runs, "fine-tune"), of(runs, "lora")
    moved = [replace(run, params={**run.params, "seed": run.seed + 9}) for run in others]
    for fewer in (answer(*reference, first), answer(*reference, first, *moved)):  # of the seeds that both have
        assert "lowest test loss (3 seeds). It takes runs with the same seeds to say whether lora is worse." in fewer
    half = columns_of([replace(each, loss=(each.loss or 0) / 2) for each in responses_of(first)])
    fewer = answer(*reference, replace(first, files={RESPONSES: half}))
    assert "loss of those with the same seeds (3 seeds)" in fewer and "lora is better or worse." in fewer


def test_the_best_is_compared_with_the_others_and_not_by_way_of_the_reference() -> None:
    """Two that are always a hundredth of a nat apart, however far from the reference."""
    reference = run_in_memory("fine-tune")
    found = responses_of(reference)
    runs = [reference]
    for method, above in (("lora", 0.0), ("soft", 0.01)):
        own = [replace(each, loss=(each.loss or 0) / 2 + above * (each.tokens or 0)) for each in found]
        runs.append(run_in_memory(method, files={RESPONSES: columns_of(own)}))
    assert "**use lora** of the 3 methods compared: it has the lowest test loss, also on other draws" in answer(*runs)


def test_with_one_method_or_without_losses_there_is_nothing_to_compare(runs: tuple[Run, ...]) -> None:
    assert "nothing to compare yet (one method was run). The BLEU-4 of soft is" in answer(*of(runs, "soft"))
    small = replace(run_in_memory("soft"), scores={"novelty": 1.0, "pairs": 80})  # of a clone without DVC's cache
    assert "The BLEU-4 of soft is not known here" in answer(small)
    assert "(other has no losses)" in answer(
        *of(runs, "soft"), replace(run_in_memory("lora", measured=False), name="other")
    )


def test_figures_of_what_was_not_measured_are_left_out() -> None:
    scores = replace(run_in_memory("soft"), name="without costs", files=run_in_memory("soft", measured=False).files)
    costs = replace(run_in_memory("lora"), scores=run_in_memory("lora", measured=False).scores)
    found = {picture.name.split("-")[0] for picture in pictures(build(Collection((scores, costs), ())))}
    assert found == {"rates", "forgetting"}


def test_methods_stand_in_order_of_their_loss_times_are_ranges_and_few_seeds_are_told(runs: tuple[Run, ...]) -> None:
    known = [*of(runs, "soft"), *of(runs, "fine-tune"), *of(runs, "lora")]
    text = to_markdown(build(Collection((*known, run_in_memory("embeddings", measured=False)), ())))
    decision = text.partition("### chitchat")[2].partition("###")[0]
    rows = re.findall(r"^\| ([a-z-]+) \|", decision, re.MULTILINE)
    assert rows[-5:] == ["soft", "embeddings", "people", "lookup", "shuffled"] and "lora" in rows
    assert "| 210 to 212 |" in text and "trained in float32" in text and "More of these queries" in text
    told = list(claims.caveats(settings_of([*of(runs, "soft"), run_in_memory("soft", model="gpt2")])[0]))
    assert any("fewer than 3 seeds of soft" in each for each in told)


def called(method: str, runs: Sequence[Run]) -> list[Run]:
    return [replace(run, name=f"{method} {run.seed}", params={**run.params, "method": method}) for run in runs]


def shifted(method: str, seed: int, above: float) -> Run:
    """A run whose loss is everywhere so much above that of fine-tune with the same seed."""
    found = responses_of(run_in_memory("fine-tune", seed))
    own = [replace(each, loss=(each.loss or 0) + above * (each.tokens or 0)) for each in found]
    return called(method, [run_in_memory("soft", seed, files={RESPONSES: columns_of(own)})])[0]


def test_three_seeds_of_some_methods_and_one_of_others_are_compared_over_the_seeds_that_both_have() -> None:
    """Differences are equal for all dialogues here, so that an interval over them alone has no width."""
    reference = [run_in_memory("fine-tune", seed) for seed in SEEDS]
    soft = [shifted("soft", seed, above) for seed, above in zip(SEEDS, (0.1, 0.3, 0.5), strict=True)]
    deep = [shifted("dynamic-deep", 1, 0.25), *(shifted("soft-deep", seed, 0.05) for seed in SEEDS)]
    [setting], _ = settings_of([*reference, *soft, *deep])
    gaps = {gap.cell.method: gap for gap in gaps_of(setting, tuple(setting.runs))}
    assert [gap.cell.method for gap in gaps.values() if gap.is_reference] == ["fine-tune"]
    assert gaps["soft"].value == pytest.approx(0.3)
    error = t.ppf(0.975, 2) * 0.2 / 3**0.5  # of the mean of three seeds
    assert gaps["soft"].interval == pytest.approx((0.3 - error, 0.3 + error), abs=0.05)
    assert (gaps["dynamic-deep"].value, *gaps["dynamic-deep"].interval) == pytest.approx((0.25, 0.25, 0.25))
    text = to_markdown(build(Collection((*reference, *soft, *deep, shifted("dynamic", 2, 0.2)), ())))
    assert "fewer than 3 seeds of dynamic, dynamic-deep. A seed has its own data" in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| smollm2, ")]
    assert [[line[1], line[-1].strip(" |")] for line in lines] == [
        ["at the input, E trained", "0.3000 below (-0.3000 to -0.3000)"],  # 0.2 and 0.5 above fine-tune, with seed 2
        ["at every layer, E trained", "0.2000 above (0.2000 to 0.2000)"],
    ]


def test_what_cannot_be_compared_is_not(runs: tuple[Run, ...]) -> None:
    (first, *_), second = of(runs, "soft"), of(runs, "lora")[:1]
    others = [replace(each, query="another") for each in responses_of(first)]
    for copy, part, reason in (
        (run_in_memory("soft", files={RESPONSES: columns_of(others)}), "all", "their test pairs differ"),
        (run_in_memory("soft", files={RESPONSES: {}}), "all", "responses not in the cache"),
        (run_in_memory("soft", measured=False), "all", "has no losses"),
        (run_in_memory("soft", 7), "all", "no seed that both were run with"),
        (replace(first, scores={"parts": {"unlike": "1".ljust(80, "0")}}), "unlike", "^1 unlike pairs, at least 10"),
        (replace(first, scores={}), "unlike", "does not say"),
    ):
        with pytest.raises(NotMeasured, match=reason):
            difference((copy,), second, "loss", part)
    alone = (columns_of([replace(each, dialogue="one") for each in responses_of(run)]) for run in (first, *second))
    one, other = (replace(run, files={RESPONSES: said}) for run, said in zip((first, *second), alone, strict=True))
    with pytest.raises(NotMeasured, match="only one dialogue"):
        difference((one,), (other,), "loss")


def verdicts(*runs: Run) -> dict[str, str]:
    (setting, *_), _ = settings_of(runs)
    return {claim.text: judge(claim, setting, "all")[0] for claim in claims_of(setting)}


def test_a_claim_is_judged_by_more_than_chance(runs: tuple[Run, ...]) -> None:
    found = verdicts(*runs)
    assert found["dynamic has a higher BLEU-4 than soft at 100 %"] == INCONCLUSIVE
    assert found["soft has a higher BLEU-4 than fine-tune at 10 %"] == NOT_TESTED
    assert found["dynamic forgets less than fine-tune"] == INCONCLUSIVE
    assert found["dynamic keeps a novelty above 0.90 whatever the data"] == SUPPORTED
    for better, worse, verdict in (("dynamic", "fine-tune", SUPPORTED), ("fine-tune", "dynamic", CONTRADICTED)):
        both = [*called(better, of(runs, "lora")), *called(worse, of(runs, "dynamic-frozen"))]
        assert verdicts(*both)["dynamic has a higher BLEU-4 than fine-tune at 100 %"] == verdict
    deeper = {**runs[0].params["methods"], "dynamic": {**runs[0].params["methods"]["dynamic"], "layers": 4}}
    other = run_in_memory("dynamic", dataset="dailydialog", methods=deeper)
    assert verdicts(*runs, other) == found, "a trial elsewhere gives methods longer names, and changes nothing"


def test_a_reply_that_was_cut_or_repeats_itself_says_so() -> None:
    reply = Response("d", 0, "q", "r", "a b c a b c a b c", unended=True)
    assert marked(reply).endswith(f"*{CUT}* *{LOOPS}*")
    assert marked(replace(reply, response="Fine, thanks.", unended=False)) == "Fine, thanks."
    assert marked(replace(reply, response=" ", unended=False)) == "(empty)"


def test_replies_are_quoted_only_where_allowed(runs: tuple[Run, ...], capsys: pytest.CaptureFixture[str]) -> None:
    params = runs[0].params
    private = {**params["datasets"], "chitchat": {**params["datasets"]["chitchat"], "quote": False}}
    both = run_in_memory("soft"), run_in_memory("soft", datasets=private)
    told, kept = (to_markdown(build(Collection((run,), ()))) for run in both)
    assert "word1" in told
    assert re.search(r"- chitchat.* has \d\d test pairs: an order that they give", told)
    assert "are not quoted" in kept
    assert "word1" not in kept
    assert capsys.readouterr().out.count("quoted: 8 pairs of chitchat") == 1
    other = [replace(each, query="another", response="beside it") for each in responses_of(both[0])]
    others = run_in_memory("lora", files={RESPONSES: columns_of(other)})
    assert "beside it" not in to_markdown(build(Collection((run_in_memory("fine-tune"), others), ())))
    assert to_markdown(build(Collection((as_allowed_now(both[0], {"dailydialog"}),), ()))) == kept, "taken back"


def test_the_page_is_small_refers_to_nothing_outside_it_and_shows_markup_as_text(document: Document) -> None:
    page = to_html(document)
    ids = Counter(re.findall(r'\bid="([^"]*)"', page))
    assert [name for name, count in ids.items() if count > 1] == []
    places = re.findall(r'\b(?:src|href|data|action)="([^"]*)"', page)
    assert [place for place in places if place != "data:," and place.removeprefix("#") not in ids] == []
    assert re.findall(r"<(?:script|img|iframe|object|embed|b)\b", page) == []
    assert "default-src 'none'" in page
    assert len(page) < 300_000
    assert "every trial *diverged*" in page
    odd = to_html([f"| a |\n| --- |\n| {plain(ODD)} |"])
    assert html.unescape(re.sub(r"<[^>]*>", "", odd)).count(ODD) == 1
    assert re.findall(r"<(?:script|img|b)\b", odd) == []


def test_every_link_of_the_markdown_leads_to_something_that_is_written(document: Document, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/figure-of-an-earlier-report.svg").write_text("old", encoding="utf-8")
    write_report(document, tmp_path)
    targets = re.findall(r"(?<!\\)\]\(([^)]+)\)", (tmp_path / "report.md").read_text(encoding="utf-8"))
    assert len(targets) == len(pictures(document)) == len(list((tmp_path / "report").iterdir()))
    assert [target for target in targets if not (tmp_path / target).exists()] == []


def test_the_part_of_the_readme_has_the_answer_and_a_row_for_each_method(runs: tuple[Run, ...]) -> None:
    found = readme(Collection(runs, ()))
    assert "**use fine-tune or lora**" in found
    assert [line.split(" | ")[0].strip("| ") for line in found.splitlines() if line.startswith("| ")][2:] == [
        "fine-tune", "lora", "dynamic", "soft", "dynamic-frozen", "soft-frozen", "embeddings", "zero-shot",
        "people", "lookup", "shuffled",
    ]  # fmt: skip


def test_no_word_of_a_figure_is_cut_or_covered(runs: tuple[Run, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[RendererSVG, list[tuple[str, Bbox]]] = {}
    draw: Any = RendererSVG.draw_text

    def noted(self: Any, gc: Any, x: float, y: float, text: str, *words: Any, mtext: Any = None, **more: Any) -> None:
        if mtext is not None and text.strip():
            drawn.setdefault(self, []).append((text, mtext.get_window_extent(self)))
        draw(self, gc, x, y, text, *words, mtext=mtext, **more)

    monkeypatch.setattr(RendererSVG, "draw_text", noted)
    assert len(pictures(build(Collection(runs, ())))) == len(drawn)
    for figure, boxes in drawn.items():
        page = Bbox.from_bounds(0, 0, figure.width, figure.height)
        assert [text for text, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))] == []
        for (one, first), (other, second) in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)


@needs_browser
@pytest.mark.parametrize("width", [1280, 600])
def test_in_a_browser_only_tables_scroll_sideways(document: Document, tmp_path: Path, width: int) -> None:
    write_report(document, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8").replace("http-equiv", "name")
    root = "document.documentElement"
    look = f"<script>document.title = `wide ${{{root}.scrollWidth - {root}.clientWidth}}`</script>"
    (tmp_path / "looked.html").write_text(page.replace("</body>", f"{look}</body>"), encoding="utf-8")
    assert "<title>wide 0</title>" in rendered((tmp_path / "looked.html").as_uri(), width)


def test_a_score_that_does_not_put_shuffled_replies_last_is_said_to_be_blind() -> None:
    scores = run_in_memory("soft").scores
    shuffled = {"shuffled": {**scores["shuffled"], "bleu1": 0.01, "relevance": 0.5, "hits": 0.05}}
    rest = {name: {**scores[name], "relevance": 0.4, "hits": 0.3} for name in ("human", "retrieval")}
    told = {**scores, "relevance": 0.6, "hits": 0.2, **rest, **shuffled}
    text = to_markdown(build(Collection((replace(run_in_memory("soft"), scores=told),), ())))
    [line] = [line for line in text.splitlines() if "blind, since" in line]
    names = line.split(": ")[-1].split(", ")
    assert {"relevance", "novelty"} <= set(names), "people and lookup have less than shuffled; the same as shuffled"
    assert not {"bleu1", "hits"} & set(names)
