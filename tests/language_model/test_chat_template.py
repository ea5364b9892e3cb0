"""Chat templates of every habit as prompt templates."""

import pytest

from stages.language_model.prompt_template import template_parts
from stages.params.sources import PromptTemplateText
from stages.plumbing.errors import StageError
from tests.tiny import tiny_sentencepiece, tiny_tokenizer

EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
OPENS = "{% if add_generation_prompt %}<assistant>{% endif %}"
THINKS = "{% if add_generation_prompt %}<assistant><think>{% endif %}"
QUIET = EACH.replace("{{ m.content }}", "{% if m.role == 'assistant' %}<nothing>{% endif %}{{ m.content }}")
LLAMA = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[ASK] {{ m.content }} [/ASK]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)


def parts(template: str) -> PromptTemplateText:
    own = tiny_sentencepiece("prepend") if template == LLAMA else tiny_tokenizer()
    own.chat_template = template
    return template_parts(own, "models.x.prompt_template")


@pytest.mark.parametrize(
    ("template", "separator"),
    [
        (EACH + OPENS, "<|endoftext|><assistant>"),
        (EACH, "<|endoftext|><assistant>"),  # opens no answer when it is asked to
        (EACH + THINKS, "<|endoftext|><assistant>"),  # opens one in another way than it then shows it
        (QUIET + OPENS, "<|endoftext|><assistant>"),  # what an answer begins with is the model's
        (QUIET, "<|endoftext|><assistant><nothing>"),
    ],
)
def test_the_separator_always_has_the_header_of_an_answer(template: str, separator: str) -> None:
    assert parts(template) == PromptTemplateText(prefix="<user>", separator=separator, end="<|endoftext|>")


def test_the_end_is_the_first_control_token_behind_an_answer() -> None:
    assert parts(LLAMA) == PromptTemplateText(prefix="<s>[ASK] ", separator=" [/ASK] ", end="</s>")
    assert parts(EACH.replace("<|endoftext|>", " \n <|endoftext|>\n")).end == "<|endoftext|>"
    assert parts(EACH.replace("<|endoftext|>", " \n")).end == "\n"


def test_a_template_that_writes_the_date_writes_the_same_one_every_day() -> None:
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    assert parts(dated + EACH).prefix == "26 Jul 2024<user>"


@pytest.mark.parametrize("behind", ["", "{# nothing #}"])
def test_a_template_with_nothing_behind_an_answer_is_refused_in_a_line(behind: str) -> None:
    said = "^models.x.prompt_template: the chat template has nothing behind an answer; write prefix, separator and end$"
    with pytest.raises(StageError, match=said):
        parts(EACH.replace("<|endoftext|>", behind))
