"""How likely the model finds what people answered: the loss of the references.

Validation pairs chose the learning rate and the epoch. With the test pairs nothing was chosen, so their loss compares
methods fairly.
"""

from collections.abc import Sequence

from stages.language_model.encoding import encode_pairs, side_lengths
from stages.methods.batch import collate
from stages.methods.losses import pair_losses
from stages.methods.trained_method import TrainedMethod
from stages.plumbing.errors import is_out_of_memory
from stages.plumbing.progress import Progress
from stages.records import Pair

BATCH = 16  # pairs
DIGITS = 4


def reference_losses(trained: TrainedMethod, pairs: Sequence[Pair]) -> list[tuple[float, int]]:
    """Of each of N pairs the summed cross-entropy of its response's tokens, in nats, and how many tokens that are.

    With the token that ends a response, unless it was cut: as in the validation loss. Out of memory halves a batch.
    """
    encoded, _ = encode_pairs(pairs, trained.tokenizer, trained.row_format, trained.lengths)
    tokens = side_lengths(encoded)[1].tolist()
    sizes = trained.method.row_tokens(encoded)
    order = sorted(range(len(encoded)), key=sizes.__getitem__)
    found, start, size = [0.0] * len(encoded), 0, BATCH
    with Progress(len(encoded), "loss of the references", "pairs") as progress:
        while start < len(order):
            chosen = order[start : start + size]
            batch = collate([encoded[number] for number in chosen]).to(trained.method.base.device)
            try:
                losses = pair_losses(trained.method, trained.weights, batch).tolist()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                size //= 2
                print(f"out of memory: the loss goes on with {size} pairs a batch")
                continue
            for number, loss in zip(chosen, losses, strict=True):
                found[number] = round(loss, DIGITS)
            start += len(chosen)
            progress.advance(len(chosen))
    return list(zip(found, tokens, strict=True))
