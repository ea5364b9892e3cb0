"""`python -m stages.export` in a project with real DVC: the files in the folder, and its README."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from stages.export.card import license_of, license_text, opening
from stages.export.forms import FORMS, form_of, transformers_lines
from stages.export.write import write_export
from stages.methods.trained_method import load_trained
from stages.params.schema import Params, parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder
from stages.plumbing.yaml import parse_yaml
from stages.report.markdown import fence, value
from stages.report.results import open_results
from tests.stage_runs import contents
from tests.tiny import command, shipped_params
from tests.trained import trained_copy

SHIPPED = parse_params(shipped_params())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy(tmp_path_factory)


@pytest.fixture(scope="module")
def exports(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exports of the workspace and of an experiment with another method, made by the command."""
    folder = tmp_path_factory.mktemp("exports")
    command(project, "python", "-m", "stages.export", "--to", str(folder / "workspace"))
    with contextlib.chdir(project), open_results(project, "softly") as results:
        results.check_fresh()
        write_export(results, folder / "softly")
    return {name: folder / name for name in ("workspace", "softly")}


def test_the_folder_holds_the_parts_of_its_method_and_nothing_else(exports: dict[str, Path]) -> None:
    language_model = {"config.json", "generation_config.json", "model.safetensors"}
    language_model |= {"tokenizer.json", "tokenizer_config.json", "README.md", "manifest.json"}
    found = {name: {p.relative_to(e).as_posix() for p in e.rglob("*") if p.is_file()} for name, e in exports.items()}
    assert found["workspace"] == language_model | {"controller/config.json", "controller/model.safetensors"}
    assert found["softly"] == language_model | {"prompt.safetensors"}
    for folder in exports.values():
        check_folder(folder)
        assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1  # all or none for others


def test_the_readme_has_the_lines_that_answer(project: Path, exports: dict[str, Path]) -> None:
    """That they do: tests/export/test_export.py."""
    for name, folder in exports.items():
        with open_results(project, None if name == "workspace" else name) as results:
            trained = load_trained(results.trained, results.model)
        lines = transformers_lines(trained, form_of(trained.method.settings))
        assert f"```python\n{lines.strip()}\n```" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_scores_with_baselines_leakage_and_license(project: Path, exports: dict[str, Path]) -> None:
    card = ModelCard.load(exports["workspace"] / "README.md")
    scores = json.loads((project / "metrics/scores.json").read_bytes())
    measured = {each.metric_name: each.metric_value for each in card.data.eval_results or []}
    assert measured["BLEU-4"] == scores["bleu4"]
    assert set(measured) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "novelty", "diversity"}
    assert (card.data.license, card.data.base_model) == ("cc-by-nc-sa-4.0", "openai-community/gpt2")
    assert card.data.datasets == ["roskoN/dailydialog"]
    low, high = scores["bleu4_interval"]
    assert f"| this model, all | {scores['bleu4']:.4f} | {low:.4f} to {high:.4f} |" in card.text
    for row in ("human", "retrieval"):
        assert f"| {scores[row]['unseen']['bleu4']:.4f} |" in card.text
    assert f"{100 * scores['leakage']['exact']['pairs']:.1f} % of the pairs" in card.text
    assert "may not be used commercially" in card.text
    assert 'the last 3 turns of the conversation, joined by `" "`' in card.text
    assert f"signature `{scores['signature']}`" in card.text
    used = parse_yaml(card.text.split("```yaml\n")[1].split("```")[0], "README.md")
    params = parse_yaml((project / "params.yaml").read_bytes(), "params.yaml")
    assert used["methods"] == {"dynamic": params["methods"]["dynamic"]} and used["pairs"] == params["pairs"]


@pytest.mark.parametrize("foreign", ["thesis.txt", "controller/thesis.txt", "data/train/manifest.json"])
def test_what_is_no_export_is_kept(project: Path, exports: dict[str, Path], tmp_path: Path, foreign: str) -> None:
    """In an export, in a folder of it, or in the folder of a stage, whose manifest names everything."""
    if foreign.startswith("data"):
        target = Path(shutil.copytree(project / "data/train", tmp_path / "target", symlinks=True))
    else:
        target = Path(shutil.copytree(exports["workspace"], tmp_path / "target"))
        (target / foreign).write_text("years of work")
    before = contents(target)
    with open_results(project) as results, pytest.raises(StageError, match="it is there, and of no export; name a new"):
        write_export(results, target)
    assert contents(target) == before


def test_the_card_shows_no_folder_of_this_machine_and_no_signed_address() -> None:
    params = SHIPPED
    data = params.chosen_dataset.model_copy(update={"source": "file:/home/jane/patients"})
    model = params.chosen_model.model_copy(update={"source": "url:https://store/model?Signature=abc"})
    params = params.model_copy(update={"datasets": {params.dataset: data}, "models": {params.model: model}})
    trained = SimpleNamespace(description={"learning_rate": 0, "epoch": 1})
    text = opening(params, trained, FORMS["soft"])  # type: ignore[arg-type]
    for shown in (text, value(data.source), value(model.source)):  # as the card has it, and the report
        assert "jane" not in shown and "abc" not in shown


def test_a_fence_is_longer_than_any_run_of_backticks_in_it() -> None:
    for text in ("plain", "a ``` b", "````\n# not a heading\n````"):
        (token,) = MarkdownIt().parse(fence("yaml", text))
        assert (token.type, token.info, token.content) == ("fence", "yaml", f"{text}\n")


def test_an_experiment_whose_weights_dvc_has_not_kept_says_so(project: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(project, tmp_path / "copied", symlinks=True))
    shutil.rmtree(copied / ".dvc/cache")
    said = r"experiment softly: its data/train is not in DVC's cache"
    with pytest.raises(StageError, match=said), open_results(copied, "softly"):
        pass


@pytest.mark.parametrize(
    ("model", "data", "method", "license", "commercial"),
    [
        ("Apache-2.0", "MIT", "soft", "apache-2.0", True),
        ("MIT", "CC-BY-NC-SA-4.0", "soft", "cc-by-nc-sa-4.0", False),
        ("MIT", "CC-BY-NC-SA-4.0", "zero-shot", "mit", True),
        ("MIT", None, "soft", "other", True),
        (None, "CC-BY-NC-SA-4.0", "soft", "other", False),
        ("GPL-3.0", "CC-BY-NC-SA-4.0", "soft", "other", False),
        ("MIT", "CC-BY-4.0", "soft", "cc-by-4.0", True),
        ("MIT", "CC0-1.0", "soft", "mit", True),
    ],
)
def test_the_license_is_no_guess(
    model: str | None, data: str | None, method: str, license: str, commercial: bool
) -> None:
    changed = SHIPPED.model_dump() | {"dataset": "chitchat", "model": "smollm2", "method": method}
    changed["models"]["smollm2"]["license"] = model
    changed["datasets"]["chitchat"]["license"] = data
    params = Params.model_validate(changed)
    assert license_of(params) == license
    text = license_text(params)
    assert ("may not be used commercially" in text) != commercial
    assert ("must be passed on under its own license" in text) == (data == "CC-BY-NC-SA-4.0" and method == "soft")
