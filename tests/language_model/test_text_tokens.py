"""Texts as tokens: those of the whole row, and never a token that stands for something."""

from typing import Any, Literal

import pytest
from transformers import PreTrainedTokenizerFast

from stages.language_model.encoding import encode_pairs, to_text
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template
from stages.language_model.text_tokens import Front, inside_a_row, text_tokens
from stages.params.sources import END_OF_TEXT, PromptTemplateText
from stages.records import Pair
from tests.models import LONG
from tests.tiny import tiny_sentencepiece, tiny_tokenizer

KINDS = ("prepend", "always", "first")
FORMATS = (
    PromptTemplateText(prefix="A: ", separator="\nB: ", end="\n"),
    PromptTemplateText(separator="\n", end="\n"),
    PromptTemplateText(separator=END_OF_TEXT, end=END_OF_TEXT),
    PromptTemplateText(prefix="<s>A:", separator="</s>B:", end="</s>"),
    PromptTemplateText(prefix="<s>", separator="</s>\n<s>", end="</s>"),
    PromptTemplateText(prefix="<s>[ASK] ", separator=" [/ASK] ", end="</s>"),
    PromptTemplateText(prefix="Q", separator="", end="\n"),
)
CALL = "<tool_call>"
Kind = Literal["prepend", "always", "first", "unigram"]


def built(tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText) -> PromptTemplate:
    return build_prompt_template(tokenizer, text, LONG, "models.x.prompt_template")


def row(tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText, pair: Pair) -> list[int]:
    (encoded,), _ = encode_pairs([pair], tokenizer, built(tokenizer, text), LONG)
    return [*encoded["query"], *encoded["response"]]


def with_calls(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with an added token that is not marked as special, and one for a run of spaces."""
    tokenizer.add_tokens([CALL, "    "])
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", FORMATS, ids=lambda text: repr(text.separator))
def test_the_tokens_of_a_row_are_those_of_its_text(kind: Kind, text: PromptTemplateText) -> None:
    tokenizer = tiny_sentencepiece(kind)
    for query, response in (("my sister is really great", "I agree"), ("é ?", "😀 ok"), ("¶ \\", ", no")):
        whole = f"{text.prefix}{query}{text.separator}{response}{text.end}".replace(END_OF_TEXT, "</s>")
        expected = tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert row(tokenizer, text, Pair("a", 0, query, response)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_break_ends_a_row_where_it_is_a_byte(kind: Kind) -> None:
    tokenizer = tiny_sentencepiece(kind)
    prompt_template = built(tokenizer, FORMATS[0])
    assert tokenizer.convert_ids_to_tokens(prompt_template.end) == "<0x0A>"
    (encoded,), _ = encode_pairs([Pair("a", 0, "hello", "I agree")], tokenizer, prompt_template, LONG)
    assert to_text(encoded["response"][:-1], tokenizer) == "I agree"


def test_a_text_inside_a_row_stands_behind_something_that_the_tokenizer_keeps() -> None:
    assert inside_a_row(tiny_tokenizer()) == Front()
    assert inside_a_row(tiny_sentencepiece("prepend")) == Front("\n", 2)
    assert inside_a_row(tiny_sentencepiece("unigram")).text == "¶"
    joined = tiny_sentencepiece("prepend")
    joined.add_tokens(["\nB"])
    assert inside_a_row(joined).text == "¶"


@pytest.mark.parametrize("kind", ["byte-level", *KINDS, "unigram"])
def test_what_people_write_is_no_added_token_whether_marked_as_special_or_not(kind: Any) -> None:
    tokenizer = with_calls(tiny_tokenizer() if kind == "byte-level" else tiny_sentencepiece(kind))
    written = f"so {CALL} and {CALL}{tokenizer.eos_token} ok"
    (tokens,) = text_tokens(tokenizer, [written])
    assert not set(tokens) & set(tokenizer.added_tokens_decoder)
    assert str(tokenizer.decode(tokens)).strip() == written
    assert tokenizer.convert_tokens_to_ids(CALL) in tokenizer(written)["input_ids"]  # the tokenizer itself is as before


def test_an_end_that_is_not_marked_as_special_stands_once_in_a_response() -> None:
    tokenizer = with_calls(tiny_tokenizer())
    prompt_template = built(tokenizer, PromptTemplateText(separator="\n", end=CALL))
    (encoded,), _ = encode_pairs([Pair("a", 0, "hello", f"no {CALL} yes")], tokenizer, prompt_template, LONG)
    assert encoded["response"].index(prompt_template.end) == len(encoded["response"]) - 1
    assert prompt_template.end == tokenizer.convert_tokens_to_ids(CALL)


def test_runs_of_spaces_stay_the_tokens_that_the_model_knows() -> None:
    tokenizer = with_calls(tiny_tokenizer())
    (tokens,) = text_tokens(tokenizer, ["a    b"])
    assert tokenizer.convert_tokens_to_ids("    ") in tokens


def test_rows_of_a_byte_level_tokenizer_are_what_they_have_always_been() -> None:
    pair = Pair("a", 0, "my sister <|endoftext|> é", "  I agree 😀")
    query = [89, 261, 299, 221, 28, 92, 69, 78, 68, 79, 70, 84, 69, 88, 84, 92, 30, 221, 128, 103]
    response = [221, 221, 41, 276, 275, 69, 221, 173, 254, 247, 223]
    tokenizer = tiny_tokenizer()
    spaced = [33, 26, 263, *query, 199, 34, 26, 221, *response, 199]
    assert row(tokenizer, FORMATS[0], pair) == spaced
    assert row(tokenizer, FORMATS[1], pair) == [77, *query, 199, *response, 199]
    assert row(tokenizer, FORMATS[2], pair) == [77, *query, 0, *response, 0]
