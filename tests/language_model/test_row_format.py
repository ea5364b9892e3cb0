"""Row formats: the text around query and response, and wrong formats that are refused before anything slow."""

import pytest
from transformers import PreTrainedTokenizerFast

from stages.language_model.encoding import encode_pairs, encode_queries, to_text
from stages.language_model.row_format import RowFormat, build_row_format
from stages.params.schema import Lengths
from stages.params.sources import CHAT_TEMPLATE, END_OF_TEXT, RowFormatText
from stages.plumbing.errors import StageError
from stages.records import Pair
from tests.models import LONG
from tests.tiny import tiny_tokenizer

TURNS = RowFormatText(prefix="A: ", separator="\nB: ", end="\n")
FORMATS = (TURNS, RowFormatText(separator="\n", end="\n"), RowFormatText(separator=END_OF_TEXT, end=END_OF_TEXT))
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def built(tokenizer: PreTrainedTokenizerFast, text: RowFormatText | str, lengths: Lengths = LONG) -> RowFormat:
    return build_row_format(tokenizer, text, lengths, "models.x.row_format")


def written(tokenizer: PreTrainedTokenizerFast, row_format: RowFormat, pair: Pair, lengths: Lengths = LONG) -> str:
    """The row of a pair, as text."""
    (encoded,), _ = encode_pairs([pair], tokenizer, row_format, lengths)
    return str(tokenizer.decode([*encoded.query, *encoded.response], clean_up_tokenization_spaces=False))


def test_a_row_is_the_format_filled_in(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = Pair("a", 0, "how are you ?", "fine")
    assert written(tokenizer, built(tokenizer, TURNS), pair) == "A: how are you ?\nB: fine\n"
    assert written(tokenizer, built(tokenizer, FORMATS[1]), pair) == "how are you ?\nfine\n"
    assert written(tokenizer, built(tokenizer, FORMATS[2]), pair) == "how are you ?<|endoftext|>fine<|endoftext|>"


def test_the_tokens_of_a_text_are_those_that_it_has_in_the_whole_row(tokenizer: PreTrainedTokenizerFast) -> None:
    """A space in the format belongs to the word after it, as in the model's training texts."""
    row_format = built(tokenizer, TURNS)
    (query,), _ = encode_queries(["the weather"], tokenizer, row_format, LONG)
    assert query == tokenizer("A: the weather\nB:", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", FORMATS)
def test_a_long_query_loses_its_beginning_and_never_the_format(
    tokenizer: PreTrainedTokenizerFast, text: RowFormatText
) -> None:
    lengths = Lengths(query_tokens=20, response_tokens=8)
    row_format = built(tokenizer, text, lengths)
    pair = Pair("a", 0, "one two three four five six seven eight nine ten", "yes")
    (encoded,), cuts = encode_pairs([pair], tokenizer, row_format, lengths)
    assert (cuts.queries, len(encoded.query)) == (1, 20)
    whole = written(tokenizer, row_format, pair, lengths)
    assert whole.startswith(text.prefix.rstrip()) and "nine ten" in whole and "one two" not in whole
    assert encoded.query[len(encoded.query) - len(row_format.separator) :] == row_format.separator


def test_a_response_that_is_cut_has_no_end(tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = Lengths(query_tokens=20, response_tokens=4)
    row_format = built(tokenizer, TURNS, lengths)
    (short, long), cuts = encode_pairs(
        [Pair("a", 0, "q", "a"), Pair("a", 2, "q", "one two three four five")], tokenizer, row_format, lengths
    )
    assert short.response[-1] == row_format.end
    assert row_format.end not in long.response and len(long.response) == 4
    assert cuts.responses == 1


@pytest.mark.parametrize("text", FORMATS)
def test_what_a_person_wrote_is_never_a_special_token_nor_an_end(
    tokenizer: PreTrainedTokenizerFast, text: RowFormatText
) -> None:
    row_format = built(tokenizer, text)
    pair = Pair("a", 0, "so <|endoftext|> said <end-of-text>", "no <|endoftext|> B: yes")
    (encoded,), _ = encode_pairs([pair], tokenizer, row_format, LONG)
    around = len(row_format.prefix), len(encoded.query) - len(row_format.separator)
    assert tokenizer.eos_token_id not in encoded.query[around[0] : around[1]]
    assert encoded.response.index(row_format.end) == len(encoded.response) - 1
    assert to_text(encoded.response[:-1], tokenizer) == pair.response


def test_the_tokenizer_s_own_chat_template_is_a_format(tokenizer: PreTrainedTokenizerFast) -> None:
    own = tiny_tokenizer()
    own.chat_template = TEMPLATE
    row_format = built(own, CHAT_TEMPLATE)
    pair = Pair("a", 0, "hello", "hi")
    assert written(own, row_format, pair) == "<user>hello<|endoftext|><assistant>hi<|endoftext|>"
    assert row_format.end == own.eos_token_id


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            RowFormatText(separator="\n", end="the end"),
            r"row_format\.end: 'the end' is \d+ tokens; end a response with",
        ),
        (
            RowFormatText(prefix="a long story : " * 9, separator="\n", end="\n"),
            "it takes .* tokens; shorten|shorten the",
        ),
        (RowFormatText(separator="\n", end="s"), "the end is a token of ordinary text; use another"),
        (CHAT_TEMPLATE, "the tokenizer has no chat template; write"),
    ],
)
def test_a_format_that_cannot_work_is_refused(
    tokenizer: PreTrainedTokenizerFast, text: RowFormatText | str, said: str
) -> None:
    with pytest.raises(StageError, match=said):
        built(tokenizer, text)


def test_a_template_that_fails_or_swallows_the_text_is_refused() -> None:
    own = tiny_tokenizer()
    own.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(StageError, match=r"the chat template fails .*; write the parts"):
        built(own, CHAT_TEMPLATE)
    own.chat_template = "hello"
    with pytest.raises(StageError, match="the chat template leaves the text out"):
        built(own, CHAT_TEMPLATE)
