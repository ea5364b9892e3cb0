"""Runs that were kept give the same report, and the blind sheet is read back as it was filled in."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binom

from stages.plumbing.errors import StageError
from stages.report.blind import KEY, SHEET, tally, write_sheet
from stages.report.document import build
from stages.report.kept import keep, kept
from stages.report.page import to_html, to_markdown
from stages.report.runs import RESPONSES, Collection, Run
from tests.helpers_report import METHODS, PAPERS, run_in_memory
from tests.tiny import shipped_params

QUOTABLE = {"chitchat", "dailydialog"}


def test_kept_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = [run_in_memory(method, seed) for method in METHODS for seed in (0, 1)]
    runs += [run_in_memory("soft", regime=regime, **PAPERS) for regime in (10, 100)]
    runs += [run_in_memory("lora", 2, relevance={"queries": 200, "others": 19})]
    keep([*runs, runs[0]], tmp_path, QUOTABLE)
    again = kept(tmp_path)
    assert len(again) == len(runs)
    assert to_html(build(Collection(tuple(again), ()))) == to_html(build(Collection(tuple(runs), ())))
    assert (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()[2:] == [
        "- chitchat: `pypi:chitchat-dataset==0.9.0`, license: MIT",
        "- dailydialog: `hub:datasets/roskoN/dailydialog@main`, license: CC-BY-NC-SA-4.0",
    ]


def test_a_damaged_file_of_kept_runs_is_named(tmp_path: Path) -> None:
    keep([run_in_memory("soft")], tmp_path, QUOTABLE)
    [path] = tmp_path.glob("*.xz")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StageError, match=f"{path}: damaged"):
        kept(tmp_path)


def test_runs_are_added_to_those_that_were_kept_and_replace_the_same_configuration(tmp_path: Path) -> None:
    first = [run_in_memory(method) for method in ("soft", "lora")]
    other = {**shipped_params()["methods"], "soft": {"kind": "soft", "prompt_tokens": 7, "learning_rate": 1.0}}
    anew = replace(run_in_memory("lora", baseline="e" * 40), scores={**first[1].scores, "loss": 1.0})
    later = [anew, run_in_memory("lora", 1, baseline="e" * 40), run_in_memory("soft", methods=other)]
    later.append(run_in_memory("soft", **PAPERS))
    later = [replace(run, commit=f"{at}" * 40) for at, run in enumerate(later, start=1)]
    unanswered = replace(later[0], files={**later[0].files, RESPONSES: {}})
    del unanswered.files[RESPONSES]
    for runs in (first, later, [unanswered]):
        keep(runs, tmp_path, QUOTABLE)
    again = kept(tmp_path)
    assert {(run.params["method"], run.seed): run.score("loss") for run in again if run.baseline[0] == "e"} == {
        ("lora", 0): 1.0,
        ("lora", 1): later[1].score("loss"),
    }
    assert len(again) == len({run.name for run in again}) == 5
    text = to_markdown(build(Collection(tuple(again), ())))
    assert "The runs were made by the code of 2 commits: `eeeeeeeeee` 2, `ffffffffff` 3." in text
    assert "by the code of" not in to_markdown(build(Collection(tuple(first), ())))


def test_more_than_a_repository_should_have_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.report.kept.MOST", 1000)
    with pytest.raises(StageError, match=r"more than 0\.001"):
        keep([run_in_memory("soft")], tmp_path, QUOTABLE)
    assert list(tmp_path.iterdir()) == []


def test_of_a_corpus_that_may_not_be_quoted_no_text_is_kept(tmp_path: Path) -> None:
    datasets = shipped_params()["datasets"]
    private = {**datasets, "chitchat": {**datasets["chitchat"], "quote": False, "source": "file:~/clients/talks"}}
    text = {"text": "/home/clients/a.txt", "tokens": 512, "sha256": "0" * 64}
    runs = tuple(run_in_memory(method, datasets=private, forgetting=text) for method in ("soft", "lora"))
    keep([run_in_memory("dynamic")], tmp_path, QUOTABLE)
    keep(runs, tmp_path, QUOTABLE - {"chitchat"})  # of what was kept earlier, too
    again = kept(tmp_path)
    assert "nor kept: the corpus has no `quote: true`" in to_markdown(build(Collection(tuple(again), ())))
    assert (tmp_path / "README.md").read_text(encoding="utf-8").endswith("\n\n- none\n")
    assert not any("clients" in str(run.params) or "dailydialog" in str(run.params) for run in again)
    assert [RESPONSES in run.files for run in again] == [False] * 3
    assert {json.dumps(run.scores) for run in runs} <= {json.dumps(run.scores) for run in again}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def filled(folder: Path, name: str, verdicts: list[str], delimiter: str = ",") -> Path:
    """The sheet with a verdict for each row: + for the answer of fine-tune, - for the other's; the rest as it is."""
    rows, key = rows_of(folder / SHEET), rows_of(folder / KEY)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        for row, names, verdict in zip(rows, key, verdicts, strict=True):
            left = "fine-tune" in names["1"]
            sides = {"+": "1" if left else "2", "-": "2" if left else "1"}
            writer.writerow({**row, "better": sides.get(verdict, verdict)})
    return folder / name


@pytest.fixture
def sheet(tmp_path: Path) -> tuple[Path, list[Run]]:
    """A folder with a sheet of 10 pairs, and the two runs."""
    runs = [run_in_memory("fine-tune"), run_in_memory("soft")]
    write_sheet(runs, [run.name for run in runs], 10, tmp_path)
    return tmp_path, runs


def test_a_sheet_has_the_answers_in_an_order_that_only_the_key_tells(sheet: tuple[Path, list[Run]]) -> None:
    folder, runs = sheet
    said = {(run.name, each.query): each.response for run in runs for each in run.responses}
    rows, key = rows_of(folder / SHEET), rows_of(folder / KEY)
    assert len({row["query"] for row in rows}) == 10
    for row, names in zip(rows, key, strict=True):
        for side in "12":
            assert row[side] == f"“{said[names[side], row['query'].strip('“”')]}”"
    assert {names["1"] for names in key} == {run.name for run in runs}, "both stand on the left now and then"


def test_what_people_wrote_is_read_back(sheet: tuple[Path, list[Run]]) -> None:
    folder, runs = sheet
    one = filled(folder, "one.csv", [*"++++++--=", ""])
    other = filled(folder, "other.csv", [*"+++++-++=", "-"], delimiter=";")
    said = tally([one], folder)
    assert f"{runs[0].name}: better for 6 queries; {runs[1].name}: better for 2; as good for 1" in said
    assert f"p = {2 * binom.cdf(2, 8, 0.5):.4f}" in said
    both = tally([one, other], folder)
    # Where the two contradict each other, at three queries, nobody has won; the last was rated by one of them.
    assert f"{runs[0].name}: better for 5 queries; {runs[1].name}: better for 1; as good for 4" in both
    # They agree on 6 of 9; by chance on (6 * 7 + 2 * 1 + 1 * 1) / 81 of them.
    kappa = (6 / 9 - 45 / 81) / (1 - 45 / 81)
    assert f"agree on 67 % of 9 queries, Cohen's kappa {kappa:.2f}" in both
    halves = [filled(folder, f"half-{at}.csv", [""] * at + ["+"] * 5 + [""] * (5 - at)) for at in (0, 5)]
    assert f"{runs[0].name}: better for 10 queries" in tally(halves, folder), "no query was rated twice"


def test_another_verdict_and_another_number_of_experiments_are_refused(sheet: tuple[Path, list[Run]]) -> None:
    folder, runs = sheet
    with pytest.raises(StageError, match=r"number 10: found better"):
        tally([odd := filled(folder, "odd.csv", [*"+++++++++", "better"])], folder)
    odd.write_text(odd.read_text(encoding="utf-8"), encoding="cp1252")
    with pytest.raises(StageError, match=r"not UTF-8"):
        tally([odd], folder)
    other = run_in_memory("soft", seed=1, part=slice(40))
    twin = replace(runs[1], name="twin")
    for name, reason in (
        (other.name, "other queries"),
        (twin.name, "the same answers"),
        ("none", "1 experiments named"),
    ):
        with pytest.raises(StageError, match=reason):
            write_sheet([*runs, other, twin], [runs[1].name, name], 10, folder)
