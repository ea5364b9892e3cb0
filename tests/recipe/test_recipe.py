"""The recipe study on a tiny model: what it measures, that it goes on where it was, and its table."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.params.schema import load_params
from stages.recipe.cells import EMBEDDINGS, FINE_TUNE, TURNS, ZERO_SHOT, Cell, rates
from stages.recipe.study import Study
from stages.recipe.table import render
from tests.tiny import ROOT
from tests.training_runs import workspace

CELLS = (Cell(TURNS, ZERO_SHOT), Cell("end-of-text", EMBEDDINGS, rates(1e-3, 1e-2, 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("recipe") / "project")


def measured(folder: Path, *cells: Cell) -> tuple[dict[str, Any], list[str]]:
    """What the study wrote, and what it said of the cells that it had to run."""
    out, said = folder / "recipe.json", list[str]()
    study = Study(
        load_params(folder / "params.yaml"), folder / "data/subset", folder / "data/download/model", out, "tiny"
    )
    study.run(cells, said.append)
    return json.loads(out.read_bytes()), said


def test_a_cell_is_measured_once_and_its_trials_are_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    result, said = measured(folder, *CELLS)
    assert [row["learning_rate"] for row in result["rows"]] == [0, 1e-3, 1e-2]
    assert [row["method"] for row in result["rows"]] == ["zero-shot", "embeddings", "embeddings"]
    assert len(said) == 2
    again, said = measured(folder, *CELLS, Cell("end-of-text", FINE_TUNE, rates(1e-3, 1e-3, 1)))
    assert again["rows"][:3] == result["rows"]
    assert len(said) == 1 and "fine-tune" in said[0]


def test_the_test_pairs_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "data/subset/test.jsonl").unlink()
    result, _ = measured(folder, Cell("line breaks", ZERO_SHOT))
    assert result["rows"][-1]["format"] == "line breaks"


def test_the_table_that_is_kept_is_the_one_of_its_figures() -> None:
    result = json.loads((ROOT / "metrics/recipe.json").read_bytes())
    written = (ROOT / "metrics/recipe.md").read_text(encoding="utf-8")
    assert written == render(result)
    assert written.count("**") == 2 * 2 * len({row["corpus"] for row in result["rows"]})
