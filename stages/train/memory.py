"""Memory is planned before it is taken: how many trials fit on a device together, and whether one fits at all.

A trial in training holds its weights, their gradients and the two moments of Adam, four float32 values for each trained
number. A pass through the layers needs its activations besides, and the weights once more where the arithmetic is
bfloat16. Activations by Korthikanti et al. 2022 (arXiv 2205.05198, Eq. 2: 34 H + 5 T x heads bytes in half precision
for a token in a layer of a plain Transformer); what today's attention does not store makes it an upper bound.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch

from stages.language_model.base_model import Weights
from stages.language_model.device import arithmetic, choose_device
from stages.language_model.encoding import side_lengths
from stages.language_model.loading import empty_model
from stages.language_model.memory import free_memory
from stages.methods.method import Method
from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.train.sweep import Sweep
from stages.train.trials_per_pass import TOKENS_OF_A_TRIAL, rows_of_a_pass, tokens_of_a_pass

VALUES = 4 * 4  # bytes of a trained number: weight, gradient and two moments, each in float32
USABLE = 0.9  # of what is free: allocators round up, and libraries have workspaces
GB = 1e9
BIGGER = "train on a device with more memory, or choose a smaller model"

Numbered = tuple[int, float]  # a trial: its number and its learning rate


class TooLarge(Exception):
    """The trials of a group do not fit together; `parts` are smaller groups of the same trials."""

    def __init__(self, parts: list[list[Numbered]]) -> None:
        super().__init__(parts)
        self.parts = parts


def split(numbered: Sequence[Numbered], parts: int) -> list[list[Numbered]]:
    """The trials in `parts` groups of like size, their order kept."""
    size = ceil(len(numbered) / parts)
    return [list(numbered[first : first + size]) for first in range(0, len(numbered), size)]


def bytes_of_trial(initial: Weights) -> int:
    """What a trial holds from its first step to its last."""
    return VALUES * sum(value.numel() for value in initial.values())


def bytes_of_pass(method: Method, rows: int, tokens: int, predicted: int) -> int:
    """What one trial's pass needs besides: B rows of T tokens, and so many predicted tokens in the output layer."""
    config, item = method.base.model.config, method.base.dtype.itemsize
    layer = 34 * config.hidden_size + 5 * tokens * config.num_attention_heads
    layers = config.num_hidden_layers * rows * tokens * layer * item // 2
    logits = predicted * config.vocab_size * (item + 2 * 4)  # as computed; in float32 with their gradient
    return int(layers + logits)


def bytes_of_casts(method: Method, initial: Weights) -> int:
    """What a trial's weights and gradients take once more in a pass, in the precision of the arithmetic."""
    item = method.base.dtype.itemsize
    return 2 * item * sum(value.numel() for value in initial.values()) if item < 4 else 0


def check_base_model(folder: Path, params: Params) -> None:
    """See whether the base model alone fits on the device, before its weights are read.

    Raises:
        StageError: it does not; the message says how many GB it needs.
    """
    device, protocol = choose_device(params.runtime), params.chosen_protocol
    wanted = (protocol.training.dtype, protocol.decoding_dtype)
    kept = {torch.float32, *(arithmetic(precision, device) for precision in wanted)}  # as load_methods holds it
    needed = sum(value.numel() for value in empty_model(folder).parameters()) * sum(dtype.itemsize for dtype in kept)
    if needed > (free := free_memory(device)):
        found = f"the base model needs {_gb(needed)}, {_gb(free)} are to be had"
        raise StageError(f"memory of {device}", found, BIGGER)


def check_room(sweep: Sweep, initial: Weights, numbered: Sequence[Numbered]) -> None:
    """See whether a group of trials fits into what is free on the device, before anything of it is allocated.

    Raises:
        TooLarge: it does not, in smaller groups it would.
        StageError: not even one trial does; the message says how many GB it needs.
    """
    method, pairs = sweep.method, sweep.examples.train
    longest, responses = int(method.row_tokens(pairs).max()), int(side_lengths(pairs)[1].max())
    batch_size = sweep.training.batch_size
    whole = min(batch_size, len(pairs))
    rows = min(whole, rows_of_a_pass(method, longest))
    # The longest responses may stand in short rows, of which a whole batch is a pass.
    one_pass, casts = bytes_of_pass(method, rows, longest, whole * responses), bytes_of_casts(method, initial)
    most, shared = 1, 1.0  # on a GPU a pass of several trials halves itself when memory runs out
    if method.base.device.type == "cpu" and method.shares_layers:
        most = tokens_of_a_pass(method) // TOKENS_OF_A_TRIAL
        shared = max(1.0, tokens_of_a_pass(method) / max(TOKENS_OF_A_TRIAL, rows * longest))
    one_trial, free = bytes_of_trial(initial), int(USABLE * free_memory(method.base.device))
    needed = [
        count * one_trial + min(count, shared) * one_pass + min(count, most) * casts
        for count in range(1, len(numbered) + 1)
    ]
    together = sum(each <= free for each in needed)
    if not together:
        found = f"one trial of this method needs {_gb(needed[0])}, {_gb(free)} are to be had"
        raise StageError(f"memory of {method.base.device}", found, BIGGER)
    if together < len(numbered):
        parts = split(numbered, ceil(len(numbered) / together))
        found = f"{len(numbered)} trials need {_gb(needed[-1])}, {_gb(free)} are to be had"
        print(f"{found}: they are trained in {len(parts)} groups")
        raise TooLarge(parts)


def _gb(count: float) -> str:
    return f"{count / GB:.3g} GB"
