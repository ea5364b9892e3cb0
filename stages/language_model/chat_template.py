"""A tokenizer's chat template as a prompt template: what it puts around a user's turn and an assistant's."""

from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from stages.language_model.text_tokens import control_tokens, format_tokens, inside_a_row
from stages.params.sources import PromptTemplateText
from stages.plumbing.errors import StageError, one_line

QUERY, RESPONSE = "What did they ask?", "They answered this."  # stand-ins, to see what a format does to a text
# For templates that write the date: that of another day would be another prompt template, and no stopped training could
# go on with it. Llama 3's template falls back to this day.
TODAY = date(2024, 7, 26)
REMEDY = "write prefix, separator and end"


def template_parts(tokenizer: PreTrainedTokenizerBase, key: str) -> PromptTemplateText:
    """The parts of the tokenizer's own chat template; where it writes today's date, that is TODAY.

    Raises:
        StageError: there is none, or it cannot be used; `key` is that of the prompt template.
    """
    if not tokenizer.chat_template:
        raise StageError(key, "the tokenizer has no chat template", REMEDY)
    asked = [{"role": "user", "content": QUERY}]
    try:
        silent = _filled_in(tokenizer, asked)
        opened = _filled_in(tokenizer, asked, add_generation_prompt=True)
        closed = _filled_in(tokenizer, [*asked, {"role": "assistant", "content": RESPONSE}])
    except Exception as error:  # a template is a program of its own: whatever it raises, it cannot be used
        raise StageError(key, f"the chat template fails ({one_line(str(error))[:120]})", "write the parts") from None
    prefix, found, rest = closed.partition(QUERY)
    separator, answer, behind = rest.partition(RESPONSE)
    if not (found and answer):
        raise StageError(key, "the chat template leaves the text out", REMEDY)
    if opened != silent and closed.startswith(opened):  # else it does not open an answer, or not as it then shows it
        separator = opened.partition(QUERY)[2]
    return PromptTemplateText(prefix=prefix, separator=separator, end=_end(tokenizer, behind, key))


def _filled_in(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, strftime_now=TODAY.strftime, **options))


def _end(tokenizer: PreTrainedTokenizerBase, behind: str, key: str) -> str:
    """The first control token behind an answer: some templates put a space between. Without one, the first token."""
    ids = format_tokens(tokenizer, behind.lstrip(" ") or behind, inside_a_row(tokenizer))
    control = control_tokens(tokenizer)
    first = [number for number in ids if number in control][:1] or ids[:1]
    end = str(tokenizer.decode(first, clean_up_tokenization_spaces=False))
    if not end:
        raise StageError(key, "the chat template has nothing behind an answer", REMEDY)
    return end
