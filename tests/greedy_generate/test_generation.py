"""What the stage greedy-generate writes of each test pair."""

from pathlib import Path

import pytest
import torch

from stages.greedy_generate.generation import generate, read_task
from stages.language_model.encoding import EncodedPair, encode_pairs
from stages.methods.trained_method import load_trained
from stages.params.schema import load_params
from tests.models import loss_of
from tests.trained import FORMATS, trained_workspace, write_method

MODEL, TRAINED = Path("data/download/model"), Path("data/train")


@pytest.mark.parametrize("nearest", [False, True])
def test_each_response_stands_with_the_loss_and_the_tokens_of_its_own_reference(
    nearest: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_workspace(tmp_path / "workspace"))
    if nearest:
        write_method(TRAINED, MODEL, "few-shot", FORMATS["text"], nearest=Path("data/subset/train.jsonl"))
    task = read_task(Path("data/subset"), load_params())
    responses = generate(task, MODEL, TRAINED).responses
    trained = load_trained(TRAINED, MODEL)
    encoded, _ = encode_pairs(task.pairs, trained.tokenizer, trained.prompt_template, trained.lengths)
    assert [(each.query, each.reference) for each in responses] == [(pair.query, pair.response) for pair in task.pairs]
    assert [each.response for each in responses] == trained.respond([pair.query for pair in task.pairs])
    assert [each.tokens for each in responses] == [len(tokens) for tokens in encoded["response"]]
    assert len({each.tokens for each in responses}) > 2
    queries, _ = trained.encode([pair.query for pair in task.pairs])
    for query, reference, found in zip(queries, encoded["response"], responses, strict=True):
        with torch.inference_mode():
            loss = loss_of(trained.method, trained.weights, [EncodedPair(query, reference)])
        assert found.loss == pytest.approx(float(loss), abs=1e-3)
