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
from dvc.repo import Repo

from tests.tiny import ROOT, SWITCHES, change_params, command, commit_all, read_yaml, tiny_project

ALL = ["download", "pair-extract", "subset", "train", "greedy-generate", "score"]
SIX = ["bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity"]


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages whose command DVC ran, in order, without those restored from its cache."""
    return re.findall(r"^Running stage '(.+)':", done.stdout, re.MULTILINE)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


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
    """The same project after an experiment named `softly`, with method soft and half of the dialogues."""
    project = copy(first_run, tmp_path_factory.mktemp("softly"))
    done = command(project, "dvc", "exp", "run", "--name", "softly", "-S", "method=soft", "-S", "regime=50")
    assert stages_run(done) == ALL[2:]
    return project


def to_rerun(project: Path) -> set[str]:
    """The stages that `dvc status` names."""
    with Repo(str(project)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}  # behind the path of dvc.yaml


def test_a_run_and_an_experiment_are_scored_and_leave_nothing_to_do(first_run: Path, softly: Path) -> None:
    for project in (first_run, softly):
        scores = read_json(project / "metrics/scores.json")
        assert list(scores)[:6] == SIX
        assert scores["subset"]["test"]["pairs"] == scores["pairs"] > 0
        assert scores["unended"] == round(scores["generation"]["unended_responses"] / scores["pairs"], 6)
        assert to_rerun(project) == set()


def test_the_way_back_comes_from_the_cache(first_run: Path, softly: Path, tmp_path: Path) -> None:
    project = copy(softly, tmp_path)
    assert stages_run(command(project, "dvc", "exp", "run", "-S", "method=dynamic", "-S", "regime=100")) == []
    for name in ("scores.json", "curves.json", "scores/test.json", "train.json"):
        assert (project / "metrics" / name).read_bytes() == (first_run / "metrics" / name).read_bytes()
        assert (project / "metrics" / name).read_bytes() != (softly / "metrics" / name).read_bytes()


def test_new_entries_rerun_nothing_and_a_corpus_s_format_downloads_nothing(first_run: Path, tmp_path: Path) -> None:
    project = copy(first_run, tmp_path)
    params = read_yaml(project / "params.yaml")
    for table in ("datasets", "models", "methods", "protocols"):
        params[table]["another"] = next(iter(params[table].values()))
    change_params(project, {**params, "runtime": {**params["runtime"], "generation_batch_size": 3}})
    assert to_rerun(project) == set()
    params["datasets"][params["dataset"]] |= {"format": "jsonl", "license": "MIT", "messages": "one"}
    change_params(project, params)
    assert to_rerun(project) == {"pair-extract"}


def test_what_dvc_shows_of_the_test_pairs_fits_a_terminal(softly: Path) -> None:
    shown = json.loads(command(softly, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    told = {*shown["metrics/scores/test.json"]["data"]}
    assert told | {*SIX[:4]} == {*SIX, "relevance", "loss", "pairs"}  # BLEU as far as n-grams match
    widest = max(map(len, command(softly, "dvc", "metrics", "show").stdout.splitlines()))
    assert widest <= 120, "dvc metrics show does not fit a terminal"


def test_the_readme_has_a_command_that_shows_the_switches_and_the_scores_that_count(softly: Path) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shell = next(line.partition("  #")[0].strip() for line in lines if line.startswith("    dvc exp show "))
    shown = command(softly, "sh", "-c", f"{shell} --csv").stdout
    columns = csv.DictReader(shown.splitlines()).fieldnames or []
    scores = [f"metrics/scores/test.json:{key}" for key in ("novelty", "diversity", "relevance", "loss")]
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
