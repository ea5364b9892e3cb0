"""Where prompt, query and response stand in a row: training, validation and decoding all ask here.

A row is [prompt][query][response]. The language model predicts token t + 1 at column t. B rows, T columns, H width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RowLayout:
    """How many tokens of prompt, query and response each of B rows has: three lists [B]."""

    prompts: list[int]
    queries: list[int]
    responses: list[int]

    def lengths(self) -> list[list[int]]:
        """Tokens of each part in each row, [parts, B], from left to right; without the parts that no row has."""
        return [part for part in (self.prompts, self.queries, self.responses) if any(part)]

    def tokens(self) -> list[int]:
        """Tokens of each row, [B]."""
        return [sum(row) for row in zip(self.prompts, self.queries, self.responses, strict=True)]

    def response_positions(self) -> tuple[Tensor, Tensor]:
        """Where the rows predict their response tokens: (row, column), each [number of response tokens].

        This is the loss mask of training: it covers these positions only, never prompt, query or padding (Sec. 3).
        """
        rows: list[int] = []
        columns: list[int] = []
        for row, (prompt, query, response) in enumerate(zip(self.prompts, self.queries, self.responses, strict=True)):
            first = prompt + query - 1
            rows += [row] * response
            columns += range(first, first + response)
        return torch.tensor(rows), torch.tensor(columns)


def sources(lengths: Sequence[Sequence[int]], widths: Sequence[int], left: bool = False) -> Tensor:
    """Which column of the parts, put one after another, stands in each column of a row: [B, T], 0 in the padding.

    lengths: tokens of each part in each row, [parts, B], from its beginning on. widths: columns of each part's tensor.
    In training the padding is on the right, where causal attention never looks; in decoding it is on the left, so that
    all rows end together.
    """
    counts = np.array(lengths)  # [parts, B]
    totals = counts.sum(axis=0)
    longest = int(totals.max())
    starts = np.cumsum([0, *widths[:-1]])
    source = np.zeros((len(totals), longest), dtype=np.int64)
    begin = longest - totals if left else np.zeros_like(totals)
    for row, first in enumerate(begin):
        chosen = [start + np.arange(count) for start, count in zip(starts, counts[:, row], strict=True)]
        source[row, first : first + totals[row]] = np.concatenate(chosen)
    return torch.from_numpy(source)


def place(parts: Sequence[Tensor], source: Tensor) -> Tensor:
    """The rows [B, T, H] that `sources` [B, T] describes, from the parts [B, *, H] on the same device."""
    joined = torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]
    rows = torch.arange(len(source), device=joined.device).unsqueeze(1)
    placed: Tensor = joined[rows, source]
    return placed


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of rows, with token 0 on the right, which no computation ever sees: [rows, longest]."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return tokens
