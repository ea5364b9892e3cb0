"""Forgetting: the loss without a prompt, with what was trained of the model, on text that it was not tuned on."""

import copy
import random
import re
from pathlib import Path

import pytest
import torch

from stages.greedy_generate.forgetting import BLOCK, forgetting, losses, passage_of, read_text
from stages.language_model.loading import load_tokenizer
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import OF_SCIKIT_LEARN, Forgetting
from stages.plumbing.errors import StageError
from tests.language_model.test_prompt_template import beginning_with
from tests.models import method
from tests.trained import write_method, write_model

OWN_TEXT = Forgetting(text=OF_SCIKIT_LEARN, tokens=4 * BLOCK)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("forgetting") / "model", "gpt2")


def trained(folder: Path, model: Path, name: str, moved: float) -> TrainedMethod:
    return load_trained(write_method(folder / name, model, name, moved=moved), model)


@pytest.mark.parametrize("name", ["fine-tune", "lora", "embeddings", "soft", "dynamic"])
def test_it_is_the_loss_of_the_whole_model_with_what_was_trained_in_it(name: str, model: Path, tmp_path: Path) -> None:
    one = trained(tmp_path, model, name, 0.1)
    blocks = passage_of(OWN_TEXT, read_text(OWN_TEXT), one.tokenizer).blocks
    plain = copy.deepcopy(one.method.base.model)
    plain.load_state_dict(dict(one.method.language_model(one.weights)), strict=False)
    plain.tie_weights()
    with torch.no_grad():
        expected = [float(plain(input_ids=block[None], labels=block[None]).loss) for block in blocks]
    assert losses(one.method, one.weights, blocks).mean(1).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_model_that_was_shaken_has_forgotten_and_a_prompt_alone_changes_nothing(model: Path, tmp_path: Path) -> None:
    shaken = trained(tmp_path, model, "fine-tune", 0.2)
    found = forgetting(shaken, method("zero-shot"), passage_of(OWN_TEXT, read_text(OWN_TEXT), shaken.tokenizer))
    low, high = found["interval"]
    assert 0 < low <= found["difference"] <= high
    assert found["difference"] == pytest.approx(found["loss_after"] - found["loss_before"], abs=2e-4)
    assert found["tokens"] == 4 * BLOCK
    prompted = trained(tmp_path, model, "soft-classic", 0.2)
    found = forgetting(prompted, method("zero-shot"), passage_of(OWN_TEXT, read_text(OWN_TEXT), prompted.tokenizer))
    assert (found["difference"], found["interval"]) == (0, [0, 0])


def test_a_passage_of_one_paragraph_is_refused(model: Path) -> None:
    with pytest.raises(StageError, match=r"^params.yaml: forgetting: the first 512 tokens are one paragraph, or fewer"):
        passage_of(OWN_TEXT, "Hello there. " * 500 + "\n\nBye.", load_tokenizer(model))


def test_blocks_begin_with_the_token_that_rows_begin_with(model: Path) -> None:
    text, tokenizer = read_text(OWN_TEXT), beginning_with(load_tokenizer(model), "<s>")  # type: ignore[arg-type]
    found, plain = passage_of(OWN_TEXT, text, tokenizer), passage_of(OWN_TEXT, text, load_tokenizer(model))
    assert found.blocks[:, 0].tolist() == [tokenizer.bos_token_id] * 4 and found.blocks.shape == plain.blocks.shape
    for blocks, others in ((found.blocks, plain.blocks), (found.paragraphs, plain.paragraphs)):
        assert torch.equal(blocks[:, 1:].flatten(), others.flatten()[:-4])


def test_the_default_text_is_prose() -> None:
    """Words and marks: of all that stands in the descriptions less than half have a letter."""
    text = read_text(OWN_TEXT)
    tokens = re.findall(r"\w+|[^\w\s]", text)
    assert len(tokens) > 2500
    assert sum(any(letter.isalpha() for letter in token) for token in tokens) / len(tokens) > 0.75
    assert text.startswith("The 20 newsgroups dataset comprises"), "the longest description comes first"


def test_the_interval_draws_paragraphs(model: Path, tmp_path: Path) -> None:
    """Of two paragraphs, however long, half of the draws have one of them alone."""
    shaken, chance = trained(tmp_path, model, "fine-tune", 0.2), random.Random(0)
    words = chance.choices(["the", "cat", "sat", "on", "mats", "again"], k=900)
    settings, text = OWN_TEXT.model_copy(update={"tokens": 8 * BLOCK}), " ".join([*words[:300], "\n \n", *words[300:]])
    passage, untouched = passage_of(settings, text, shaken.tokenizer), method("zero-shot")
    difference = losses(shaken.method, shaken.weights, passage.blocks) - losses(untouched, {}, passage.blocks)
    means = [float(difference[passage.paragraphs[:, 1:] == number].mean()) for number in (0, 1)]
    assert forgetting(shaken, untouched, passage)["interval"] == pytest.approx(sorted(means), abs=1e-4)
