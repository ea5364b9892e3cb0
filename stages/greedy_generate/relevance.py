"""Whether answers fit their queries, as the untouched model sees it.

The paper's Appendix A: an agent that does not respond to the query "is simply saying whatever is the most probable
response". Such an answer is no likelier after its own query than without it, and no likelier than after others.

- relevance: log p(answer | query) - log p(answer), in nats, the latter after the prompt template without a query.
- hit: the answer is likelier after its own query than after each of the others. hits@1/20 is the share of hits with
  19 of them (ConvAI2; Dinan et al. 2019, arXiv 1902.00098).

Asked of the method's answers (test), of people's (human) and, as a control, of people's answers to another query
(shuffled). An empty answer is its end alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stages.language_model.encoding import encode_pairs, encode_queries
from stages.methods.method import Method
from stages.methods.reading import ReadRows, chunk_size, reference_losses
from stages.methods.trained_method import TrainedMethod
from stages.params.schema import Relevance
from stages.records import Fit, Pair

AT_ONCE = 16  # answers that are read together: on a CPU 63 took a fifth more time a token than 8
Answers = Sequence[Sequence[int]]  # token ids


class Likelihoods:
    """Log-probabilities of answers after queries, each of which is read once."""

    def __init__(self, untouched: Method, queries: Sequence[Sequence[int]]) -> None:
        order = sorted(range(len(queries)), key=lambda number: -len(queries[number]))
        ordered, size = [queries[number] for number in order], chunk_size(untouched)
        self.read = ReadRows(untouched, untouched.prepared({}), ordered, 0)
        self.columns, self.row = len(ordered[0]), torch.tensor(order).argsort()
        for start in range(0, len(ordered), size):
            self.read.read(start, ordered[start : start + size])

    def after(self, numbers: Sequence[int], answers: Answers) -> Tensor:
        """Of answers, each after the query of its number: [answers], summed over tokens, in nats."""
        rows, found = self.row[list(numbers)].to(self.read.row.device), []
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found.append(-reference_losses(self.read, rows[part], self.columns, answers[part]))
        return torch.cat(found)


def within(settings: Relevance, pairs: Sequence[Pair]) -> Relevance:
    """The settings, with no more queries and others than N pairs have."""
    queries = min(settings.queries, len({pair.query for pair in pairs}))
    others = max(0, min(settings.others, queries - 2))  # neither its own nor the one in front of it
    return settings.model_copy(update={"queries": queries, "others": others})


def fits_of(
    trained: TrainedMethod,
    untouched: Method,
    pairs: Sequence[Pair],
    responses: Sequence[str],
    settings: Relevance,
    seed: int,
) -> list[Fit]:
    """How well responses to N pairs, and people's, fit `settings.queries` different queries that the seed draws.

    untouched: a method that trains nothing, on the same base model. settings: those that `within` gives.
    """
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    places = list({pairs[at].query: at for at in order}.values())[: settings.queries]
    chosen = [pairs[at] for at in places]
    made = [replace(pair, response=responses[at]) for pair, at in zip(chosen, places, strict=True)]
    around = trained.tokenizer, trained.prompt_template, trained.lengths
    (tokens, _), (ours, _) = encode_pairs(chosen, *around), encode_pairs(made, *around)
    human = list(tokens["response"])
    rows = {"test": list(ours["response"]), "human": human, "shuffled": [human[-1], *human[:-1]]}
    with torch.inference_mode():
        known = Likelihoods(untouched, [*tokens["query"], *encode_queries([""], *around)])
        gains, hits = _fits(known, [answer for own in rows.values() for answer in own], settings.others)
    asked = ((row, pair.dialogue) for row in rows for pair in chosen)
    return [Fit(*each, round(gain, 4), hit) for each, gain, hit in zip(asked, gains, hits, strict=True)]


def _fits(known: Likelihoods, answers: Answers, others: int) -> tuple[list[float], list[bool | None]]:
    """Relevance and hit of answers to each of N queries in turn; behind these `known` has the one without words.

    The others of a query are those that follow it. The one in front of it, whose answer it has in `shuffled`, is never
    among them. An answer that has lost against one of them is not tried with the rest.
    """
    count = len(known.row) - 1
    everyone = range(len(answers))
    own, standing = known.after([at % count for at in everyone], answers), list(everyone)
    for step in range(1, others + 1):
        if standing:
            rivals = known.after([(at + step) % count for at in standing], [answers[at] for at in standing])
            standing = [at for at, rival in zip(standing, rivals.tolist(), strict=True) if own[at] > rival]
    hits = [at in standing if others > 0 else None for at in everyone]
    return (own - known.after([count] * len(answers), answers)).tolist(), hits
