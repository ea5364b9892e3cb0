"""How likely the model finds what people answered: the loss of the references.

Validation pairs chose the learning rate and the epoch. With the test pairs nothing was chosen, so their loss compares
methods fairly.
"""

from collections.abc import Sequence

from stages.language_model.encoding import encode_pairs, side_lengths
from stages.methods.batch import collate
from stages.methods.losses import pair_losses
from stages.methods.trained_method import TrainedMethod
from stages.plumbing.batches import in_batches
from stages.plumbing.progress import Progress
from stages.records import Pair

BATCH = 16  # pairs
BATCHES = {"cuda": 64}  # where a batch costs the same number of kernels, however many pairs it has
DIGITS = 4


def reference_losses(trained: TrainedMethod, pairs: Sequence[Pair]) -> list[tuple[float, int]]:
    """Of each of N pairs the summed cross-entropy of its response's tokens, in nats, and how many tokens that are.

    With the token that ends a response, unless it was cut: as in the validation loss. Out of memory halves a batch.
    """
    encoded, _ = encode_pairs(pairs, trained.tokenizer, trained.row_format, trained.lengths)
    tokens = side_lengths(encoded)[1].tolist()
    sizes = trained.method.row_tokens(encoded)
    order = sorted(range(len(encoded)), key=sizes.__getitem__)
    size = BATCHES.get(trained.method.base.device.type, BATCH)
    found = [0.0] * len(encoded)

    def losses(numbers: Sequence[int]) -> list[float]:
        batch = collate([encoded[number] for number in numbers]).to(trained.method.base.device)
        return pair_losses(trained.method, trained.weights, batch).tolist()

    with Progress(len(encoded), "loss of the references", "pairs") as progress:
        for numbers, given in in_batches(order, size, losses, "the loss of the references"):
            for number, loss in zip(numbers, given, strict=True):
                found[number] = round(loss, DIGITS)
            progress.advance(len(numbers))
    return list(zip(found, tokens, strict=True))
