"""A prefix is what PEFT and plain transformers make of the same keys and values, and of the same examples."""

from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor

from stages.methods.decoding import greedy
from stages.methods.prefix import KEYS, VALUES
from stages.methods.registry import build_method
from stages.methods.start import context_of
from stages.params.methods import MethodSettings, Prefix, Soft
from stages.plumbing.errors import StageError
from tests.models import base_model, loss_of, method, moved_weights, pairs, plain_answer, plain_loss

PAIRS = pairs(5, seed=4)
ROWS = [pair.query + pair.response for pair in pairs(4, seed=5)]


def with_peft(own: dict[str, Tensor], family: str) -> Any:
    """The base model with the same prefix as an adapter of PEFT's."""
    model = base_model(family).model
    length = own[KEYS].shape[2]
    adapted: Any = get_peft_model(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length))
    both = torch.stack([own[KEYS], own[VALUES]], dim=1)  # [L, 2, heads, P, size]
    table = both.permute(3, 0, 1, 2, 4).reshape(length, -1)
    with torch.no_grad():
        adapted.prompt_encoder.default.embedding.weight.copy_(table)
    return adapted.eval()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_losses_and_answers_are_those_of_peft_with_the_same_tensors(family: str) -> None:
    one = method("prefix", family)
    own = moved_weights(one)
    adapted = with_peft(own, family)
    answers = greedy(one, own, [pair.query for pair in PAIRS], 8, ends={})
    for pair, answer in zip(PAIRS, answers, strict=True):
        expected = plain_loss(adapted, pair.query, pair.response)
        assert float(loss_of(one, own, [pair])) == pytest.approx(expected, rel=1e-4)
        assert answer == plain_answer(adapted, pair.query, 8)


CONTEXT = ROWS[0] + ROWS[1]
FROM_EXAMPLES: tuple[MethodSettings, ...] = (
    Prefix(kind="prefix", length=len(CONTEXT), init="examples"),
    Soft(kind="soft", length=len(CONTEXT), init="examples", train_embeddings=False),
)


@pytest.mark.parametrize("settings", FROM_EXAMPLES, ids=lambda settings: settings.kind)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_prefixes_and_prompts_start_as_examples_in_the_context(family: str, settings: MethodSettings) -> None:
    one = build_method(base_model(family), settings)
    own = one.initial_weights(torch.Generator(), ROWS)
    for pair in PAIRS:
        expected = plain_loss(one.base.model, CONTEXT + pair.query, pair.response)
        assert float(loss_of(one, own, [pair])) == pytest.approx(expected, abs=1e-4)


def test_its_examples_end_where_the_query_begins_and_are_repeated_where_they_are_few() -> None:
    assert context_of([[1, 2, 3], [4, 5]], 4) == [2, 3, 4, 5]
    assert context_of([[1, 2, 3], [4, 5]], 7) == [2, 3, 4, 5, 1, 2, 3]
    with pytest.raises(StageError, match="there are no training pairs"):
        context_of([], 4)
