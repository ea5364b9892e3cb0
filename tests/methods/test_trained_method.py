"""A trained method in use: it gives the same answers to every caller."""

import json
from pathlib import Path

import pytest

from stages.methods.trained_method import load_trained, write_trained
from stages.params.sources import CHAT_TEMPLATE
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder, write_manifest
from tests import tiny
from tests.trained import QUERIES, trained_workspace, write_method, write_model


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_workspace(tmp_path_factory.mktemp("trained") / "workspace")


def test_two_on_one_base_model_share_its_frozen_parameters(workspace: Path) -> None:
    model = workspace / "data/download/model"
    other = write_method(workspace / "other", model, "soft", {"separator": "\n", "end": "\n", "prefix": ""})
    first = load_trained(workspace / "data/train", model)
    second = load_trained(other, model, beside=[first])
    assert second.method.base is first.method.base
    assert second.respond(QUERIES) == load_trained(other, model).respond(QUERIES)


def test_rows_stay_as_trained_though_a_template_has_a_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = {"prefix": "Mo<u>", "separator": "<|endoftext|><a>", "end": "<|endoftext|>"}
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.chat_template = "Tu{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<|endoftext|>{% endfor %}"
    monkeypatch.setattr(tiny, "tiny_tokenizer", lambda: tokenizer)
    model = write_model(tmp_path / "model")
    old = write_method(tmp_path / "old", model, "zero-shot", CHAT_TEMPLATE)
    assert load_trained(old, model).prompt_template.text["prefix"] == "Tu<u>"  # it has the word alone
    with output_folder(tmp_path / "new") as made:
        description = json.loads((old / "method.json").read_bytes())
        write_trained(made, None, {**description, "prompt_template_text": then}, tmp_path)
    trained = load_trained(tmp_path / "new", model)
    assert trained.prompt_template.text == then
    assert trained.tokenizer.decode(trained.encode(["hi"])[0]) == f"{then['prefix']}hi{then['separator']}"
    assert trained.description["prompt_template"] == CHAT_TEMPLATE, "what params.yaml says is the same"


def test_what_was_trained_on_another_model_or_says_no_row_format_is_refused(workspace: Path, tmp_path: Path) -> None:
    other = trained_workspace(tmp_path / "other", family="gpt2")
    with pytest.raises(StageError, match="trained on the base model"):
        load_trained(other / "data/train", workspace / "data/download/model")
    path = other / "data/train/method.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "prompt_template": {"end": 3}}))
    (other / "data/train/manifest.json").unlink()
    write_manifest(other / "data/train")
    with pytest.raises(StageError, match="not a trained method"):
        load_trained(other / "data/train", other / "data/download/model")
