"""What the methods need of a language model, tried on a few tokens as soon as it is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from stages.language_model.base_model import BaseModel
from stages.language_model.cache import PreallocatedLayer
from stages.plumbing.errors import StageError, is_out_of_memory, one_line

REMEDY = "use a model of another architecture"
READ, ALL = 2, 4  # tokens of a row that are read at once, and with those that follow, one by one or together


def check_abilities(base: BaseModel, folder: Path) -> None:
    """Refuse a model that would fail or compute something else in the middle of a training.

    Raises:
        StageError: its output layer is not the E that its configuration says; it does more than its input, frozen and
            output layers do; it cannot read the word embeddings of a trial; it cannot read on, one token or several,
            with our cache of keys and values.
    """
    kind = type(base.model).__name__
    if base.model.get_output_embeddings() is None or base.model.base_model is base.model:
        raise StageError(folder, f"{kind} has no output layer of its own", REMEDY)
    _check_tied(base, folder)
    tokens = torch.arange(2 * ALL, device=base.device).view(2, ALL) % len(base.embeddings)
    with refused(folder, f"{kind} cannot read word embeddings that are not its own"):
        _check_parts(base, folder, tokens[:1])
    with refused(folder, f"{kind} cannot decode with a cache of keys and values"):
        _check_cache(base, folder, tokens)


def _check_tied(base: BaseModel, folder: Path) -> None:
    """The library leaves an output layer untied whose weights differ from E, whatever the configuration says."""
    head = f"{base.output_name()}.weight"
    if not base.tied and head in base.model.get_expanded_tied_weights_keys(all_submodels=True):
        found = f"its {head} differs from the word embeddings, though its configuration ties them"
        raise StageError(folder, found, "use the complete model, or set tie_word_embeddings to false in config.json")


@contextmanager
def refused(folder: Path | str, found: str, remedy: str = REMEDY) -> Iterator[None]:
    """Whatever an attempt raises becomes one line: the architectures of the library fail in ways of their own.

    Raises:
        StageError: with what was found, and in brackets what the attempt raised.
    """
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise StageError(folder, f"{found} ({one_line(str(error))})", remedy) from None


def _check_parts(base: BaseModel, folder: Path, tokens: Tensor) -> None:
    """A trial's E around the frozen layers must give what the whole model gives that holds this E.

    So there is nothing else between and behind them: no soft-capping, no scale, no second use of E or of the tokens.
    """
    with torch.no_grad(), _other_rows(base.embeddings, tokens):
        embedded = base.embed(tokens)
        whole = base.model(input_ids=tokens).logits.float()
    if not bool(torch.isfinite(whole).all()):
        raise StageError(folder, "its weights give logits that are not finite", "download the model again")
    embedded.requires_grad_()
    hidden = base.hidden(embedded)
    (gradient,) = torch.autograd.grad(hidden.float().abs().sum(), embedded)
    with torch.no_grad(), _other_rows(base.embeddings, tokens):
        ours = base.logits(hidden.detach()).float()
    kind = type(base.model).__name__
    if not torch.allclose(ours, whole, rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        raise StageError(folder, f"{kind} does more to its embeddings or logits than its outer layers do", REMEDY)
    if not bool(torch.isfinite(gradient).all() and gradient.abs().amax(dim=-1).all()):
        raise StageError(folder, f"{kind} passes no gradient on to its word embeddings", REMEDY)


@contextmanager
def _other_rows(embeddings: Tensor, tokens: Tensor) -> Iterator[None]:
    """For a while the rows of these tokens hold their own numbers in another order: as large, and something else."""
    rows = tokens.unique()
    kept = embeddings[rows].clone()
    embeddings[rows] = kept.roll(1, dims=-1)
    try:
        yield
    finally:
        embeddings[rows] = kept


def _check_cache(base: BaseModel, folder: Path, tokens: Tensor) -> None:
    """Two rows, one with padding on the left, read, scored and decoded as `stages/methods` does it."""
    kind = type(base.model).__name__
    layers = [PreallocatedLayer(2, READ, ALL) for _ in range(base.model.config.num_hidden_layers)]
    cache = Cache(layers=list(layers))
    with torch.no_grad():
        words = base.embed(tokens)
        expected = base.hidden(words)
        first = torch.arange(2, device=base.device).unsqueeze(1)  # the second row begins one column later
        columns = torch.arange(ALL, device=base.device)
        mask, positions = columns >= first, (columns - first).clamp(min=0)
        rows = torch.stack([words[0], words[1].roll(1, dims=0)])
        for layer in layers:
            layer.read(first.flatten())
        read = base.hidden(rows[:, :READ], positions[:, :READ], mask[:, :READ], cache)
        if not all(layer.is_initialized for layer in layers):
            raise StageError(folder, f"{kind} has layers that keep no keys and values", REMEDY)
        for layer in layers:
            layer.look_ahead(first.flatten(), READ)
        ahead = base.hidden(rows[:, READ:], positions[:, READ:], mask, cache)
        for layer in layers:
            layer.decode()
        decoded = [
            base.hidden(rows[:, end - 1 : end], positions[:, end - 1 : end], mask[:, :end], cache)
            for end in range(READ + 1, ALL + 1)
        ]
        expected = torch.cat([expected[0], expected[1, :-1]]).float()
    # The bound is wide where numbers are coarse: trainings have a base model in float32 in any case.
    bound = 1e-3 if base.dtype is torch.float32 else 0.2
    for rest in [ahead], decoded:  # as references are read, and as answers are decoded
        both = torch.cat([read, *rest], dim=1)
        ours = torch.cat([both[0], both[1, 1:]]).float()
        if not float((ours - expected).norm()) <= bound * float(expected.norm()):
            raise StageError(folder, f"{kind} computes something else with a cache of keys and values", REMEDY)
