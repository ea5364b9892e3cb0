"""The real `dvc repro` and `dvc exp run` on a dozen dialogues and a two-layer random GPT-2.

Tests share runs that are made once; a test that changes something gets a copy of the project.
"""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import ROOT, SWITCHES, change_params, command, commit_all, read_yaml, tiny_project

ALL = ["download", "pair-extract", "subset", "train", "greedy-generate", "score"]
FROM_TRAIN = ["train", "greedy-generate", "score"]
SIX = ["bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity"]


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages whose command DVC ran, in order, without those restored from its cache."""
    return re.findall(r"^Running stage '(.+)':", done.stdout, re.MULTILINE)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def check_results(project: Path, trials: set[int]) -> None:
    scores = read_json(project / "metrics/scores.json")
    assert list(scores)[:6] == SIX
    noted = scores["subset"]
    assert {"regime", "train"} < set(noted)
    assert (noted["test"]["pairs"], noted["drop_overlap"]) == (scores["pairs"], False)
    assert all(0 <= scores[name] <= 1 for name in SIX)
    assert scores["unended"] == round(scores["generation"]["unended_responses"] / scores["pairs"], 6)
    responses = (project / "data/greedy_generate/responses.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(responses) == scores["pairs"] > 0
    assert {row["trial"] for row in read_json(project / "metrics/curves.json")} == trials


def copy(project: Path, folder: Path) -> Path:
    return Path(shutil.copytree(project, folder / "project", symlinks=True))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after its first `dvc repro` with method dynamic, committed."""
    project = tiny_project(tmp_path_factory.mktemp("first") / "project")
    assert stages_run(command(project, "dvc", "repro")) == ALL
    commit_all(project)
    return project


@pytest.fixture(scope="module")
def softly(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project after an experiment named `softly`, with method soft."""
    project = copy(first_run, tmp_path_factory.mktemp("softly"))
    assert stages_run(command(project, "dvc", "exp", "run", "--name", "softly", "-S", "method=soft")) == FROM_TRAIN
    return project


def test_dynamic_prompts_are_scored_and_a_second_run_does_nothing(first_run: Path) -> None:
    check_results(first_run, trials={0, 1})
    assert stages_run(command(first_run, "dvc", "repro")) == []


def test_soft_prompts_are_scored_and_a_second_run_does_nothing(softly: Path) -> None:
    check_results(softly, trials={0, 1})
    assert stages_run(command(softly, "dvc", "repro")) == []


def test_zero_shot_is_scored_and_another_regime_starts_at_the_subset(first_run: Path, tmp_path: Path) -> None:
    project = copy(first_run, tmp_path)
    done = command(project, "dvc", "exp", "run", "-S", "method=zero-shot", "-S", "regime=50")
    assert stages_run(done) == ["subset", *FROM_TRAIN]
    check_results(project, trials={0})
    assert stages_run(command(project, "dvc", "repro")) == []


def test_fewer_test_pairs_are_no_reason_to_train_again(first_run: Path, tmp_path: Path) -> None:
    """The stage runs, since it depends on the whole of data/subset; it finds the result of its training."""
    project = copy(first_run, tmp_path)
    done = command(project, "dvc", "exp", "run", "-S", "protocols.tiny.data.test_pairs=3")
    assert stages_run(done) == ["subset", "train", "greedy-generate", "score"]
    assert "epoch 1 " not in done.stdout + done.stderr
    for name in ("method.json", "weights.safetensors"):
        assert (project / "data/train" / name).read_bytes() == (first_run / "data/train" / name).read_bytes()
    assert read_json(project / "metrics/scores.json")["pairs"] == 3


def test_the_way_back_comes_from_the_cache(first_run: Path, softly: Path, tmp_path: Path) -> None:
    project = copy(softly, tmp_path)
    assert stages_run(command(project, "dvc", "exp", "run", "-S", "method=dynamic")) == []
    for name in ("scores.json", "curves.json", "scores/test.json", "train.json"):
        assert (project / "metrics" / name).read_bytes() == (first_run / "metrics" / name).read_bytes()
        assert (project / "metrics" / name).read_bytes() != (softly / "metrics" / name).read_bytes()


def test_new_entries_in_the_tables_runtime_and_texts_rerun_nothing(first_run: Path, tmp_path: Path) -> None:
    project = copy(first_run, tmp_path)
    params = read_yaml(project / "params.yaml")
    for table in ("datasets", "models", "methods", "protocols"):
        params[table]["another"] = next(iter(params[table].values()))
    change_params(project, {**params, "runtime": {**params["runtime"], "generation_batch_size": 3}})
    (project / "README.md").write_text("A comment.\n", encoding="utf-8")
    assert stages_run(command(project, "dvc", "repro")) == []


def test_what_is_neither_source_nor_files_of_a_corpus_downloads_nothing(first_run: Path, tmp_path: Path) -> None:
    project = copy(first_run, tmp_path)
    params = read_yaml(project / "params.yaml")
    params["datasets"][params["dataset"]] |= {"format": "jsonl", "license": "MIT", "messages": "one"}
    change_params(project, params)
    assert {*json.loads(command(project, "dvc", "status", "--json").stdout)} == {"pair-extract"}


@pytest.mark.parametrize(
    ("edited", "rerun"),
    [
        ("stages/score/variety.py", ["score"]),
        ("stages/download/archives.py", ["download"]),
        ("stages/report/figures.py", []),
    ],
)
def test_an_edit_reruns_the_stages_that_import_it_and_others_only_if_their_input_changed(
    first_run: Path, tmp_path: Path, edited: str, rerun: list[str]
) -> None:
    project = copy(first_run, tmp_path)
    with (project / edited).open("a", encoding="utf-8") as file:
        file.write("\n# a comment\n")
    assert stages_run(command(project, "dvc", "repro")) == rerun
    assert stages_run(command(project, "dvc", "repro")) == []


def test_an_edit_of_what_stages_share_is_seen_in_each_of_them(first_run: Path, tmp_path: Path) -> None:
    project = copy(first_run, tmp_path)
    with (project / "stages/methods/decoding.py").open("a", encoding="utf-8") as file:
        file.write("\n# a comment\n")
    assert {*json.loads(command(project, "dvc", "status", "--json").stdout)} == {"train", "greedy-generate"}


def test_metrics_and_experiments_can_be_shown_and_compared(softly: Path) -> None:
    shown = json.loads(command(softly, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown["metrics/scores/test.json"]["data"]) == {*SIX, "relevance", "loss", "pairs"}
    widest = max(map(len, command(softly, "dvc", "metrics", "show").stdout.splitlines()))
    assert widest <= 120, "dvc metrics show does not fit a terminal"

    changed = json.loads(command(softly, "dvc", "metrics", "diff", "HEAD", "--json").stdout)
    assert changed["metrics/scores/test.json"]["bleu1"]["new"] == read_json(softly / "metrics/scores.json")["bleu1"]

    table = list(csv.DictReader(command(softly, "dvc", "exp", "show", "--csv", "--no-pager").stdout.splitlines()))
    methods = {row["Experiment"] or row["rev"]: row["method"] for row in table}
    assert methods == {"workspace": "soft", "main": "dynamic", "softly": "soft"}


def test_the_readme_has_a_command_that_shows_the_switches_and_the_scores_that_count(softly: Path) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shell = next(line.partition("  #")[0].strip() for line in lines if line.startswith("    dvc exp show "))
    shown = command(softly, "sh", "-c", f"{shell} --csv").stdout
    columns = csv.DictReader(shown.splitlines()).fieldnames or []
    scores = [f"metrics/scores/test.json:{key}" for key in ("bleu4", "novelty", "diversity", "relevance", "loss")]
    assert columns == ["Experiment", "rev", "typ", "Created", "parent", *scores, *SWITCHES]


def test_plots_of_two_revisions_are_drawn_with_the_templates_of_the_project(softly: Path) -> None:
    page = Path(command(softly, "dvc", "plots", "diff", "HEAD", "softly").stdout.strip().removeprefix("file://"))
    html = page.read_text(encoding="utf-8")
    specs = [json.JSONDecoder().raw_decode(html, found.end())[0] for found in re.finditer(r"var spec = ", html)]
    by_title = {spec["title"]["text"]: spec for spec in specs}
    assert set(by_title) == {"validation", "validation loss", "training loss", "learning rates"}
    for spec in specs:
        assert "DVC_METRIC" not in json.dumps(spec), "an anchor of the template was not filled"
        drawn = {(row["rev"], row["trial"]) for row in spec["data"]["values"]}
        assert drawn == {("HEAD", 0), ("HEAD", 1), ("softly", 0), ("softly", 1)}
    curves = by_title["validation"]["spec"]["encoding"]
    assert (curves["detail"]["field"], curves["x"]["field"], curves["y"]["field"]) == ("trial", "epoch", "selection")
    rates = by_title["learning rates"]
    assert rates["encoding"]["x"]["scale"]["type"] == "log"
    assert rates["transform"][0] == {"filter": "datum['learning_rate'] > 0"}, "zero-shot's 0 has no place there"
