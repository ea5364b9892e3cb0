"""The loss of what people answered, as the stage greedy-generate measures it."""

from pathlib import Path

import pytest
import torch

from stages.greedy_generate import likelihood
from stages.greedy_generate.likelihood import reference_losses
from stages.language_model.base_model import Weights
from stages.language_model.encoding import encode_pairs
from stages.methods.batch import Batch
from stages.methods.losses import pair_losses
from stages.methods.method import Method
from stages.methods.trained_method import load_trained
from stages.records import Pair
from tests.trained import FORMATS, write_method, write_model

PAIRS = [
    Pair("a", 0, "How are you ?", "Fine , thank you ."),
    Pair("a", 2, "no", "Why not ? It is a good day to be out in the sun , and we are both here ."),
    Pair("b", 0, "Where is the bank that you told me of when we last met ?", "Over there ."),
]


@pytest.mark.parametrize("name", ["fine-tune", "soft", "dynamic", "lora", "zero-shot"])
def test_each_pair_has_the_loss_of_its_own_row_read_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "BATCH", 2)
    model = write_model(tmp_path / "model", "llama")
    trained = load_trained(write_method(tmp_path / name, model, name, FORMATS["text"], 0.1), model)
    found = reference_losses(trained, PAIRS)
    encoded, _ = encode_pairs(PAIRS, trained.tokenizer, trained.row_format, trained.lengths)
    assert [tokens for _, tokens in found] == [len(pair.response) for pair in encoded]
    method, own = trained.method, trained.method.prepared(trained.weights)
    for pair, (loss, _) in zip(encoded, found, strict=True):
        with torch.inference_mode():
            query, response = (method.embed(own, torch.tensor([side])) for side in (pair.query, pair.response))
            row = torch.cat([*method.before_response(own, query, False), response], dim=1)
            logits = method.base.logits(method.transformer.hidden(row, weights=method.layers(own)), method.output(own))
        before = logits[0, -len(pair.response) - 1 : -1].log_softmax(dim=-1)
        expected = -float(before.gather(1, torch.tensor(pair.response).unsqueeze(1)).sum())
        assert loss == pytest.approx(expected, abs=1e-3)
    for again, first in zip(reference_losses(trained, PAIRS[::-1]), found[::-1], strict=True):
        assert again == pytest.approx(first, abs=1e-3), "it depends on the order"


def test_a_batch_that_does_not_fit_is_halved_with_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model", "llama")
    trained = load_trained(write_method(tmp_path / "soft", model, "soft", FORMATS["text"], 0.1), model)
    whole = reference_losses(trained, PAIRS)
    losses = pair_losses

    def limited(method: Method, weights: Weights, batch: Batch) -> torch.Tensor:
        if len(batch.queries) > 1:
            raise torch.OutOfMemoryError("no memory")
        return losses(method, weights, batch)

    monkeypatch.setattr(likelihood, "pair_losses", limited)
    for again, first in zip(reference_losses(trained, PAIRS), whole, strict=True):
        assert again == pytest.approx(first, abs=1e-3)
