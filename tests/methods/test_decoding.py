"""Our greedy decoding compared with `model.generate`, token by token."""

from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from stages.methods import decoding
from stages.methods.decoding import RowLimit, greedy
from stages.methods.method import Method
from stages.methods.reading import CHUNK
from tests.models import FAMILIES, method, pairs, weights

LIMIT = 10
QUERIES = [pair.query for pair in pairs(17, seed=4, longest=14)]


def generated(one: Method, own: dict[str, torch.Tensor], end: int) -> list[list[int]]:
    """The responses of transformers' `generate` to the same rows, one by one."""
    model: PreTrainedModel = one.base.model
    answers = []
    for query in QUERIES:
        embedded = one.embed(own, torch.tensor([query]))
        prompt = one.prompt(own, embedded)
        rows = embedded if prompt is None else torch.cat([prompt, embedded], dim=1)
        output = model.generate(  # type: ignore[operator]
            inputs_embeds=rows,
            attention_mask=torch.ones(rows.shape[:2], dtype=torch.long),
            max_new_tokens=LIMIT,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        tokens = output[0].tolist()
        answers.append(tokens[: tokens.index(end)] if end in tokens else tokens)
    return answers


def frequent_token(answers: list[list[int]]) -> int:
    """A token that is in some answers and not in others: used as end-of-text, it ends rows at different steps."""
    counts = Counter(token for answer in answers for token in set(answer))
    return min(counts, key=lambda token: (abs(counts[token] - len(answers) // 2), token))


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("name", ["zero-shot", "soft", "dynamic"])
def test_greedy_decoding_equals_generate(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    own = weights(one)
    end = frequent_token(greedy(one, [own], QUERIES, LIMIT, end=-1)[0])
    expected = generated(one, own, end)
    assert len({len(answer) for answer in expected}) > 2  # rows leave the batch at different steps
    for rows in (1, 5, 256):
        assert greedy(one, [own], QUERIES, LIMIT, end, RowLimit(rows))[0] == expected


def test_fine_tuned_weights_decode_as_the_model_that_holds_them() -> None:
    one = method("fine-tune", "llama")
    generator = torch.Generator().manual_seed(0)
    own = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in weights(one).items()}
    answers = greedy(one, [own], QUERIES, LIMIT, end=-1)[0]
    one.base.model.load_state_dict(own, strict=False)
    assert answers == generated(one, own, end=-1)


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune"])
def test_a_list_of_trials_decodes_as_each_trial_alone(name: str) -> None:
    one = method(name)
    trials = [weights(one, seed) for seed in range(3)]
    for index, own in enumerate(trials):  # no two trials give the same answers
        own.update({key: value * (1 + 0.1 * index) for key, value in own.items()})
    alone = [greedy(one, [own], QUERIES, LIMIT, end=-1)[0] for own in trials]
    for rows in (0, 3 * CHUNK, 12):  # one batch; two, with a whole chunk in the first; each trial for itself
        together = greedy(one, trials, QUERIES, LIMIT, end=-1, row_limit=RowLimit(rows))
        assert together == alone
    assert together[0] != together[1]


def test_out_of_memory_halves_the_batch_for_good_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = method("dynamic")
    own = weights(one)
    expected = greedy(one, [own], QUERIES, LIMIT, end=-1)
    decode, sizes = decoding._decode_batch, []

    def limited(*arguments: object) -> decoding.Decoded:
        queries = arguments[2]
        assert isinstance(queries, list)
        sizes.append(len(queries))
        if len(queries) > 5:
            raise torch.OutOfMemoryError("no memory")
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "_decode_batch", limited)
    row_limit = RowLimit()
    assert greedy(one, [own], QUERIES, LIMIT, end=-1, row_limit=row_limit) == expected
    assert sizes[:3] == [17, 8, 4]
    said = capsys.readouterr().out
    assert said.count("out of memory") == 2
    assert greedy(one, [own], QUERIES, LIMIT, end=-1, row_limit=row_limit) == expected  # like the next epoch
    assert max(sizes[3:]) == 4 and not capsys.readouterr().out


def test_trials_that_do_not_fit_together_go_on_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = method("soft")
    trials = [weights(one, seed) for seed in range(2)]
    expected = greedy(one, trials, QUERIES, LIMIT, end=-1)
    decode, tried = decoding._decode_batch, []

    def limited(*arguments: object) -> decoding.Decoded:
        own, queries = arguments[1:3]
        assert isinstance(own, list) and isinstance(queries, list)
        tried.append((len(own), len(queries)))
        if len(own) * len(queries) > CHUNK:
            raise torch.OutOfMemoryError("no memory")
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "_decode_batch", limited)
    assert greedy(one, trials, QUERIES, LIMIT, end=-1) == expected
    assert tried == [(2, 17), (1, 16), (1, 1), (1, 16), (1, 1)]


def test_little_free_memory_makes_small_batches_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    one = method("dynamic", "llama")
    own = weights(one)
    expected = greedy(one, [own], QUERIES, LIMIT, end=-1)
    decode, sizes = decoding._decode_batch, []

    def watched(*arguments: object) -> decoding.Decoded:
        assert isinstance(arguments[2], list)
        sizes.append(len(arguments[2]))
        return decode(*arguments)  # type: ignore[arg-type]

    columns = 2 * max(map(len, QUERIES)) + LIMIT
    of_a_row = 2 * 2 * 16 * columns * 4  # keys and values, layers, width of one shared head, float32
    monkeypatch.setattr(decoding, "free_memory", lambda device: 2 * 5 * of_a_row + 1)
    monkeypatch.setattr(decoding, "_decode_batch", watched)
    assert greedy(one, [own], QUERIES, LIMIT, end=-1) == expected
    assert sizes == [5, 5, 5, 2]


def test_how_many_rows_fit_is_asked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer queries than those of the call before take more memory."""
    one, asked = method("dynamic"), list[int]()

    def noted(_: Method, columns: int) -> int:
        asked.append(columns)
        return 3

    monkeypatch.setattr(decoding, "_rows_that_fit", noted)
    row_limit = RowLimit()
    for query in ([1, 2], [1, 2, 3, 4, 5]):
        greedy(one, [weights(one)], [query], LIMIT, end=-1, row_limit=row_limit)
    assert asked == [2 * 2 + LIMIT, 2 * 5 + LIMIT]
    assert row_limit.shrink(2) == 1 == row_limit.rows(one, 4)


def test_no_queries_have_no_answers() -> None:
    one = method("zero-shot")
    assert greedy(one, [{}], [], LIMIT, end=0) == [[]]


def test_the_limit_counts_end_of_text_and_rows_are_ticked_off() -> None:
    one = method("zero-shot")
    ticks: list[int] = []
    answers = greedy(one, [{}], QUERIES, 3, end=-1, tick=ticks.append)[0]
    assert {len(answer) for answer in answers} == {3}
    assert sum(ticks) == len(QUERIES)
