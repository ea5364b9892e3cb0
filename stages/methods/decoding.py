"""Greedy decoding on top of the language model's cache (App. B: "only greedy decoding").

All rows of a batch decode together, token by token, once their queries are read; a row that has ended leaves, so that
the rest goes faster. What people answered can be scored on the way, or alone.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.language_model.device import wait_for
from stages.methods.method import Method
from stages.methods.reading import ReadRows, chunk_size, reference_losses
from stages.plumbing.errors import is_out_of_memory

# Bytes of keys and values that a batch has, about. A row of SmolLM2 takes 8 MiB. On a CPU the validation of three
# trials with 128 queries took 66 s with 96 rows, 64 s with 144 and 60 s with 192, and 3.9, 4.0 and 4.6 GiB. On a GPU a
# token costs the same number of kernels however many rows there are.
CACHE = {"cuda": 16 << 30}
SMALLER_CACHE = 9 << 27  # 1.125 GiB
Endings = Mapping[int, Sequence[int]]  # a token that ends an answer -> the tokens of what it still says
COMPACT_AT = 0.75  # the batch is compacted when this share of its rows is left: copying the cache costs too


@dataclass(frozen=True)
class Decoded:
    """What a method made of N queries."""

    answers: list[list[int]]  # [N][at most limit]: token ids, ends left out
    ended: list[bool]  # [N]: else it met the limit
    losses: Tensor  # [N]: summed cross-entropy of the references, in nats; NaN where there are none
    scoring_seconds: float = 0.0  # of the time, what the losses took


class RowLimit:
    """How many rows a batch may have: `rows`, or what CACHE says; fewer for good once memory has run out."""

    def __init__(self, rows: int = 0) -> None:
        self.asked = rows  # 0: as CACHE says
        self.found = sys.maxsize  # where memory has run out, half of what was tried

    def rows(self, method: Method, columns: int) -> int:
        """Rows of so many columns that a batch may have now: whole chunks, so that chunks do not depend on it."""
        base, size = method.base, chunk_size(method)
        of_a_row = 2 * base.cache_shape(columns).numel() * base.dtype.itemsize
        fitting = max(1, CACHE.get(base.device.type, SMALLER_CACHE) // of_a_row)
        rows = min(self.asked or fitting, self.found)
        return rows // size * size or rows

    def shrink(self, tried: int) -> None:
        """Allow half of the rows that did not fit, from now on."""
        self.found = tried // 2
        print(f"out of memory: decoding goes on with {self.found} rows a batch", file=sys.stderr)


def decode_and_score(
    method: Method,
    weights: Weights,
    queries: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]] | None,
    limit: int,
    ends: Endings,
    row_limit: RowLimit | None = None,
    tick: Callable[[int], None] = lambda ended: None,
    heard: Callable[[int, int], None] = lambda row, token: None,
) -> Decoded:
    """Greedy responses to N queries, and the losses of N references, if there are any. All are token ids.

    Out of memory halves the batch and goes on. Any number of rows that takes a chunk gives the same bits on a CPU
    (stages/methods/reading.py).

    Args:
        method: how the model is made to answer.
        weights: those of a trial.
        queries: with what the prompt template puts around them.
        references: with the one that ends a response, if it was not cut; None for no losses.
        limit: most tokens of a response, its end included; 0 scores the references and answers nothing.
        ends: the tokens that end a response, with what each still says.
        row_limit: given again, what an earlier call found out about the memory holds for this one too.
        tick: called after every token with the number of rows that ended with it, and with 0 while queries are read.
        heard: called with each token of an answer as it comes, and with its row in its batch.
    """
    row_limit = row_limit or RowLimit()
    answers: list[list[int]] = [[] for _ in queries]
    ended = [False for _ in queries]
    losses, scoring = torch.full((len(queries),), torch.nan, dtype=torch.float64), 0.0
    left = sorted(range(len(queries)), key=lambda number: (-len(queries[number]), number))
    with torch.inference_mode():
        own = method.prepared(weights)
        beginning = method.beginning(own)
        before = beginning[0][0].shape[1] if beginning else 0  # columns of the cache that every row has a copy of
        while left:
            longest = len(queries[left[0]])
            rows = row_limit.rows(method, before + method.settings.slots(longest) + longest + limit)
            chosen = left[: rows if limit else min(rows, chunk_size(method))]
            wanted = None if references is None else [references[number] for number in chosen]
            try:
                batch = _decode_batch(method, own, [queries[n] for n in chosen], wanted, limit, ends, tick, heard)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise
                row_limit.shrink(len(chosen))
                continue
            for number, answer, over in zip(chosen, batch.answers, batch.ended, strict=True):
                answers[number], ended[number] = answer, over
            losses[chosen] = batch.losses
            scoring += batch.scoring_seconds
            left = left[len(chosen) :]
    return Decoded(answers, ended, losses, scoring)


def _decode_batch(
    method: Method,
    weights: Weights,
    queries: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]] | None,
    limit: int,
    ends: Endings,
    tick: Callable[[int], None],
    heard: Callable[[int, int], None],
) -> Decoded:
    """Read the queries of one batch, longest first, score their references and answer."""
    read = ReadRows(method, weights, queries, limit)
    losses, taken = torch.full((len(queries),), torch.nan, dtype=torch.float64), 0.0
    for start in range(0, len(queries), chunk_size(method)):
        part = slice(start, start + chunk_size(method))
        rows, columns = read.read(start, queries[part])
        if references is not None:
            wait_for(method.base.device)
            began = time.monotonic()
            losses[part] = reference_losses(read, rows, columns, references[part])
            taken += time.monotonic() - began
        tick(0 if limit else len(queries[part]))
    return Decoded(*_decode(read, limit, ends, tick, heard), losses, taken)


def _decode(
    read: ReadRows, limit: int, ends: Endings, tick: Callable[[int], None], heard: Callable[[int, int], None]
) -> tuple[list[list[int]], list[bool]]:
    """Go on from the queries: token ids of each row without its end, and whether it has one."""
    read.cache.take(None)
    answers: list[list[int]] = [[] for _ in read.row]
    ended = [False for _ in read.row]
    for more in reversed(range(limit)):
        tokens, rows = read.logits(read.hidden).argmax(dim=-1), read.row.tolist()
        before = ended.count(False)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not ended[row]:
                ended[row] = token in ends
                for each in ends.get(token, [token]):
                    answers[row].append(each)
                    heard(row, each)
        left = [place for place, row in enumerate(rows) if not ended[row]]
        tick(before - len(left) if more else before)
        if not (left and more):
            break
        if len(left) <= COMPACT_AT * len(rows):
            read.keep(kept := torch.tensor(left, device=tokens.device))
            tokens = tokens[kept]
        read.read_on(tokens)
    return answers, ended
