"""Rows as tokens: the text around query and response, where an answer ends, and texts that are never control tokens."""

import copy
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from stages.language_model.base_model import BaseModel
from stages.language_model.encoding import encode_pairs, encode_queries, to_text
from stages.language_model.prompt_template import endings, template_parts
from stages.language_model.text_tokens import text_tokens
from stages.params.schema import Lengths
from stages.params.sources import CHAT_TEMPLATE, END_OF_TEXT, PromptTemplateText
from stages.plumbing.errors import StageError
from stages.records import Pair
from tests.models import KEY, LONG, TEXTS, base_model, built
from tests.tiny import tiny_sentencepiece, tiny_tokenizer

TURNS = PromptTemplateText(prefix="A: ", separator="\nB: ", end="\n")
LINES = PromptTemplateText(separator="\n", end="\n")
TEMPLATES = (TURNS, LINES, TEXTS)
CONTROLLED = (
    PromptTemplateText(prefix="<s>A:", separator="</s>B:", end="</s>"),
    PromptTemplateText(prefix="<s>", separator="</s>\n<s>", end="</s>"),
    PromptTemplateText(prefix="<s>[ASK] ", separator=" [/ASK] ", end="</s>"),
    PromptTemplateText(prefix="Q", separator="", end="\n"),
)
KINDS = ("prepend", "always", "first")
CALL = "<tool_call>"
EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
OPENS = "{% if add_generation_prompt %}<assistant>{% endif %}"
# Thinking models show a turn that has been answered with its thoughts, empty or not, in front of the answer.
THINKS = EACH.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
LLAMA = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[ASK] {{ m.content }} [/ASK]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_long_query_loses_its_beginning(tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText) -> None:
    lengths = Lengths(max_query_tokens=20, max_new_tokens=8)
    template = built(tokenizer, text, lengths)
    pair = Pair("a", 0, "one two three four five six seven eight nine ten", "one two three four five")
    encoded, cuts = encode_pairs([pair], tokenizer, template, lengths)
    query, response = encoded[0]["query"], encoded[0]["response"]
    assert (cuts["queries"], len(query)) == (1, 20)
    whole = str(tokenizer.decode([*query, *response], clean_up_tokenization_spaces=False))
    assert whole.startswith(text.prefix.rstrip()) and "nine ten" in whole and "one two three four five six" not in whole
    assert query[len(query) - len(template.separator) :] == template.separator
    assert cuts["responses"] == 1 and len(response) == 8 and template.end not in response  # it does not end there


@pytest.mark.parametrize("text", TEMPLATES)
def test_what_a_person_wrote_is_no_special_token(tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText) -> None:
    template = built(tokenizer, text)
    pair = Pair("a", 0, "so <|endoftext|> said <end-of-text>", "no <|endoftext|> B: yes")
    encoded, _ = encode_pairs([pair], tokenizer, template, LONG)
    query, response = encoded[0]["query"], encoded[0]["response"]
    assert tokenizer.eos_token_id not in query[len(template.prefix) : len(query) - len(template.separator)]
    assert response.index(template.end) == len(response) - 1
    assert to_text(response[:-1], tokenizer) == pair.response


def beginning_with(tokenizer: PreTrainedTokenizerFast, bos: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts this token in front of each text."""
    tokenizer.add_special_tokens({"bos_token": bos})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("own", "bos"),
    [
        (lambda: beginning_with(tiny_sentencepiece("prepend"), "<s>"), "<s>"),  # Llama 2
        (lambda: beginning_with(tiny_tokenizer(), "<|endoftext|>"), "<|endoftext|>"),  # OPT: also its end
        (tiny_tokenizer, ""),  # GPT-2: it has such a token, but never read it there
    ],
)
def test_a_model_that_reads_a_beginning_of_text_token_gets_it_once(own: Any, bos: str) -> None:
    tokenizer = own()
    for text in (TURNS, LINES, TURNS.model_copy(update={"prefix": f"{bos}A: "})):
        (query,) = encode_queries(["how are you ?"], tokenizer, built(tokenizer, text), LONG)
        whole = f"{text.prefix}how are you ?{text.separator}".removesuffix(" ")
        is_there = bool(bos) and text.prefix.startswith(bos)
        assert query == tokenizer(whole, add_special_tokens=not is_there)["input_ids"]
        assert query[0] == tokenizer.bos_token_id or not bos
        assert query.count(tokenizer.bos_token_id) == bool(bos)


def ends_of(tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText, *own: int) -> dict[int, list[int]]:
    model = copy.deepcopy(base_model().model)
    model.generation_config.eos_token_id = list(own) or None
    return endings(tokenizer, built(tokenizer, text), BaseModel(model))


@pytest.mark.parametrize("kind", ["byte-level", "prepend", "always"])
def test_an_answer_ends_at_any_token_with_a_line_break_if_the_template_ends_at_one(kind: Any) -> None:
    tokenizer = tiny_tokenizer() if kind == "byte-level" else tiny_sentencepiece(kind)
    more = ["!\n", "\n\n", " \n", "no\nB", "ok"]
    tokenizer.add_tokens(more)
    ids: Any = tokenizer.convert_tokens_to_ids(more)
    stop, double, blank, word, ok = ids
    ends = ends_of(tokenizer, TURNS)
    assert ends.keys() >= {built(tokenizer, TURNS).end, tokenizer.eos_token_id, stop, double, blank, word}
    assert ok not in ends and not ends[double] and not ends[blank]
    (yes,) = tokenizer(["yes"], add_special_tokens=False)["input_ids"]
    assert [to_text([*yes, *ends[one]], tokenizer) for one in (stop, word)] == ["yes!", "yesno"]
    assert ends_of(tokenizer, TEXTS).keys() == {tokenizer.eos_token_id}  # a response of several lines


def test_an_answer_ends_where_the_model_ends_a_turn_or_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert ends_of(tokenizer, TEXTS, 7, 9) == {tokenizer.eos_token_id: [], 7: [], 9: []}
    assert ends_of(tokenizer, LINES, 7)[7] == []


def test_a_useless_template_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    for text, said in (
        (PromptTemplateText(separator="\n", end="the end"), r"template\.end: 'the end' is \d+ tokens; end a response"),
        (PromptTemplateText(prefix="a long story : " * 9, separator="\n", end="\n"), "takes .* tokens .*; shorten the"),
        (PromptTemplateText(separator="\n", end="s"), "the end is a token of ordinary text; use another"),
        (CHAT_TEMPLATE, "the tokenizer has no chat template; add"),
    ):
        with pytest.raises(StageError, match=said):
            built(tokenizer, text)


def parts(chat_template: str) -> PromptTemplateText:
    own = tiny_sentencepiece("prepend") if chat_template == LLAMA else tiny_tokenizer()
    own.chat_template = chat_template
    return template_parts(own, KEY)


@pytest.mark.parametrize(
    ("chat_template", "separator"),
    [
        (EACH + OPENS, "<|endoftext|><assistant>"),
        (EACH, "<|endoftext|><assistant>"),  # opens no answer when it is asked to
        (THINKS + OPENS, "<|endoftext|><assistant><think>\n\n</think>\n\n"),  # Qwen3
        (THINKS + OPENS.replace("nt>", "nt><think>"), "<|endoftext|><assistant><think>\n\n</think>\n\n"),
    ],
)
def test_the_separator_has_all_that_stands_in_front_of_an_answer(chat_template: str, separator: str) -> None:
    assert parts(chat_template) == PromptTemplateText(prefix="<user>", separator=separator, end="<|endoftext|>")


def test_the_end_is_the_first_control_token_behind_an_answer_and_a_date_is_the_same_every_day() -> None:
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    assert parts(dated + EACH).prefix == "26 Jul 2024<user>"
    assert parts(LLAMA) == PromptTemplateText(prefix="<s>[ASK] ", separator=" [/ASK] ", end="</s>")
    assert parts(EACH.replace("<|endoftext|>", " \n <|endoftext|>\n")).end == "<|endoftext|>"
    assert parts(EACH.replace("<|endoftext|>", " \n")).end == "\n"


def test_a_chat_template_that_cannot_be_used_is_refused_in_a_line() -> None:
    for chat_template, said in (
        ("{{ raise_exception('no') }}", "the chat template fails .*; write the parts"),
        ("hello", "the chat template leaves the text out; write prefix, separator and end"),
        (EACH.replace("<|endoftext|>", ""), "the chat template has nothing behind an answer; write prefix, .* and end"),
    ):
        with pytest.raises(StageError, match=f"^{KEY}: {said}$"):
            parts(chat_template)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEMPLATES + CONTROLLED, ids=lambda text: repr(text.separator))
def test_the_tokens_of_a_row_are_those_of_its_text(kind: Any, text: PromptTemplateText) -> None:
    tokenizer = tiny_sentencepiece(kind)
    for query, response in (("my sister is really great", "I agree"), ("é ?", "😀 ok"), ("¶ \\", ", no")):
        whole = f"{text.prefix}{query}{text.separator}{response}{text.end}".replace(END_OF_TEXT, "</s>")
        expected = tokenizer(whole, add_special_tokens=False)["input_ids"]
        (row,), _ = encode_pairs([Pair("a", 0, query, response)], tokenizer, built(tokenizer, text), LONG)
        assert [*row["query"], *row["response"]] == expected


@pytest.mark.parametrize("kind", ["byte-level", *KINDS, "unigram"])
def test_what_people_write_is_no_added_token_whether_marked_as_special_or_not(kind: Any) -> None:
    tokenizer = tiny_tokenizer() if kind == "byte-level" else tiny_sentencepiece(kind)
    tokenizer.add_tokens([CALL, "    "])  # not marked as special; a run of spaces stays a token
    written = f"so {CALL} and {CALL}{tokenizer.eos_token} ok"
    tokens, spaced = text_tokens(tokenizer, [written, "a    b"])
    assert not set(tokens) & set(tokenizer.added_tokens_decoder)
    assert str(tokenizer.decode(tokens)).strip() == written
    assert tokenizer.convert_tokens_to_ids(CALL) in tokenizer(written)["input_ids"]  # the tokenizer itself is as before
    assert kind != "byte-level" or tokenizer.convert_tokens_to_ids("    ") in spaced
