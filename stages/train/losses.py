"""The loss of a batch: the cross-entropy of its response tokens, for all trials of a pass (Sec. 3, Eq. 1 and 2).

Symbols as in stages/README.md: B pairs, S query tokens, R response tokens, T tokens of a row, K trials.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.methods.batch import Batch
from stages.methods.method import Method
from stages.methods.row_layout import place, sources

NO_TARGET = -100  # a target that cross-entropy leaves out


@dataclass(frozen=True)
class LaidOut:
    """A batch as the pass reads it, tensors alone: with other values of the same shapes, the same kernels run."""

    queries: Tensor  # [B, S]
    responses: Tensor  # [B, R]
    source: Tensor  # [B, T]: which token of prompt, query and response stands there
    row: Tensor  # [N]: where the rows predict response tokens
    column: Tensor  # [N]
    targets: Tensor  # [N]: those tokens, or NO_TARGET
    count: Tensor  # []: how many tokens there are, as a float

    def to(self, device: torch.device) -> "LaidOut":
        """The same on a device."""
        return replace(self, **{each.name: getattr(self, each.name).to(device) for each in fields(self)})

    def copy_(self, other: "LaidOut") -> None:
        """Take over the values of another of the same shapes."""
        for each in fields(self):
            getattr(self, each.name).copy_(getattr(other, each.name))


def lay_out(method: Method, batch: Batch) -> LaidOut:
    """Lay the pairs out in rows of this method, each row as long as it must be: N response tokens are predicted."""
    layout = method.layout(batch.query_lengths, batch.response_lengths)
    row, column = layout.response_positions()
    lengths = batch.response_lengths
    targets = torch.cat([own[:length] for own, length in zip(batch.responses, lengths, strict=True)])
    return LaidOut(
        batch.queries, batch.responses, sources(layout.lengths(), method.widths(batch.queries, batch.responses)),
        row, column, targets, torch.tensor(float(sum(lengths))),
    ).to(batch.queries.device)  # fmt: skip


def fill(laid: LaidOut, columns: int) -> LaidOut:
    """The same rows with T `columns` and B x R predictions, whatever their lengths are: nothing that counts changes."""
    left_out = laid.responses.numel() - len(laid.targets)
    return replace(
        laid, source=F.pad(laid.source, (0, columns - laid.source.shape[1])), row=F.pad(laid.row, (0, left_out)),
        column=F.pad(laid.column, (0, left_out)), targets=F.pad(laid.targets, (0, left_out), value=NO_TARGET),
    )  # fmt: skip


def losses_of_pass(
    method: Method, trials: Sequence[Weights], laid: LaidOut, seed: Callable[[], object] | None = None
) -> list[Tensor]:
    """Summed cross-entropy of the response tokens, end-of-text included, for each of K trials: K scalars.

    One pass through the layers for all trials. seed: called before the controller of each trial, to seed its dropout;
    None for no dropout.
    """
    weights = [method.prepared(own) for own in trials]
    both = torch.cat([laid.queries, laid.responses], dim=1)
    rows: list[Tensor] = []
    for own in weights:
        query, response = method.embed(own, both).split([laid.queries.shape[1], laid.responses.shape[1]], dim=1)
        if seed is not None:  # for the controller; in fine-tuning, which has none, for the layers below
            seed()
        rows.append(place([*method.before_response(own, query, seed is not None), response], laid.source))
    hidden = method.transformer.hidden(torch.cat(rows), weights=method.layers(weights[0]))
    losses = []
    for own, states in zip(weights, hidden.split(len(laid.queries)), strict=True):
        logits = method.base.logits(states[laid.row, laid.column], method.output(own))
        each = F.cross_entropy(logits.float(), laid.targets, reduction="none", ignore_index=NO_TARGET)
        losses.append(each.sum())
    return losses


def response_losses(
    method: Method, trials: Sequence[Weights], batch: Batch, dropout_seed: int | None = None
) -> list[Tensor]:
    """The summed losses of a batch for each of K trials: K scalars (the mean over tokens is taken by the caller).

    dropout_seed: seeds the dropout of each trial anew, so that the masks of one do not depend on who else is in the
    pass; None for no dropout.
    """
    seed = None if dropout_seed is None else partial(torch.manual_seed, dropout_seed)
    return losses_of_pass(method, trials, lay_out(method, batch), seed)
