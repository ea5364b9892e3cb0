"""How a model is spoken to: a row is [prefix][query][separator][response][end].

A template is written as text in params.yaml (`models.<name>.prompt_template`), or is the tokenizer's own chat template,
and is used as tokens. Only the template may hold special tokens; what a person wrote never becomes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from transformers import PreTrainedTokenizerBase

from stages.language_model.base_model import BaseModel
from stages.language_model.loading import refused
from stages.language_model.text_tokens import (
    START,
    Front,
    control_tokens,
    format_tokens,
    front_behind,
    inside_a_row,
    row_start,
    text_tokens,
)  # fmt: skip
from stages.params.schema import Lengths
from stages.params.sources import PromptTemplateText
from stages.plumbing.errors import StageError

QUERY, RESPONSE = "What did they ask?", "They answered this."  # stand-ins, to see what a template does to a text
# Where a template writes the date: of another day it would be another template, and no stopped training could go on
# with it. Llama 3's template falls back to this day.
TODAY = date(2024, 7, 26)
WRITE = "write prefix, separator and end"


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt template as tokens, with what query and response are tokenised behind.

    `A: ` becomes the tokens of `A:` and a space in front of the query: tokenizers join it to the word that follows.
    """

    prefix: list[int]
    query_front: Front
    separator: list[int]
    response_front: Front
    end: int
    text: dict[str, str]  # prefix, separator and end as they were written, or as the chat template gave them

    def room(self, longest: int) -> int:
        """Tokens that a query may have itself, so that it has `longest` with prefix and separator."""
        return longest - len(self.prefix) - len(self.separator)

    def query(self, tokens: Sequence[int], longest: int) -> list[int]:
        """Prefix, query, separator: at most `longest` tokens, for which the query loses its beginning."""
        return [*self.prefix, *tokens[max(len(tokens) - self.room(longest), 0) :], *self.separator]

    def response(self, tokens: Sequence[int], longest: int) -> list[int]:
        """Response and end: at most `longest` tokens. A response that is cut has no end: it does not end there."""
        return [*tokens, self.end][:longest]

    def example(self, query: Sequence[int], response: Sequence[int]) -> list[int]:
        """A pair of `query` and `response` as a row that another one follows: where it was cut, it has an end too."""
        return [*query, *response[:-1], self.end]


def build_prompt_template(
    tokenizer: PreTrainedTokenizerBase, text: PromptTemplateText | str, lengths: Lengths, key: str
) -> PromptTemplate:
    """The tokens of a prompt template, checked before anything slow.

    In front comes the beginning-of-text token where the tokenizer puts one (Llama, Mistral, Gemma).

    Args:
        tokenizer: of the base model.
        text: the entry `prompt_template` of the model: a PromptTemplateText, or CHAT_TEMPLATE for the tokenizer's own.
        lengths: of the protocol.
        key: of the entry in params.yaml, for errors.

    Raises:
        StageError: the end is not one token, the template leaves queries less than half of `max_query_tokens`, the
            tokenizer has no chat template, or a text is not the same when it is decoded again.
    """
    parts = template_parts(tokenizer, key) if isinstance(text, str) else text
    inside = inside_a_row(tokenizer)
    before, between = parts.prefix.removesuffix(" "), parts.separator.removesuffix(" ")
    prefix, separator = format_tokens(tokenizer, before), format_tokens(tokenizer, between, inside)
    end = format_tokens(tokenizer, parts.end, inside)
    if len(end) != 1:
        remedy = "end a response with one token: a line break, or <end-of-text>"
        raise StageError(f"{key}.end", f"{parts.end!r} is {len(end)} tokens", remedy)
    query_front = front_behind(tokenizer, prefix[-1]) if prefix else START
    response_front = front_behind(tokenizer, separator[-1]) if separator else inside
    start = row_start(tokenizer)
    if prefix[: len(start)] != start:
        prefix = start + prefix
    taken, most = len(prefix) + len(separator), lengths.max_query_tokens
    if taken > most // 2:
        found = f"the template takes {taken} of {most} tokens (protocols.*.lengths.max_query_tokens)"
        raise StageError(key, found, "shorten the template or raise max_query_tokens")
    query_front = replace(query_front, text=query_front.text + parts.prefix[len(before) :])
    response_front = replace(response_front, text=response_front.text + parts.separator[len(between) :])
    for said, front in ((QUERY, query_front), (RESPONSE, response_front)):
        (tokens,) = text_tokens(tokenizer, [said], front)
        decoded = str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False)).strip()
        if decoded != said or end[0] in tokens:
            found = f"{said!r} comes back as {decoded!r}" if decoded != said else "the end is a token of ordinary text"
            raise StageError(key, found, "use another template")
    return PromptTemplate(prefix, query_front, separator, response_front, end[0], parts.model_dump())


def endings(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, base: BaseModel) -> dict[int, list[int]]:
    """The tokens at which an answer ends, and with each the tokens of what it still says.

    The end of the template and the model's own end-of-text say nothing. Where the template ends at a line break, so
    does an answer at every token that has one: a full stop with a line break behind it still says the full stop.
    """
    ends = dict[int, list[int]]({one: [] for one in (template.end, tokenizer.eos_token_id, *base.ends)})
    if "\n" in template.text["end"]:
        written = ("\n", "Ċ", "<0x0A>")  # "Ċ" by byte-level tokenizers; or as the byte that it is
        pieces = [number for piece, number in tokenizer.get_vocab().items() if any(one in piece for one in written)]
        texts = [str(tokenizer.decode([number], clean_up_tokenization_spaces=False)) for number in pieces]
        said = [text.partition("\n")[0].rstrip() for text in texts]
        tokens = text_tokens(tokenizer, said, inside_a_row(tokenizer))
        ends |= {one: left for one, text, left in zip(pieces, texts, tokens, strict=True) if "\n" in text}
    return ends


def template_parts(tokenizer: PreTrainedTokenizerBase, key: str) -> PromptTemplateText:
    """The parts of the tokenizer's own chat template, in which a turn has been answered.

    So the separator has whatever stands in front of an answer: its header, and the empty thoughts of a model that
    thinks (Qwen3). Raises StageError if there is none, or it cannot be used.
    """
    if not tokenizer.chat_template:
        raise StageError(key, "the tokenizer has no chat template", f"add chat_template.jinja to files, or {WRITE}")
    turns = [{"role": "user", "content": QUERY}, {"role": "assistant", "content": RESPONSE}]
    with refused(key, "the chat template fails", "write the parts"):  # it is a program of its own
        filled_in = tokenizer.apply_chat_template(turns, tokenize=False, strftime_now=TODAY.strftime)
    prefix, found, rest = str(filled_in).partition(QUERY)
    separator, answer, behind = rest.partition(RESPONSE)
    if not (found and answer):
        raise StageError(key, "the chat template leaves the text out", WRITE)
    # The end is the first control token behind the answer: some templates put a space between. Or else the first token.
    ids = format_tokens(tokenizer, behind.lstrip(" ") or behind, inside_a_row(tokenizer))
    first = [number for number in ids if number in control_tokens(tokenizer)][:1] or ids[:1]
    end = str(tokenizer.decode(first, clean_up_tokenization_spaces=False))
    if not end:
        raise StageError(key, "the chat template has nothing behind an answer", WRITE)
    return PromptTemplateText(prefix=prefix, separator=separator, end=end)
