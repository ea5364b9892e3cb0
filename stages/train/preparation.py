"""What must be there before the first step: the method in both precisions, its first weights, room for its rows."""

from pathlib import Path

import torch
from torch import Tensor

from stages.language_model.cpu_linear import page_out_frozen
from stages.language_model.device import arithmetic, choose_device
from stages.language_model.loading import check_row_length, load_base_model, load_config
from stages.methods.method import Method
from stages.methods.registry import METHODS, build_method
from stages.params.methods import Dynamic
from stages.params.schema import Params
from stages.plumbing.errors import StageError


def load_methods(folder: Path, params: Params) -> tuple[Method, Method, dict[str, Tensor]]:
    """The method in the precision of training and in that of decoding, and the weights from which trials start.

    The base model is held once in each precision; what is trained starts from its float32 weights in any case.
    """
    device = choose_device(params.runtime)
    training, settings = params.chosen_protocol.training, params.chosen_method
    wanted = [arithmetic(one, device) for one in (training.dtype, params.chosen_protocol.decoding_dtype)]
    methods = {
        dtype: build_method(load_base_model(folder, device, dtype, training.dropout), settings)
        for dtype in {*wanted, torch.float32}
    }
    initial = methods[torch.float32].initial_weights(torch.Generator().manual_seed(params.seed))
    for dtype, method in methods.items():
        if dtype is not wanted[0]:  # until decoding
            page_out_frozen(method.base.model)
    return methods[wanted[0]], methods[wanted[1]], initial


def check_fit(folder: Path, params: Params) -> None:
    """Refuse what the base model cannot take, before its weights are read.

    Raises:
        StageError: rows are longer than its positions, or a controller is to start from more layers than it has.
    """
    config, lengths, settings = load_config(folder), params.chosen_protocol.lengths, params.chosen_method
    longest = METHODS[settings.kind].layout([lengths.max_query_tokens], [lengths.max_new_tokens])
    check_row_length(config, longest.tokens()[0])
    there = config.num_hidden_layers
    if isinstance(settings, Dynamic) and settings.init == "first-layers" and settings.layers > there:
        found = f"{settings.layers} first layers of a model that has {there}"
        raise StageError(f"params.yaml: methods.{params.method}.layers", found, "lower it or set init to random")
