"""Greedy decoding on top of the language model's cache, for a list of trials at once (App. B: "only greedy decoding").

All rows of a batch decode together, token by token, once their queries are read; a row that has ended leaves, so that
the rest goes faster. What people answered can be scored on the way.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.language_model.device import wait_for
from stages.language_model.memory import free_memory
from stages.methods.likelihood import reference_losses
from stages.methods.method import Method
from stages.methods.reading import ReadRows, chunk_size
from stages.plumbing.errors import is_out_of_memory

# Rows of a batch, at most. A row takes 8 MiB of SmolLM2's cache. On a CPU the validation of three trials with 128
# queries took 66 s with 96 rows, 64 s with 144 and 60 s with 192, and 3.9, 4.0 and 4.6 GiB. On a GPU a token costs
# the same number of kernels however many rows there are, so that more should pay there (reasoned, not measured).
ROWS = {"cuda": 2048}
FEWER_ROWS = 144
COMPACT_AT = 0.75  # the batch is compacted when this share of its rows is left: copying the cache costs too


@dataclass(frozen=True)
class Decoded:
    """What K trials made of N queries."""

    answers: list[list[list[int]]]  # [K][N][at most limit]: token ids, end-of-text left out
    losses: Tensor  # [K, N]: summed cross-entropy of the references, in nats; NaN where there are none
    scoring_seconds: float = 0.0  # of the time, what the losses took


def _next_tokens(read: ReadRows) -> Tensor:
    """Most likely next token of each row [rows], by its own trial's output layer."""
    counts = torch.bincount(read.owner, minlength=len(read.trials)).tolist()
    parts = [
        read.method.base.logits(part, read.method.output(weights)).argmax(dim=-1)
        for weights, part in zip(read.trials, read.hidden.split(counts), strict=True)
    ]
    return torch.cat(parts)


def _decode(
    read: ReadRows, limit: int, end: int, tick: Callable[[int], None], heard: Callable[[int, int], None]
) -> list[list[int]]:
    """Go on from the queries: token ids of each row without the end-of-text, rows trial by trial."""
    answers: list[list[int]] = [[] for _ in read.row]
    ended = torch.zeros(len(read.row), dtype=torch.bool, device=read.row.device)  # of those still in the cache
    for step in range(limit):
        tokens = _next_tokens(read)
        before, ended = int(ended.sum()), ended | (tokens == end)
        for row, token, over in zip(read.row.tolist(), tokens.tolist(), ended.tolist(), strict=True):
            if not over:
                answers[row].append(token)
                heard(row, token)
        over = len(ended) if step == limit - 1 else int(ended.sum())
        tick(over - before)
        if over == len(ended):
            break
        if len(ended) - over <= COMPACT_AT * len(ended):
            kept = (~ended).nonzero().squeeze(1)
            read.keep(kept)
            tokens, ended = tokens[kept], ended[kept]
        read.read_on(tokens)
    return answers


def _decode_batch(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    references: Sequence[list[int]] | None,
    limit: int,
    end: int,
    tick: Callable[[int], None],
    heard: Callable[[int, int], None],
) -> Decoded:
    """Read the queries of one batch, longest first, score their references and answer."""
    read = ReadRows.with_room_for(method, trials, queries, limit)
    losses, taken = torch.full((len(trials), len(queries)), torch.nan, dtype=torch.float64), 0.0
    for start in range(0, len(queries), chunk_size(method)):
        part = slice(start, start + chunk_size(method))
        chunk = read.read(start, queries[part])
        if references is not None:
            wait_for(method.base.device)
            began = time.monotonic()
            losses[:, part] = reference_losses(read, chunk, references[part])
            taken += time.monotonic() - began
        tick(0)
    read.decode()
    rows = _decode(read, limit, end, tick, heard)
    return Decoded([rows[first : first + len(queries)] for first in range(0, len(rows), len(queries))], losses, taken)


def _rows_that_fit(method: Method, columns: int) -> int:
    """Rows whose keys and values fill half of the free memory, no more than pay: Linux kills what takes all."""
    config = method.base.model.config
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    of_a_row = 2 * config.num_hidden_layers * shared * size * columns * method.base.dtype.itemsize
    device = method.base.device
    return max(1, min(ROWS.get(device.type, FEWER_ROWS), int(free_memory(device) // 2 // of_a_row)))


def _queries_of_a_batch(method: Method, rows: int, trials: int) -> int:
    """As many queries as the rows allow: whole chunks if they allow one, so that chunks do not depend on the rows."""
    most = max(1, rows // trials)
    return most // chunk_size(method) * chunk_size(method) or most


class RowLimit:
    """How many rows a batch may have: `rows`, or what the memory takes; fewer for good once memory has run out."""

    def __init__(self, rows: int = 0) -> None:
        self.asked = rows  # 0: as many as fit
        self.found = sys.maxsize  # where memory has run out, half of what was tried

    def rows(self, method: Method, columns: int) -> int:
        """Rows of so many columns that a batch may have now."""
        return min(self.asked or _rows_that_fit(method, columns), self.found)

    def shrink(self, tried: int) -> int:
        """Allow half of the rows that did not fit, from now on."""
        self.found = tried // 2
        print(f"out of memory: decoding goes on with {self.found} rows a batch")
        return self.found


def greedy(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    limit: int,
    end: int,
    row_limit: RowLimit | None = None,
    tick: Callable[[int], None] = lambda ended: None,
    heard: Callable[[int, int], None] = lambda row, token: None,
) -> list[list[list[int]]]:
    """Greedy responses of K trials to N queries: token ids [K][N][at most limit], end-of-text left out.

    trials: each trial's weights. queries: token ids with end-of-text. limit: most tokens of a response, end-of-text
    included. end: the token that ends it. row_limit: pass the same one again, and what an earlier call found out about
    the memory holds for this one too. tick: called after every token with the number of rows that ended with it, and
    with 0 while queries are read. heard: called with each token of an answer as it comes, and with its row in its batch
    (0 where there is one query). Out of memory halves the batch and goes on, with the same result.
    """
    return decode_and_score(method, trials, queries, None, limit, end, row_limit, tick, heard).answers


def decode_and_score(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    references: Sequence[list[int]] | None,
    limit: int,
    end: int,
    row_limit: RowLimit | None = None,
    tick: Callable[[int], None] = lambda ended: None,
    heard: Callable[[int, int], None] = lambda row, token: None,
) -> Decoded:
    """The same as `greedy`, and how likely each trial finds N references: token ids, one list for each query.

    Trials read together where the rows take a chunk of queries of each, otherwise one after another. Both give the same
    bits on a CPU (seen with SmolLM2), and so does any number of rows that takes a chunk (stages/methods/reading.py).
    """
    row_limit = row_limit or RowLimit()
    order = sorted(range(len(queries)), key=lambda number: (-len(queries[number]), number))
    answers: list[list[list[int]]] = [[[] for _ in queries] for _ in trials]
    losses, scoring = torch.full((len(trials), len(queries)), torch.nan, dtype=torch.float64), 0.0
    if not queries:
        return Decoded(answers, losses)
    rows = row_limit.rows(method, method.layout([len(queries[order[0]])]).tokens()[0] + limit)
    jobs = [(list(range(len(trials))), order)]  # what is left to do: trials that read together, and their queries
    while jobs:
        own, rest = jobs.pop()
        if len(own) > 1 and not (method.shares_layers and rows >= len(own) * min(chunk_size(method), len(rest))):
            jobs += [([trial], rest) for trial in reversed(own)]
            continue
        chosen = rest[: _queries_of_a_batch(method, rows, len(own))]
        some = [queries[number] for number in chosen]
        wanted = None if references is None else [references[number] for number in chosen]
        try:
            with torch.inference_mode():
                weights = [method.prepared(trials[trial]) for trial in own]
                batch = _decode_batch(method, weights, some, wanted, limit, end, tick, heard)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(chosen) * len(own) == 1:
                raise
            rows = row_limit.shrink(len(chosen) * len(own))
            jobs.append((own, rest))
            continue
        for trial, answered, scored in zip(own, batch.answers, batch.losses, strict=True):
            for number, answer in zip(chosen, answered, strict=True):
                answers[trial][number] = answer
            losses[trial, chosen] = scored
        scoring += batch.scoring_seconds
        if len(rest) > len(chosen):
            jobs.append((own, rest[len(chosen) :]))
    return Decoded(answers, losses, scoring)
