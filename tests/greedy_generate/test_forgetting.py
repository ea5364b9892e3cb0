"""Forgetting: the loss without a prompt, with what was trained of the model, on text that it was not tuned on."""

import copy
from pathlib import Path

import pytest
import torch

from stages.greedy_generate.forgetting import BLOCK, OF_SCIKIT_LEARN, blocks_of, forgetting, losses, read_text
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import Forgetting
from stages.plumbing.errors import StageError
from tests.models import method
from tests.trained import FORMATS, write_method, write_model

OWN_TEXT = Forgetting(text=OF_SCIKIT_LEARN, tokens=4 * BLOCK)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("forgetting") / "model", "gpt2")


def trained(folder: Path, model: Path, name: str, moved: float) -> TrainedMethod:
    return load_trained(write_method(folder / name, model, name, FORMATS["text"], moved), model)


@pytest.mark.parametrize("name", ["fine-tune", "lora", "embeddings", "soft", "dynamic"])
def test_it_is_the_loss_of_the_whole_model_with_what_was_trained_in_it(name: str, model: Path, tmp_path: Path) -> None:
    one = trained(tmp_path, model, name, 0.1)
    blocks = blocks_of(read_text(OF_SCIKIT_LEARN), one.tokenizer, 4 * BLOCK)
    plain = copy.deepcopy(one.method.base.model)
    plain.load_state_dict(dict(one.method.language_model(one.weights)), strict=False)
    plain.tie_weights()
    with torch.no_grad():
        expected = [float(plain(input_ids=block[None], labels=block[None]).loss) for block in blocks]
    assert losses(one.method, one.weights, blocks).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_model_that_was_shaken_has_forgotten_and_a_prompt_alone_changes_nothing(model: Path, tmp_path: Path) -> None:
    shaken = trained(tmp_path, model, "fine-tune", 0.2)
    found = forgetting(shaken, method("zero-shot"), OWN_TEXT, read_text(OF_SCIKIT_LEARN))
    low, high = found["interval"]
    assert 0 < low <= found["difference"] <= high
    assert found["difference"] == pytest.approx(found["loss_after"] - found["loss_before"], abs=2e-4)
    assert found["tokens"] == 4 * BLOCK
    prompted = trained(tmp_path, model, "soft-classic", 0.2)
    found = forgetting(prompted, method("zero-shot"), OWN_TEXT, read_text(OF_SCIKIT_LEARN))
    assert (found["difference"], found["interval"]) == (0, [0, 0])


def test_a_text_that_cannot_be_read_or_is_too_short_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "short").write_text("Hello.", encoding="utf-8")
    one = trained(tmp_path, model, "zero-shot", 0.0)
    for name in ("latin", "absent"):
        with pytest.raises(
            StageError, match=rf"^params.yaml: forgetting.text: .*{name} cannot be read .*; name a text"
        ):
            read_text(str(tmp_path / name))
    with pytest.raises(StageError, match=r"^params.yaml: forgetting: \d+ tokens; give a longer text"):
        forgetting(one, one.method, Forgetting(text="short", tokens=4096), read_text(str(tmp_path / "short")))
