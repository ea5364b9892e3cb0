"""Queries read into the language model's cache: what decoding and the losses of the references go on from.

Queries come in the order of their lengths, and a chunk of neighbours is read together, so that rows pad little. Where
chunks begin and end does not depend on how many rows then decode together, and so neither does what is computed of a
row.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.language_model.base_model import Added, Weights
from stages.language_model.cache import Beginning, PreallocatedCache
from stages.methods.method import Method
from stages.methods.row_layout import padded, place, sources

CHUNKS = {"cuda": 64}  # queries of a chunk: on a GPU each chunk costs the same number of kernels
CHUNK = 16  # 600 tokens and more: a larger product is no faster on a CPU
PARTS = 2  # of a chunk, by the length of the references, so that they pad little
LOGITS_AT_ONCE = 512  # tokens: those of SmolLM2 take 0.1 GB, and their logarithms again


def chunk_size(method: Method) -> int:
    """How many queries are read together."""
    return CHUNKS.get(method.base.device.type, CHUNK)


class ReadRows:
    """Rows as far as they are read, and the cache that holds their keys and values."""

    def __init__(self, method: Method, weights: Weights, queries: Sequence[Sequence[int]], limit: int) -> None:
        """Room for these queries, the longest first, and for `limit` tokens after them.

        weights: in the precision of the arithmetic.
        """
        base, count, longest = method.base, len(queries), len(queries[0]) + method.settings.slots(len(queries[0]))
        layers: Sequence[Beginning | None] = method.beginning(weights) or [None] * base.model.config.num_hidden_layers
        self.method, self.weights = method, weights
        self.cache = PreallocatedCache(layers, count, longest, longest + limit)
        self.before = layers[0][0].shape[1] if layers[0] else 0  # columns that every row begins with
        # Of each row its number, the last hidden state [H], the position of the next token, and which columns of the
        # cache are its own [columns].
        self.row = torch.arange(count, device=base.device)
        self.hidden = torch.empty(count, base.width, dtype=base.dtype, device=base.device)
        self.position = torch.empty(count, dtype=torch.long, device=base.device)
        self.mask = torch.zeros(count, self.before + longest, dtype=torch.bool, device=base.device)
        self.mask[:, : self.before] = True

    def read(self, start: int, queries: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
        """Read the prompts and queries of a chunk, whose first is number `start` of the batch.

        Its rows [chunk], and how many columns of the cache the longest of them takes.
        """
        rows = torch.arange(start, start + len(queries), device=self.row.device)
        self.cache.take(rows)
        embedded = self.method.embed(self.weights, padded(queries).to(self.row.device))
        layout = self.method.layout([len(query) for query in queries], [0] * len(queries))
        prompt = self.method.prompt(self.weights, embedded)
        source = sources(layout, [prompt.shape[1], embedded.shape[1], 0], left=True).to(rows.device)
        totals = torch.from_numpy(layout.sum(axis=0))
        columns = source.shape[1]
        first = (columns - totals).to(rows.device).unsqueeze(1)
        mask = torch.arange(columns, device=rows.device) >= first
        positions: Tensor | None = self.before + (torch.arange(columns, device=rows.device) - first).clamp(min=0)
        seen: Tensor | None = torch.cat([self.mask[rows][:, : self.before], mask], dim=1)
        if not self.before and bool((totals == columns).all()):
            positions = seen = None  # nothing is padded, and kernels without a mask are faster
        added = self.method.added(self.weights, prompt, source)
        self.hidden[rows] = self._pass(place([prompt, embedded], source), positions, seen, added)[:, -1]
        self.position[rows] = self.before + mask.sum(dim=1)
        self.mask[rows, self.mask.shape[1] - columns :] = mask
        return rows, columns

    def look_ahead(self, rows: Tensor, columns: int, tokens: Tensor) -> Tensor:
        """Hidden states [rows, N, H] if these N tokens [rows, N] came next in some rows of a chunk. Nothing is kept."""
        own = self.mask[rows]
        mask = torch.cat([own[:, : self.before], own[:, -columns:], own.new_ones(tokens.shape)], dim=1)
        positions = self.position[rows].unsqueeze(1) + torch.arange(tokens.shape[1], device=tokens.device)
        self.cache.take(rows, columns)
        return self._pass(self.method.embed(self.weights, tokens), positions, mask)

    def read_on(self, tokens: Tensor) -> None:
        """Read one further token [rows] of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        embedded = self.method.embed(self.weights, tokens).unsqueeze(1)
        self.hidden = self._pass(embedded, self.position.unsqueeze(1), self.mask)[:, -1]
        self.position = self.position + 1

    def keep(self, rows: Tensor) -> None:
        """Drop all but these rows."""
        self.row, self.hidden = self.row[rows], self.hidden[rows]
        self.position, self.mask = self.position[rows], self.mask[rows]
        self.cache.batch_select_indices(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """The output layer: [..., H] -> [..., V]."""
        return self.method.base.logits(hidden, self.method.output(self.weights))

    def _pass(
        self, embedded: Tensor, positions: Tensor | None, mask: Tensor | None, added: Added | None = None
    ) -> Tensor:
        layers = self.method.layers(self.weights)
        return self.method.transformer.hidden(embedded, positions, mask, self.cache, layers, added)


def reference_losses(read: ReadRows, rows: Tensor, columns: int, references: Sequence[Sequence[int]]) -> Tensor:
    """Summed cross-entropy of the reference to each of N queries: [N], in float64, on the CPU.

    rows, columns: the N queries, as `read.read` gave them; they are left as they are. references: N lists of token
    ids, with the one that ends a response if it was not cut.
    """
    count, device = len(references), rows.device
    order = sorted(range(count), key=lambda number: (-len(references[number]), number))
    sums, size = torch.zeros(count, dtype=torch.float64), -(-count // PARTS)
    for numbers in (order[start : start + size] for start in range(0, count, size)):
        tokens = padded([references[number] for number in numbers]).to(device)
        lengths = torch.tensor([len(references[number]) for number in numbers], device=device)
        is_token = torch.arange(tokens.shape[1], device=device) < lengths.unsqueeze(1)
        some = rows[numbers]
        states = read.hidden[some].unsqueeze(1)  # predicts the first token
        if tokens.shape[1] > 1:
            states = torch.cat([states, read.look_ahead(some, columns, tokens[:, :-1])], dim=1)
        losses = torch.zeros(tokens.shape, dtype=torch.float64)
        losses[is_token.cpu()] = _token_losses(read, states[is_token], tokens[is_token])
        sums[numbers] = losses.sum(dim=1)
    return sums


def _token_losses(read: ReadRows, states: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of N tokens, predicted from hidden states [N, H]: [N], in float64, on the CPU."""
    parts = zip(states.split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True)
    losses = [F.cross_entropy(read.logits(some).float(), tokens, reduction="none") for some, tokens in parts]
    return torch.cat(losses).cpu().double()  # on the CPU: Apple's GPUs have no float64
