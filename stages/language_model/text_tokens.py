"""Texts as the tokens that they have in a whole row: what people wrote, and the parts of a prompt template.

Two things would go wrong if a text were simply given to the tokenizer:

- Added tokens stand for something, `<|endoftext|>` or `<tool_call>`. Who types these letters means letters.
- Tokenizers of the SentencePiece kind (Llama 2's) put a space in front of whatever they are given, as if it were the
  beginning of a row. Inside a row there is none. So a text is tokenised behind another one, whose tokens are left out.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from stages.params.sources import END_OF_TEXT

SPACE = "▁"  # how tokenizers of the SentencePiece kind write a space
IN_FRONT = ("\n", "¶", "§", "†", "¬")  # one is used that never joins with what is behind it


@dataclass(frozen=True)
class Front:
    """What a text is tokenised behind: `text`, and how many tokens of it are then left out."""

    text: str = ""
    tokens: int = 0


START = Front()  # a text begins a row


@lru_cache
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The added tokens that stand for more than their letters: all but runs of white space."""
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    return {number: text for number, text in added.items() if text.replace(SPACE, " ").strip()}


@lru_cache
def for_people(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or a copy if it would find control tokens in any text, because they are not marked as special.

    stages/export/forms.py writes the same lines.
    """
    control = control_tokens(tokenizer)
    if all(tokenizer.added_tokens_decoder[number].special for number in control):
        return tokenizer
    marked = copy.deepcopy(tokenizer)
    marked.add_tokens(list(control.values()), special_tokens=True)
    return marked


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], front: Front) -> list[list[int]]:
    ids: list[list[int]] = for_people(tokenizer)(
        [front.text + text for text in texts],
        add_special_tokens=False, split_special_tokens=True, return_attention_mask=False,
    )["input_ids"]  # fmt: skip
    return [each[front.tokens :] for each in ids] if front.tokens else ids


@lru_cache
def spelled_out(tokenizer: PreTrainedTokenizerBase) -> dict[int, list[int]]:
    """The letters of those control tokens that unigram tokenizers find even so: cut in two they are no longer found."""
    letters = {}
    for number, text in control_tokens(tokenizer).items():
        # The unknown token is also what any unknown letter becomes.
        if number in _ids(tokenizer, [text], START)[0] and number != tokenizer.unk_token_id:
            first, rest = _ids(tokenizer, [text[:1], text[1:]], inside_a_row(tokenizer))
            letters[number] = first + rest
    return letters


def text_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], front: Front = START) -> list[list[int]]:
    """Tokens of what people wrote, with `front` in front of each text: `<|endoftext|>` in it is text like any other."""
    if not texts:
        return []
    ids, letters = _ids(tokenizer, texts, front), spelled_out(tokenizer)
    if letters:
        return [[part for token in each for part in letters.get(token, [token])] for each in ids]
    return ids


def format_tokens(tokenizer: PreTrainedTokenizerBase, text: str, front: Front = START) -> list[int]:
    """Tokens of a part of a template, in which control tokens are meant; END_OF_TEXT is any model's own."""
    text = text.replace(END_OF_TEXT, str(tokenizer.eos_token))
    if text.startswith(tuple(control_tokens(tokenizer).values())):
        front = START  # nothing is put in front of a control token, and some of them swallow what is there
    ids: list[int] = tokenizer(front.text + text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids[front.tokens :]


def row_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-text token, which a model needs whose tokenizer puts one in front (Llama, Mistral, Gemma)."""
    first: list[int] = tokenizer("x")["input_ids"][:1]
    return first if first == [tokenizer.bos_token_id] else []


@lru_cache
def inside_a_row(tokenizer: PreTrainedTokenizerBase) -> Front:
    """What to tokenise a text behind that stands behind another text. Nothing for tokenizers that add no space."""
    if not str(tokenizer.convert_ids_to_tokens(format_tokens(tokenizer, "x"))[0]).startswith(SPACE):
        return START
    pieces = list(tokenizer.get_vocab())
    for text in IN_FRONT:
        ids = format_tokens(tokenizer, text)
        if str(tokenizer.decode(ids)).endswith(text) and not any(text in piece[:-1] for piece in pieces):
            return Front(text, len(ids))
    return START


def front_behind(tokenizer: PreTrainedTokenizerBase, last: int) -> Front:
    """The same for a text behind the token `last`: behind a control token some tokenizers add their space again."""
    control = control_tokens(tokenizer).get(last)
    if control is not None and format_tokens(tokenizer, f"{control}x")[1:] == format_tokens(tokenizer, "x"):
        return START
    return inside_a_row(tokenizer)
