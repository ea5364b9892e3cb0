"""How a model is spoken to: what stands before the query, between query and response, and what ends a response.

A format is written as text in params.yaml (`models.<name>.row_format`) and used as tokens. A row is then

    [prefix][query][separator][response][end]

and the prompt of a method stands in front of it, made from prefix, query and separator, and as long as these. Only the
format may hold special tokens; what a person wrote never becomes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stages.params.schema import Lengths
from stages.params.sources import END_OF_TEXT, RowFormatText
from stages.plumbing.errors import StageError, one_line

QUERY, RESPONSE = "What did they ask?", "They answered this."  # stand-ins, to see what a format does to a text


@dataclass(frozen=True)
class RowFormat:
    """A row format as tokens, with the spaces that belong to the text behind them.

    `A: ` becomes the tokens of `A:` and a space in front of the query, because byte-level tokenizers join a space to
    the word that follows it.
    """

    prefix: list[int]
    query_space: str
    separator: list[int]
    response_space: str
    end: int

    def query(self, tokens: Sequence[int], longest: int) -> list[int]:
        """Prefix, query, separator: at most `longest` tokens, for which the query loses its beginning."""
        room = longest - len(self.prefix) - len(self.separator)
        return [*self.prefix, *tokens[max(len(tokens) - room, 0) :], *self.separator]

    def response(self, tokens: Sequence[int], longest: int) -> list[int]:
        """Response and end: at most `longest` tokens. A response that is cut has no end: it does not end there."""
        return [*tokens, self.end][:longest]


def text_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of what people wrote: `<|endoftext|>` in it is text like any other."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
    )["input_ids"]
    return ids


def build_row_format(
    tokenizer: PreTrainedTokenizerBase, text: RowFormatText | str, lengths: Lengths, key: str
) -> RowFormat:
    """The tokens of a row format, checked before anything slow.

    Args:
        tokenizer: of the base model.
        text: the entry `row_format` of the model: a RowFormatText, or CHAT_TEMPLATE for the tokenizer's own.
        lengths: of the protocol.
        key: of the entry in params.yaml, for errors.

    Raises:
        StageError: the end is not one token, the format leaves queries less than half of `query_tokens`, the tokenizer
            has no chat template, or a text is not the same when it is decoded again.
    """
    parts = _from_chat_template(tokenizer, key) if isinstance(text, str) else text
    prefix, query_space = _tokens(tokenizer, parts.prefix)
    separator, response_space = _tokens(tokenizer, parts.separator)
    end = _plain_tokens(tokenizer, parts.end)
    if len(end) != 1:
        remedy = "end a response with one token: a line break, or <end-of-text>"
        raise StageError(f"{key}.end", f"{parts.end!r} is {len(end)} tokens", remedy)
    row_format = RowFormat(prefix, query_space, separator, response_space, end[0])
    taken = len(prefix) + len(separator)
    if taken > lengths.query_tokens // 2:
        found = (
            f"the format takes {taken} of the {lengths.query_tokens} tokens of protocols.<name>.lengths.query_tokens"
        )
        raise StageError(key, found, "shorten the format or raise query_tokens")
    _check_text_survives(tokenizer, row_format, key)
    return row_format


def _from_chat_template(tokenizer: PreTrainedTokenizerBase, key: str) -> RowFormatText:
    """The parts of the tokenizer's own chat template: what it puts around a user's turn and an assistant's."""
    if not tokenizer.chat_template:
        raise StageError(key, "the tokenizer has no chat template", "write prefix, separator and end")
    asked = [{"role": "user", "content": QUERY}]
    answered = [*asked, {"role": "assistant", "content": RESPONSE}]
    try:
        opened = str(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))
        closed = str(tokenizer.apply_chat_template(answered, tokenize=False))
    except Exception as error:  # a template is a program of its own: whatever it raises, it cannot be used
        raise StageError(key, f"the chat template fails ({one_line(str(error))[:120]})", "write the parts") from None
    prefix, found, separator = opened.partition(QUERY)
    _, answer, behind = closed.partition(RESPONSE)
    if not (found and answer):
        raise StageError(key, "the chat template leaves the text out", "write prefix, separator and end")
    first = _plain_tokens(tokenizer, behind)[:1]
    return RowFormatText(prefix=prefix, separator=separator, end=str(tokenizer.decode(first)))


def _tokens(tokenizer: PreTrainedTokenizerBase, part: str) -> tuple[list[int], str]:
    """The tokens of a part of the format without its last space, and that space."""
    spaces = " " if part.endswith(" ") else ""
    return _plain_tokens(tokenizer, part.removesuffix(" ")), spaces


def _plain_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokens of a text in which special tokens are meant, END_OF_TEXT by the name that is the same for all models."""
    text = text.replace(END_OF_TEXT, str(tokenizer.eos_token))
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def _check_text_survives(tokenizer: PreTrainedTokenizerBase, row_format: RowFormat, key: str) -> None:
    """Refuse a format with which a text is not the same after encoding and decoding."""
    for text, space in ((QUERY, row_format.query_space), (RESPONSE, row_format.response_space)):
        (tokens,) = text_tokens(tokenizer, [space + text])
        decoded = str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False)).strip()
        if decoded != text or row_format.end in tokens:
            found = f"{text!r} comes back as {decoded!r}" if decoded != text else "the end is a token of ordinary text"
            raise StageError(key, found, "use another format")
