"""Where prompt, query and response stand in a row: training, validation and decoding all ask here.

A row is [prompt][query][response]. The language model predicts token t + 1 at column t. B rows, T columns, H width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Layout = np.ndarray[tuple[int, int], np.dtype[Any]]  # tokens of prompt, query and response of each row, [3, B]


def response_positions(layout: Layout) -> tuple[Tensor, Tensor]:
    """Where the rows predict their response tokens: (row, column), each [number of response tokens].

    This is the loss mask of training: it covers these positions only, never prompt, query or padding (Sec. 3).
    """
    prompts, queries, responses = layout
    row = np.repeat(np.arange(len(responses)), responses)
    spans = zip(prompts + queries - 1, responses, strict=True)
    return torch.from_numpy(row), torch.from_numpy(np.concatenate([first + np.arange(count) for first, count in spans]))


def sources(layout: Layout, widths: Sequence[int], left: bool = False) -> Tensor:
    """Which column of the parts, put one after another, stands in each column of a row: [B, T], 0 in the padding.

    widths: columns of each part's tensor. In training the padding is on the right, where causal attention never looks;
    in decoding it is on the left, so that all rows end together.
    """
    totals = layout.sum(axis=0)
    longest = int(totals.max())
    starts = np.cumsum([0, *widths[:-1]])
    source = np.zeros((len(totals), longest), dtype=np.int64)
    begin = longest - totals if left else np.zeros_like(totals)
    for row, first in enumerate(begin):
        chosen = [start + np.arange(count) for start, count in zip(starts, layout[:, row], strict=True)]
        source[row, first : first + totals[row]] = np.concatenate(chosen)
    return torch.from_numpy(source)


def place(parts: Sequence[Tensor], source: Tensor) -> Tensor:
    """The rows [B, T, H] that `sources` [B, T] describes, from the parts [B, *, H] on the same device."""
    joined = torch.cat(list(parts), dim=1)
    rows = torch.arange(len(source), device=joined.device).unsqueeze(1)
    placed: Tensor = joined[rows, source]
    return placed


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of rows, with token 0 on the right, which no computation ever sees: [rows, longest]."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return tokens
