"""Prompt templates: the text around query and response, and wrong formats that are refused before anything slow."""

import pytest
from transformers import PreTrainedTokenizerFast

from stages.language_model.encoding import encode_pairs, encode_queries, to_text
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template
from stages.params.schema import Lengths
from stages.params.sources import CHAT_TEMPLATE, END_OF_TEXT, PromptTemplateText
from stages.plumbing.errors import StageError
from stages.records import Pair
from tests.models import LONG
from tests.tiny import tiny_tokenizer

TURNS = PromptTemplateText(prefix="A: ", separator="\nB: ", end="\n")
FORMATS = (
    TURNS,
    PromptTemplateText(separator="\n", end="\n"),
    PromptTemplateText(separator=END_OF_TEXT, end=END_OF_TEXT),
)
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def built(
    tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText | str, lengths: Lengths = LONG
) -> PromptTemplate:
    return build_prompt_template(tokenizer, text, lengths, "models.x.prompt_template")


def written(
    tokenizer: PreTrainedTokenizerFast, prompt_template: PromptTemplate, pair: Pair, lengths: Lengths = LONG
) -> str:
    """The row of a pair, as text."""
    (encoded,), _ = encode_pairs([pair], tokenizer, prompt_template, lengths)
    return str(tokenizer.decode([*encoded["query"], *encoded["response"]], clean_up_tokenization_spaces=False))


def test_a_row_is_the_format_filled_in(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = Pair("a", 0, "how are you ?", "fine")
    assert written(tokenizer, built(tokenizer, TURNS), pair) == "A: how are you ?\nB: fine\n"
    assert written(tokenizer, built(tokenizer, FORMATS[1]), pair) == "how are you ?\nfine\n"
    assert written(tokenizer, built(tokenizer, FORMATS[2]), pair) == "how are you ?<|endoftext|>fine<|endoftext|>"


def test_the_tokens_of_a_text_are_those_that_it_has_in_the_whole_row(tokenizer: PreTrainedTokenizerFast) -> None:
    """A space in the format belongs to the word after it, as in the model's training texts."""
    prompt_template = built(tokenizer, TURNS)
    (query,), _ = encode_queries(["the weather"], tokenizer, prompt_template, LONG)
    assert query == tokenizer("A: the weather\nB:", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", FORMATS)
def test_a_long_query_loses_its_beginning_and_never_the_format(
    tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText
) -> None:
    lengths = Lengths(max_query_tokens=20, max_new_tokens=8)
    prompt_template = built(tokenizer, text, lengths)
    pair = Pair("a", 0, "one two three four five six seven eight nine ten", "yes")
    (encoded,), cuts = encode_pairs([pair], tokenizer, prompt_template, lengths)
    assert (cuts.queries, len(encoded["query"])) == (1, 20)
    whole = written(tokenizer, prompt_template, pair, lengths)
    assert whole.startswith(text.prefix.rstrip()) and "nine ten" in whole and "one two" not in whole
    assert encoded["query"][len(encoded["query"]) - len(prompt_template.separator) :] == prompt_template.separator


def test_a_response_that_is_cut_has_no_end(tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = Lengths(max_query_tokens=20, max_new_tokens=4)
    prompt_template = built(tokenizer, TURNS, lengths)
    (short, long), cuts = encode_pairs(
        [Pair("a", 0, "q", "a"), Pair("a", 2, "q", "one two three four five")], tokenizer, prompt_template, lengths
    )
    assert short["response"][-1] == prompt_template.end
    assert prompt_template.end not in long["response"] and len(long["response"]) == 4
    assert cuts.responses == 1


@pytest.mark.parametrize("text", FORMATS)
def test_what_a_person_wrote_is_never_a_special_token_nor_an_end(
    tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText
) -> None:
    prompt_template = built(tokenizer, text)
    pair = Pair("a", 0, "so <|endoftext|> said <end-of-text>", "no <|endoftext|> B: yes")
    (encoded,), _ = encode_pairs([pair], tokenizer, prompt_template, LONG)
    around = len(prompt_template.prefix), len(encoded["query"]) - len(prompt_template.separator)
    assert tokenizer.eos_token_id not in encoded["query"][around[0] : around[1]]
    assert encoded["response"].index(prompt_template.end) == len(encoded["response"]) - 1
    assert to_text(encoded["response"][:-1], tokenizer) == pair.response


def test_the_tokenizer_s_own_chat_template_is_a_format(tokenizer: PreTrainedTokenizerFast) -> None:
    own = tiny_tokenizer()
    own.chat_template = TEMPLATE
    prompt_template = built(own, CHAT_TEMPLATE)
    pair = Pair("a", 0, "hello", "hi")
    assert written(own, prompt_template, pair) == "<user>hello<|endoftext|><assistant>hi<|endoftext|>"
    assert prompt_template.end == own.eos_token_id


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            PromptTemplateText(separator="\n", end="the end"),
            r"prompt_template\.end: 'the end' is \d+ tokens; end a response with",
        ),
        (
            PromptTemplateText(prefix="a long story : " * 9, separator="\n", end="\n"),
            "it takes .* tokens; shorten|shorten the",
        ),
        (PromptTemplateText(separator="\n", end="s"), "the end is a token of ordinary text; use another"),
        (CHAT_TEMPLATE, "the tokenizer has no chat template; write"),
    ],
)
def test_a_format_that_cannot_work_is_refused(
    tokenizer: PreTrainedTokenizerFast, text: PromptTemplateText | str, said: str
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
