"""Examples and prefixes in the context are what PEFT and plain transformers make of the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor

from stages.language_model.encoding import encode_queries
from stages.methods.decoding import decode_and_score
from stages.methods.method import start_tokens
from stages.methods.prefix import KEYS, VALUES
from stages.methods.registry import build_method
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.methods import MethodSettings, Prefix, Soft
from stages.plumbing.errors import StageError
from stages.records import Pair, write_records
from tests.models import base_model, loss_of, method, moved_weights, pairs, plain_answer, plain_loss, weights
from tests.trained import FORMATS, write_method, write_model

PAIRS = pairs(5, seed=4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_losses_and_answers_are_those_of_the_model_with_the_examples_in_front(family: str) -> None:
    one = method("few-shot", family)
    own = weights(one)
    context = own["context"].tolist()
    assert context == [token for pair in pairs(4, seed=5) for token in pair.query + pair.response]
    queries = [pair.query for pair in PAIRS]
    found = decode_and_score(one, own, queries, [pair.response for pair in PAIRS], 8, {})
    for pair, loss, answer in zip(PAIRS, found.losses.tolist(), found.answers, strict=True):
        asked = context + pair.query
        assert loss == pytest.approx(plain_loss(one.base.model, asked, pair.response), rel=1e-4)
        assert answer == plain_answer(one.base.model, asked, 8)


TRAINING = [
    Pair("t", 0, "do you like green tea ?", "I like it " * 30),  # it is cut
    Pair("t", 2, "where is the big dog ?", "there"),
    Pair("u", 0, "do you like tea ?", "no"),
    Pair("u", 2, "are you there ?", "yes"),
]
NEAREST = {  # the three most similar pairs, the best last
    "do you like tea ?": [3, 0, 2],
    "where is the dog ?": [3, 2, 1],
}
REFERENCES = ["of course", "no idea"]


def looked_up(folder: Path, family: str) -> TrainedMethod:
    write_records(folder / "pairs", TRAINING)
    model = write_model(folder / "model", family)
    return load_trained(
        write_method(folder / "trained", model, "few-shot", FORMATS["text"], nearest=folder / "pairs"), model
    )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_nearest_examples_are_those_of_each_query_and_stand_in_front_of_it(family: str, tmp_path: Path) -> None:
    one = looked_up(tmp_path, family)

    def tokens(text: str) -> list[int]:
        found: list[int] = one.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def row(query: str, response: str) -> list[int]:
        said = tokens(f" {response}")[: one.lengths.max_new_tokens - 1]
        return [*tokens("A:"), *tokens(f" {query}"), *tokens("\nB:"), *said, *tokens("\n")]

    queries = one.encode(list(NEAREST))
    references = [[*tokens(f" {each}"), *tokens("\n")] for each in REFERENCES]
    decoded = one.decode_and_score(queries, references)
    for at, (query, near) in enumerate(NEAREST.items()):
        rows = [row(TRAINING[number].query, TRAINING[number].response) for number in near]
        asked = [*(token for each in rows for token in each), *tokens("A:"), *tokens(f" {query}"), *tokens("\nB:")]
        loss = plain_loss(one.method.base.model, asked, references[at])
        assert float(decoded.losses[at]) == pytest.approx(loss, rel=1e-4)
        answer = decoded.answers[at]
        assert plain_answer(one.method.base.model, asked, 10)[: len(answer)] == answer
        assert one.respond([query]) == one.texts([answer])
    assert one.respond([]) == [], "empty lines alone"


@pytest.mark.parametrize("limit", ["max_position_embeddings", "sliding_window", "window_size"])
def test_where_positions_are_few_so_are_examples(
    limit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = looked_up(tmp_path, "gpt2")
    whole = one.encode(list(NEAREST))
    room = one.lengths.max_query_tokens + one.lengths.max_new_tokens
    plain = encode_queries(list(NEAREST), one.tokenizer, one.prompt_template, one.lengths)
    examples = [row[: -len(query)] for row, query in zip(whole, plain, strict=True)]
    setattr(one.method.base.model.config, limit, room + len(examples[0]) - 1)
    fewer = one.encode(list(NEAREST))
    assert "queries have fewer than 3 examples" in capsys.readouterr().err
    assert 0 < len(fewer[0]) - len(plain[0]) < len(examples[0])
    assert whole[0][-len(fewer[0]) :] == fewer[0]


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
    answers = decode_and_score(one, own, [pair.query for pair in PAIRS], None, 8, {}).answers
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
    base, generator = base_model(), torch.Generator()
    for count, expected in ((4, [2, 3, 4, 5]), (7, [2, 3, 4, 5, 1, 2, 3])):
        assert start_tokens(base, "examples", count, generator, [[1, 2, 3], [4, 5]]) == expected
    with pytest.raises(StageError, match="there are no training pairs"):
        start_tokens(base, "examples", 4, generator, [])
