"""How likely a trial finds what people answered: the loss of the references, in validation and on the test pairs.

The queries are in the cache already, for decoding, so only the references are read: a third of the tokens of a row.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.methods.batch import padded
from stages.methods.method import Method
from stages.methods.reading import ReadRows, chunks, rows_of

LOGITS_AT_ONCE = 512  # tokens: those of SmolLM2 take 0.1 GB, and their logarithms again


def reference_losses(
    read: ReadRows, references: Sequence[Sequence[int]], tick: Callable[[int], None] = lambda ended: None
) -> Tensor:
    """Summed cross-entropy of the reference to each of N queries in each of K trials: [K, N], in float64, on the CPU.

    read: the rows of K trials with N queries, nothing but their queries read; they are left as they are. references: N
    lists of token ids, with the one that ends a response if it was not cut. tick: see `read_queries`.
    """
    trials, device = read.trials, read.hidden.device
    order = sorted(range(len(references)), key=lambda number: (-len(references[number]), number))
    sums = torch.zeros(len(trials), len(references), dtype=torch.float64)
    for start, stop in chunks([len(references[number]) for number in order]):
        numbers = order[start:stop]
        tokens = padded([references[number] for number in numbers]).to(device)
        lengths = torch.tensor([len(references[number]) for number in numbers], device=device)
        is_token = torch.arange(tokens.shape[1], device=device) < lengths.unsqueeze(1)
        which = rows_of(torch.tensor(numbers, device=device), len(references), len(trials))
        hidden = read.hidden[which].unsqueeze(1)  # predicts the first token
        if tokens.shape[1] > 1:
            hidden = torch.cat([hidden, read.look_ahead(which, tokens[:, :-1].repeat(len(trials), 1))], dim=1)
        for trial, (weights, states) in enumerate(zip(trials, hidden.split(len(numbers)), strict=True)):
            losses = torch.zeros(tokens.shape, dtype=torch.float64)
            losses[is_token.cpu()] = _token_losses(read.method, weights, states[is_token], tokens[is_token])
            sums[trial, numbers] = losses.sum(dim=1)
        tick(0)
    return sums


def _token_losses(method: Method, weights: Weights, states: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of N tokens, predicted from hidden states [N, H]: [N], in float64, on the CPU."""
    parts = zip(states.split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True)
    losses = [
        F.cross_entropy(method.base.logits(some, method.output(weights)).float(), tokens, reduction="none")
        for some, tokens in parts
    ]
    return torch.cat(losses).cpu().double()  # on the CPU: Apple's GPUs have no float64
