"""What a user would otherwise train with: the same methods as Hugging Face modules, with `Trainer` and with PEFT.

Rows are [prompt][query][response][pad]. The prompt's positions hold placeholder tokens that the module overwrites, as
transformers' own models do for images. The collator pads to the longest row; the model computes all logits and its own
loss.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from stages.bench.clock import as_users_have_it, now
from stages.language_model.base_model import Weights
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import DROPOUTS
from stages.methods.dynamic import CONTROLLER, DynamicMethod
from stages.methods.method import EMBEDDINGS, Method
from stages.methods.soft import PROMPT
from stages.params.schema import Training

IGNORED = -100  # the label of a token without loss


def load_plain_model(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The model as users load it, but without dropout, which we do not compare."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name in DROPOUTS:
        if isinstance(getattr(config, name, None), float):
            setattr(config, name, 0.0)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, local_files_only=True
    )
    model.to(device)  # type: ignore[arg-type]
    return model


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Rows of numbers as one tensor [B, T]."""
    side = "left" if left else "right"
    return pad_sequence([torch.tensor(row) for row in rows], True, value, padding_side=side)


def lay_out(pairs: Sequence[EncodedPair], prompted: bool, left: bool = False) -> dict[str, Tensor]:
    """Collate pairs: rows and labels [B, T]; for a prompt also its positions [B, T] and the queries [B, S]."""
    slots = [len(pair.query) if prompted else 0 for pair in pairs]
    rows = [pair.query[:count] + pair.query + pair.response for pair, count in zip(pairs, slots, strict=True)]
    silent = [[IGNORED] * (count + len(pair.query)) for pair, count in zip(pairs, slots, strict=True)]
    batch = {
        "input_ids": padded(rows, 0, left),
        "attention_mask": padded([[1] * len(row) for row in rows], 0, left),
        "labels": padded([none + pair.response for none, pair in zip(silent, pairs, strict=True)], IGNORED, left),
    }
    if prompted:
        places = [[1] * count + [0] * (len(row) - count) for count, row in zip(slots, rows, strict=True)]
        batch["prompt_places"] = padded(places, 0, left).bool()
        batch["queries"] = padded([pair.query for pair in pairs], 0)
        batch["query_mask"] = padded([[1] * len(pair.query) for pair in pairs], 0)
    return batch


class TablePrompt(nn.Module):
    """Soft: Z[0:S]."""

    def __init__(self, method: Method, weights: Weights) -> None:
        super().__init__()
        self.table = nn.Parameter(weights[PROMPT].clone())

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Embedded queries [B, S, H] -> prompts [B, S, H]."""
        return self.table[: embedded.shape[1]].expand(embedded.shape[0], -1, -1)


class GeneratedPrompt(nn.Module):
    """Dynamic: C(E[query])."""

    def __init__(self, method: Method, weights: Weights) -> None:
        super().__init__()
        assert isinstance(method, DynamicMethod)
        self.controller = copy.deepcopy(method.controller).float()
        own = {name.removeprefix(CONTROLLER): value for name, value in weights.items() if name.startswith(CONTROLLER)}
        self.controller.load_state_dict(own, strict=False)  # `own` has the parameters; the buffers are already there
        self.controller.set_attn_implementation("sdpa")
        self.controller.requires_grad_(True)

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Embedded queries [B, S, H] -> prompts [B, S, H]."""
        output = self.controller(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden


class PromptedModel(nn.Module):
    """A frozen language model with a trained prompt, and with its word embeddings trained or not."""

    def __init__(self, model: PreTrainedModel, prompt: nn.Module, train_embeddings: bool) -> None:
        super().__init__()
        self.model, self.prompt = model.requires_grad_(False), prompt.to(model.device)
        model.get_input_embeddings().requires_grad_(train_embeddings)

    def embed(self, input_ids: Tensor, prompt_places: Tensor, queries: Tensor, query_mask: Tensor) -> Tensor:
        """Rows [B, T, H], with the prompts in their positions."""
        table = self.model.get_input_embeddings()
        prompts = self.prompt(table(queries), query_mask)
        rows: Tensor = table(input_ids)
        return rows.masked_scatter(prompt_places.unsqueeze(-1), prompts[query_mask.bool()].to(rows.dtype))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        prompt_places: Tensor,
        queries: Tensor,
        query_mask: Tensor,
    ) -> Any:
        """The model's output: the mean loss over the labels, and all logits."""
        rows = self.embed(input_ids, prompt_places, queries, query_mask)
        return self.model(inputs_embeds=rows, attention_mask=attention_mask, labels=labels, use_cache=False)


PROMPTS: dict[str, type[TablePrompt | GeneratedPrompt]] = {"soft": TablePrompt, "dynamic": GeneratedPrompt}


def same_module(method: Method, weights: Weights, model: PreTrainedModel) -> nn.Module:
    """A method as a module for `Trainer`, with the same weights; for fine-tuning that is the model itself."""
    kind = method.settings.kind
    model.config.use_cache = False
    if kind not in PROMPTS:
        model.load_state_dict(dict(weights), strict=False)  # only the parameters, tied ones once
        return model.requires_grad_(True)
    if EMBEDDINGS in weights:
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(weights[EMBEDDINGS])  # type: ignore[operator]
    return PromptedModel(model, PROMPTS[kind](method, weights), EMBEDDINGS in weights)


def peft_module(model: PreTrainedModel, virtual_tokens: int) -> nn.Module:
    """PEFT's prompt tuning (Lester et al. 2021): a table in front of every row, all else frozen."""
    from peft import PromptTuningConfig, get_peft_model  # takes seconds

    model.config.use_cache = False
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)
    module: nn.Module = get_peft_model(model, settings)
    return module


class _Stopwatch(TrainerCallback):
    """Reads the clock after the steps `first` and `last`, and not between, because that would slow down a GPU."""

    def __init__(self, first: int, last: int, device: torch.device) -> None:
        self.first, self.last, self.device = first, last, device
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the clock; `Trainer` calls this."""
        if state.global_step in (self.first, self.last):
            self.times.append(now(self.device))


def trainer_rate(
    module: nn.Module,
    collator: Callable[[Sequence[EncodedPair]], dict[str, Tensor]],
    warm: Sequence[EncodedPair],
    pairs: Sequence[EncodedPair],
    training: Training,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Pairs per second of `Trainer` on `pairs`, after a warm-up on `warm`; both are read in the order given."""
    first, last = len(warm) // training.batch_size, (len(warm) + len(pairs)) // training.batch_size
    stopwatch = _Stopwatch(first, last, device)
    with TemporaryDirectory(prefix="bench-") as folder, as_users_have_it():
        arguments = TrainingArguments(
            output_dir=folder, max_steps=last, per_device_train_batch_size=training.batch_size,
            train_sampling_strategy="sequential", learning_rate=training.learning_rates.values()[0],
            lr_scheduler_type="constant", weight_decay=training.weight_decay, optim="adamw_torch_fused",
            max_grad_norm=training.max_grad_norm or 0.0, bf16=dtype is torch.bfloat16, use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda", remove_unused_columns=False, save_strategy="no",
            eval_strategy="no", logging_strategy="no", logging_nan_inf_filter=False, report_to="none",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(module, arguments, collator, train_dataset=[*warm, *pairs], callbacks=[stopwatch])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    module.zero_grad(set_to_none=True)
    return len(pairs) / (stopwatch.times[1] - stopwatch.times[0])
