"""How likely the model finds what people answered: the loss of the references.

The validation loss chose the learning rate and the epoch. With the test pairs nothing was chosen: their loss compares
methods fairly.
"""

from collections.abc import Sequence

from stages.language_model.encoding import encode_pairs, side_lengths
from stages.methods.batch import collate
from stages.methods.losses import pair_losses
from stages.methods.trained_method import TrainedMethod
from stages.plumbing.progress import Progress
from stages.records import Pair

BATCH = 16  # pairs
DIGITS = 4


def reference_losses(trained: TrainedMethod, pairs: Sequence[Pair]) -> list[tuple[float, int]]:
    """Of each of N pairs the summed cross-entropy of its response's tokens, in nats, and how many tokens that are.

    Both with the token that ends a response, and cut to the lengths of the training, as in the validation loss.
    """
    encoded, _ = encode_pairs(pairs, trained.tokenizer, trained.row_format, trained.lengths)
    tokens = side_lengths(encoded)[1].tolist()
    sizes = trained.method.row_tokens(encoded)
    order = sorted(range(len(encoded)), key=sizes.__getitem__)
    found = [0.0] * len(encoded)
    with Progress(len(encoded), "loss of the references", "pairs") as progress:
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = collate([encoded[number] for number in chosen]).to(trained.method.base.device)
            for number, loss in zip(chosen, pair_losses(trained.method, trained.weights, batch).tolist(), strict=True):
                found[number] = round(loss, DIGITS)
            progress.advance(len(chosen))
    return list(zip(found, tokens, strict=True))
