"""The report of a small grid, with real DVC and real scores, but with random responses."""

import json
import re
import shutil
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stages.plumbing.errors import StageError
from stages.plumbing.files import write_json
from stages.report.document import TITLE, build
from stages.report.markdown import plain
from stages.report.page import to_html
from stages.report.revision import Revision
from stages.report.runs import Collection, collect
from stages.report.stale import problem
from stages.report.write import write_report
from tests.browser import Browser, needs_browser
from tests.helpers_report import ODD, project_with_results, save, switch, write_results
from tests.tiny import ROOT, command, read_yaml, tiny_project, write_yaml

PAPERS_GROUP, OTHER_GROUP = "## dailydialog, protocol paper", "## dailydialog, protocol quick"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a small grid, with its report; tests must not change it."""
    project = project_with_results(tmp_path_factory.mktemp("grid") / "project", quality=0.8)
    save(project, "gpt2-dynamic-30", 0.7, [0.1, 0.3, 0.2], regime=30)
    save(project, "gpt2-soft-30", 0.3, [0.1, 0.2, 0.1], method="soft")
    save(project, "gpt2-soft-100", 0.3, [0.1, 0.2, 0.3], regime=100)
    save(project, "gpt2-fine-tune-100", 0.5, [0.1, 0.2, 0.3, 0.0], diverged=1, method="fine-tune")
    save(project, "dialogpt-dynamic-100", 0.2, [0.1, 0.3, 0.2], method="dynamic", model="dialogpt")
    save(project, "smollm2-soft-100", 0.3, [0.2, 0.1, 0.1], method="soft", model="smollm2", protocol="quick")
    command(project, "python", "-m", "stages.report")
    return project


@pytest.fixture
def project(grid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grid, tmp_path / "project", symlinks=True))


def markdown(project: Path) -> str:
    return (project / "metrics/report.md").read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next heading of its level or above."""
    level = heading.split(" ")[0]
    below = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"\n#{{1,{len(level)}}} ", below, maxsplit=1)[0]


def rows(text: str) -> list[dict[str, str]]:
    """The rows of the first table in a text, by the names of the columns."""
    table = re.search(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    assert table
    header, _, *lines = ([cell.strip() for cell in line.split(" | ")] for line in table[0].strip().splitlines())
    names = [name.strip("| ") for name in header]
    return [dict(zip(names, [cell.strip("| ") for cell in line], strict=True)) for line in lines]


def shown_by_dvc(project: Path) -> dict[str, Any]:
    """The entry of `dvc exp show` for each experiment and commit, by name."""
    found = {}
    for baseline in json.loads(command(project, "dvc", "exp", "show", "--json").stdout)[1:]:
        found[f"commit {baseline['rev'][:10]}"] = baseline
        found |= {experiment["name"]: experiment["revs"][0] for experiment in baseline["experiments"]}
    return found


def cached(project: Path, experiment: str, path: str) -> bytes:
    """The content of an experiment's file, from DVC's cache."""
    found = next(run.files.read(path) for run in collected(project).runs if run.name == experiment)
    assert found
    return found


def collected(project: Path) -> Collection:
    return collect(project, project / ".state")


def test_every_number_of_an_experiment_is_that_of_dvc_exp_show(grid: Path) -> None:
    text, shown = markdown(grid), shown_by_dvc(grid)
    assert len(shown) == 7
    for name, each in shown.items():
        entry = section(text, f"### {name}")
        assert each["rev"] in entry
        found = {row.pop(""): row for row in rows(entry)}
        for file, metrics in each["data"]["metrics"].items():
            assert found[Path(file).stem] == {key: str(value) for key, value in metrics["data"].items()}
        for key in ("model", "method", "regime", "protocol", "dataset", "seed"):
            assert f"`{key}={each['data']['params']['params.yaml']['data'][key]}`" in entry


def test_the_tables_have_our_number_the_papers_and_the_difference(grid: Path) -> None:
    table = rows(section(section(markdown(grid), PAPERS_GROUP), "#### Table 2, gpt2"))
    row = next(each for each in table if (each["regime"], each["method"]) == ("100\u00a0%", "fine-tune"))
    assert row["experiment"] == "[gpt2-fine-tune-100](#gpt2-fine-tune-100)"
    metrics = shown_by_dvc(grid)["gpt2-fine-tune-100"]["data"]["metrics"]["metrics/scores/test.json"]["data"]
    assert row["BLEU-4"] == f"{metrics['bleu4']:.4f} (0.111,\u00a0{metrics['bleu4'] - 0.111:+.3f})"
    assert row["novelty"] == f"{metrics['novelty']:.4f} (0.742,\u00a0{metrics['novelty'] - 0.742:+.3f})"
    assert [each["method"] for each in table[-5:]] == ["fine-tune", "soft", "dynamic", "retrieval", "human"]


def test_what_went_wrong_and_the_variety_of_words_stand_in_tables_of_each_setting(grid: Path) -> None:
    below = section(section(markdown(grid), PAPERS_GROUP), "### What went wrong, and the variety of words")
    wrong, variety = (rows(table) for table in below.strip().split("\n\n"))
    scores = json.loads(cached(grid, "gpt2-soft-30", "metrics/scores.json"))
    place = ("30\u00a0%", "gpt2", "soft")
    (row,) = (each for each in wrong if (each["regime"], each["model"], each["method"]) == place)
    assert row["experiment"] == "[gpt2-soft-30](#gpt2-soft-30)"
    for name in ("empty", "loops", "echoes", "unended", "exact"):
        assert row[name] == f"{scores[name]:.4f}"
    assert row["unended"] == "0.1250"
    (row,) = (each for each in variety if (each["regime"], each["model"], each["method"]) == place)
    for column, name in (("distinct-1", "distinct1"), ("distinct-2", "distinct2"), ("EAD", "ead"), ("chrF", "chrf")):
        assert row[column] == f"{scores[name]:.4f}"
    assert [each["method"] for each in wrong[-2:]] == ["retrieval", "human"]
    assert wrong[-1]["exact"] == "1.0000"
    assert wrong[-1]["unended"] == "-"


def test_other_kinds_of_bleu_stand_with_their_labels_and_several_references_beside_one(grid: Path) -> None:
    below = section(section(markdown(grid), PAPERS_GROUP), "### Other kinds of BLEU")
    scores = json.loads(cached(grid, "gpt2-soft-30", "metrics/scores.json"))
    for name, variant in scores["bleu_variants"].items():
        assert f"- {name}: `{variant['label']}`" in below
    row = next(each for each in rows(below) if each["experiment"] == "[gpt2-soft-30](#gpt2-soft-30)")
    sentence = scores["bleu_variants"]["sentence"]["test"]
    assert row["sentence"] == " / ".join(f"{sentence[f'bleu{order}']:.4f}" for order in (1, 2, 3, 4))
    several = rows(below.split("Against several references", 1)[1])
    (row,) = (each for each in several if each["experiment"] == "[gpt2-soft-30](#gpt2-soft-30)")
    assert row["BLEU-4 against one reference"] == f"{scores['bleu4']:.4f}"
    found = scores["several_references"]
    assert row["against all of them"].startswith(f"{found['bleu4']:.4f} (")
    assert row["against the further ones alone"] == f"{found['bleu4_further_only']:.4f}"
    assert (several[-1]["method"], several[-1]["pairs"]) == ("human", "30")
    assert "30 further references for 30 of the test pairs: `nrefs:var|" in below


def test_the_claims_are_judged_on_all_unseen_and_unlike_pairs(grid: Path) -> None:
    found = {
        row["claim"].replace("\\", "") + " " + row["model"]: row for row in rows(section(markdown(grid), PAPERS_GROUP))
    }
    parts = ("all test pairs", "unseen pairs", "unlike pairs")

    def verdicts(claim: str) -> set[str]:
        return {found[claim][part].split("**")[1] for part in parts}

    assert verdicts("BLEU-4 at 100 %: dynamic > fine-tune gpt2") == {"holds"}
    assert verdicts("BLEU-4 at 100 %: dynamic > fine-tune dialogpt") == {"not measured"}
    assert verdicts("BLEU-4 at 100 % with dynamic: gpt2 > dialogpt both") == {"holds"}
    assert verdicts("dynamic keeps novelty and diversity above 0.90 gpt2") == {"holds"}
    assert found["BLEU-4 at 100 %: dynamic > fine-tune gpt2"]["the paper's numbers"] == "0.142 against 0.111"
    scores = shown_by_dvc(grid)
    ours = scores["gpt2-fine-tune-100"]["data"]["metrics"]["metrics/scores/unseen.json"]["data"]["bleu4"]
    assert f" against {ours:.4f}" in found["BLEU-4 at 100 %: dynamic > fine-tune gpt2"]["unseen pairs"]


def test_what_repeats_another_run_is_said_to(grid: Path) -> None:
    found = {row["experiment"]: row for row in rows(section(markdown(grid), "### Not in the tables"))}
    assert found == {"workspace": {"experiment": "workspace", "state": "the same", "why": found["workspace"]["why"]}}
    assert "smollm2-soft-100" in found["workspace"]["why"]


def test_runs_with_another_protocol_stand_in_a_section_of_their_own(grid: Path) -> None:
    text = markdown(grid)
    assert "smollm2" not in section(text, PAPERS_GROUP)
    assert "This is not the paper's experiment" in section(text, OTHER_GROUP)
    assert "gpt2-" not in section(text, OTHER_GROUP)
    assert "Of the paper's 36 configurations, 6 were measured" in text


def test_the_learning_rates_are_shown_and_one_at_an_end_of_the_range_is_warned_of(grid: Path) -> None:
    text = markdown(grid)
    warned = section(text, "### Warnings: the best learning rate is at an end of the range")
    assert re.findall(r"(\w+), (\S+), \d+.%, seed.0: the (\w+) learning rate", warned) == [
        ("gpt2", "soft", "highest"),
        ("smollm2", "soft", "lowest"),
    ]
    table = {row["experiment"]: row for row in rows(section(section(text, PAPERS_GROUP), "### Learning rates"))}
    row = table["[gpt2-fine-tune-100](#gpt2-fine-tune-100)"]
    assert (row["best learning rate"], row["validation BLEU-4"], row["diverged"]) == ("0.001", "0.3000", "1")


def test_the_same_queries_are_answered_by_each_method_and_training_turns_are_marked(grid: Path) -> None:
    table = rows(section(section(markdown(grid), PAPERS_GROUP), "#### Table 3, gpt2 at 100\u00a0%, seed 0"))
    assert len(table) == 8
    assert list(table[0]) == ["query", "human", "fine-tune", "soft", "dynamic"]
    turns = (grid / "data/subset/turns.jsonl").read_text(encoding="utf-8")
    cells = [cell for row in table for name, cell in row.items() if name != "query"]
    marked = [cell for cell in cells if cell.startswith("*‡ ")]
    assert marked
    assert all((cell in marked) == (json.dumps(cell.removeprefix("*‡ ").removesuffix("*")) in turns) for cell in cells)


def test_the_same_experiments_give_the_same_bytes_whatever_was_there(grid: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/figure-of-an-earlier-report.svg").write_text("old", encoding="utf-8")
    command(grid, "python", "-m", "stages.report", "--out", str(tmp_path), PYTHONHASHSEED="7")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) == 2 + 8
    for file in files:
        assert (tmp_path / file).read_bytes() == (grid / "metrics" / file).read_bytes(), file


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text without markup."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_refers_to_nothing_outside_it_and_its_links_lead_somewhere(grid: Path) -> None:
    page = Elements((grid / "metrics/report.html").read_text(encoding="utf-8"))
    ids = Counter(attributes["id"] for _, attributes in page.found if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for tag, attributes in page.found:
        assert tag not in ("script", "img", "iframe", "object", "embed")
        for name in ("src", "href", "xlink:href", "data", "action"):
            place = attributes.get(name)
            if place and place != "data:,":
                assert place.startswith("#") and place[1:] in ids, f"{tag} {name}={place}"


def test_a_response_with_markup_in_it_is_shown_as_it_is(grid: Path) -> None:
    text = f"| a |\n| --- |\n| {plain(ODD)} |"
    page = Elements(to_html(text, TITLE, []))
    assert ODD in "".join(page.words)
    assert {tag for tag, _ in page.found}.isdisjoint({"b", "script", "a", "img"})


@needs_browser
def test_a_browser_shows_the_page_without_a_complaint_or_a_request(grid: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        asked, complaints, seen = browser.open(grid / "metrics/report.html")
    assert (asked, complaints) == ([], [])
    assert seen["figures"] == 8
    assert seen["wide"]
    assert seen["tables"] > 20


@needs_browser
def test_the_browser_would_notice_a_complaint_and_a_request(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>', encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        asked, complaints, _ = browser.open(page)
    assert asked == ["http://127.0.0.1:9/x.png"]
    assert len(complaints) == 2


def test_without_the_cache_the_tables_stay_and_comparisons_are_not_measured(project: Path) -> None:
    whole = markdown(project)
    before = section(whole, PAPERS_GROUP)
    shutil.rmtree(project / ".dvc/cache")
    whole_after = build(collected(project), "report").markdown
    after = section(whole_after, PAPERS_GROUP)
    table = "#### Table 2, gpt2"
    assert rows(section(after, table)) == rows(section(before, table))
    assert section(after, "### Learning rates") == section(before, "### Learning rates")
    leakage = rows(section(after, "### Leakage"))
    assert {[*row.values()][-1] for row in leakage} == {"-"}
    found = {cell for row in rows(after) for name, cell in row.items() if name == "all test pairs"}
    assert "**not measured**: responses not in the cache" in found
    assert "responses not in the cache" in section(after, "#### Table 3, gpt2 at 100\u00a0%, seed 0")
    runs = whole.count("- environment: `")
    assert runs and whole_after.count("- environment: not known here, ") == runs


def test_results_that_are_not_those_of_the_parameters_the_code_or_the_stage_are_left_out(project: Path) -> None:
    def reason() -> str:
        """Why the workspace is to be left out; empty if it is not."""
        return problem(Revision(project, None), read_yaml(project / "params.yaml")) or ""

    assert reason() == ""
    switch(project, seed=3)
    assert "with a different seed than in params.yaml" in reason()
    switch(project, seed=0)
    write_json(project / "metrics/scores/test.json", {"bleu4": 0.9, "pairs": 80})
    assert "metrics/scores/test.json is not the file that the stage score wrote" in reason()
    command(project, "git", "checkout", "metrics/scores/test.json")
    with (project / "stages/methods/decoding.py").open("a", encoding="utf-8") as file:
        file.write("\n# a comment\n")
    assert "was run with a different stages/methods" in reason()
    assert {each.name: each.reason for each in collected(project).absent} == {"workspace": reason()}


def test_results_of_a_stage_that_was_run_with_other_data_are_left_out(project: Path) -> None:
    switch(project, regime=10)
    write_results(project, 0.3, [0.2, 0.1, 0.1])
    command(project, "dvc", "commit", "--force", "subset", "greedy-generate", "score")
    reasons = {each.name: each.reason for each in collected(project).absent}
    assert reasons == {"workspace": "the stage train was run with a different data/subset"}
    command(project, "dvc", "commit", "--force", "train")
    assert [run.regime for run in collected(project).runs if run.kind == "workspace"] == [10]


def test_whatever_a_stage_was_run_with_is_compared_with_what_there_is(project: Path) -> None:
    lock, params = (read_yaml(project / name) for name in ("dvc.lock", "params.yaml"))
    here = Revision(project, None)  # one for all, because DVC takes a second to find out what there is
    assert problem(here, params) is None
    deps = [(name, dep) for name, stage in lock["stages"].items() for dep in stage["deps"]]
    assert {dep["path"].startswith("stages/") for _, dep in deps} == {True, False}
    for name, dep in deps:
        was, dep["md5"] = dep["md5"], "0" * 32
        write_yaml(project / "dvc.lock", lock)
        assert problem(here, params) == f"the stage {name} was run with a different {dep['path']}"
        dep["md5"] = was


def test_experiments_that_failed_or_wait_are_listed(project: Path) -> None:
    command(project, "dvc", "exp", "run", "--queue", "--name", "waits", "-S", "seed=5")
    logs = project / ".state/grid/logs" / command(project, "git", "rev-parse", "HEAD").stdout.strip()
    logs.mkdir(parents=True)
    for name in ("gpt2-soft-10", "gpt2-soft-30"):
        (logs / f"{name}.log").write_text("every trial diverged\n", encoding="utf-8")
        (logs / f"{name}.failed").write_text("255", encoding="utf-8")
    found = {each.name: each for each in collected(project).absent}
    assert set(found) == {"waits", "gpt2-soft-10"}, "gpt2-soft-30 failed once, but has an experiment now"
    assert found["waits"].state == "queued"
    assert (found["gpt2-soft-10"].state, found["gpt2-soft-10"].reason) == (
        "failed with exit code 255",
        "every trial diverged",
    )


def test_after_the_next_commit_the_same_experiments_are_there(project: Path) -> None:
    def names() -> list[tuple[str, str]]:
        return [(run.name, run.commit) for run in collected(project).runs if run.kind != "workspace"]

    before = names()
    command(project, "git", "add", "metrics/report.md")
    command(project, "git", "commit", "-q", "-m", "the report")
    assert names() == before
    assert len(before) == 7


def test_the_table_of_the_methods_has_those_with_the_parameters_of_the_workspace(project: Path) -> None:
    switch(project, model="gpt2", protocol="paper", method="dynamic")
    printed = command(project, "python", "-m", "stages.report", "--table").stdout
    found = {row["method"]: row for row in rows(printed)}
    assert list(found) == ["fine-tune", "soft", "dynamic", "retrieval", "human"]
    metrics = shown_by_dvc(project)["gpt2-soft-100"]["data"]["metrics"]
    assert found["soft"]["BLEU-4"] == f"{metrics['metrics/scores/test.json']['data']['bleu4']:.4f}"
    assert found["soft"]["BLEU-4 of unseen"] == f"{metrics['metrics/scores/unseen.json']['data']['bleu4']:.4f}"
    low, high = json.loads(cached(project, "gpt2-soft-100", "metrics/scores.json"))["bleu4_interval"]
    assert found["soft"]["its 95 % interval"] == f"{low:.4f} to {high:.4f}"
    assert "80 test pairs, 60 of them unseen; 80 training pairs; " in printed
    assert "`protocol=paper`" in printed
    others = [name for name in read_yaml(project / "params.yaml")["methods"] if name not in found]
    commands = ", ".join(f"`dvc exp run -S method={name}`" for name in others)
    assert printed.rstrip().endswith(f"\n\nNot run: {commands}.")


def test_where_nothing_was_run_the_report_says_so(tmp_path: Path) -> None:
    collection = collected(tiny_project(tmp_path / "project"))
    assert collection == Collection((), ())
    assert "No experiment has results yet" in build(collection, "report").markdown


def test_what_draws_may_be_missing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith(("stages.report.", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StageError, match=r"matplotlib: not installed; pip install .*\[report\]"):
        write_report(Collection((), ()), project)


def test_outside_a_project_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, "python", "-m", "stages.report", fails=True, PYTHONPATH=str(ROOT))
    assert done.stderr.splitlines() == ["ERROR report: params.yaml: missing; run this from the top of the project"]
