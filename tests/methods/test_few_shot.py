"""Examples in the context are what plain transformers makes of the same tokens."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stages.methods.decoding import decode_and_score, greedy
from tests.models import method, pairs, weights

PAIRS = pairs(5, seed=4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_losses_and_answers_are_those_of_the_model_with_the_examples_in_front(family: str) -> None:
    one = method("few-shot", family)
    own = weights(one)
    context = own["context"].tolist()
    assert context == [token for pair in pairs(4, seed=5) for token in pair.query + pair.response]
    queries = [pair.query for pair in PAIRS]
    losses = decode_and_score(one, own, queries, [pair.response for pair in PAIRS], 0, {}).losses
    answers = greedy(one, own, queries, 8, ends={})
    for pair, loss, answer in zip(PAIRS, losses.tolist(), answers, strict=True):
        with torch.inference_mode():
            row = torch.tensor([context + pair.query + pair.response])
            logits = one.base.model(input_ids=row).logits[0, -len(pair.response) - 1 : -1]
        expected = F.cross_entropy(logits, torch.tensor(pair.response), reduction="sum")
        assert loss == pytest.approx(float(expected), rel=1e-4)
        row = torch.tensor([context + pair.query])
        model: Any = one.base.model
        generated = model.generate(row, max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert generated[0, row.shape[1] :].tolist() == answer
