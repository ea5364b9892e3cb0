"""How likely a trial finds what people answered: the loss of the references, in validation and on the test pairs.

The queries are in the cache already, for decoding, so only the references are read.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.methods.batch import padded
from stages.methods.method import Method
from stages.methods.reading import Chunk, ReadRows

PARTS = 2  # of a chunk, by the length of the references, so that they pad little
LOGITS_AT_ONCE = 512  # tokens: those of SmolLM2 take 0.1 GB, and their logarithms again


def reference_losses(read: ReadRows, chunk: Chunk, references: Sequence[Sequence[int]]) -> Tensor:
    """Summed cross-entropy of the reference to each of N queries in each of K trials: [K, N], in float64, on the CPU.

    read, chunk: the queries, which have been read; they are left as they are. references: N lists of token ids, with
    the one that ends a response if it was not cut.
    """
    trials, count, device = len(read.trials), len(references), chunk.rows.device
    order = sorted(range(count), key=lambda number: (-len(references[number]), number))
    sums, size = torch.zeros(trials, count, dtype=torch.float64), -(-count // PARTS)
    for numbers in (order[start : start + size] for start in range(0, count, size)):
        tokens = padded([references[number] for number in numbers]).to(device)
        lengths = torch.tensor([len(references[number]) for number in numbers], device=device)
        is_token = torch.arange(tokens.shape[1], device=device) < lengths.unsqueeze(1)
        own = torch.tensor(numbers, device=device)
        rows = (torch.arange(trials, device=device).unsqueeze(1) * count + own).flatten()  # of the chunk
        hidden = read.hidden[chunk.rows[rows]].unsqueeze(1)  # predicts the first token
        if tokens.shape[1] > 1:
            ahead = read.look_ahead(chunk, rows, tokens[:, :-1].repeat(trials, 1))
            hidden = torch.cat([hidden, ahead], dim=1)
        for trial, (weights, states) in enumerate(zip(read.trials, hidden.split(len(numbers)), strict=True)):
            losses = torch.zeros(tokens.shape, dtype=torch.float64)
            losses[is_token.cpu()] = _token_losses(read.method, weights, states[is_token], tokens[is_token])
            sums[trial, numbers] = losses.sum(dim=1)
    return sums


def _token_losses(method: Method, weights: Weights, states: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of N tokens, predicted from hidden states [N, H]: [N], in float64, on the CPU."""
    parts = zip(states.split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True)
    losses = [
        F.cross_entropy(method.base.logits(some, method.output(weights)).float(), tokens, reduction="none")
        for some, tokens in parts
    ]
    return torch.cat(losses).cpu().double()  # on the CPU: Apple's GPUs have no float64
