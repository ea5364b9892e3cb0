"""What a user would otherwise train with: the same methods as Hugging Face modules, with `Trainer` and with PEFT.

Rows are [prompt][query][response][pad]. The prompt's positions hold placeholder tokens that the module overwrites, as
transformers' own models do for images. The collator pads to the longest row; the model computes all logits and its own
loss.
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from stages.bench.clock import as_users_have_it, now
from stages.bench.data import TRAINING
from stages.language_model.base_model import BaseModel, Weights
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import set_dropout
from stages.methods.dynamic import CONTROLLER, DynamicMethod
from stages.methods.method import EMBEDDINGS, Method
from stages.methods.soft import PROMPT

IGNORED = -100  # the label of a token without loss


def load_plain_model(folder: Path, device: torch.device) -> PreTrainedModel:
    """The model as users load it, in float32, but without dropout, which we do not compare."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    set_dropout(config, 0.0)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, local_files_only=True)
    model.config.use_cache = False
    return model.to(device)  # type: ignore[no-any-return]


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Rows of numbers as one tensor [B, T]."""
    return pad_sequence([torch.tensor(row) for row in rows], True, value, padding_side="left" if left else "right")


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


class PromptedModel(nn.Module):
    """A frozen language model with a trained prompt, Z[0:S] or C(E[query]), and word embeddings trained or not."""

    accepts_loss_kwargs = False  # tells `Trainer` that **batch are the collator's tensors alone

    def __init__(self, model: PreTrainedModel, method: Method, weights: Weights) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        model.get_input_embeddings().requires_grad_(EMBEDDINGS in weights)
        self.table = nn.Parameter(weights[PROMPT].clone()) if PROMPT in weights else None
        if isinstance(method, DynamicMethod):
            controller = copy.deepcopy(method.controller).float().requires_grad_(True)
            own = {name.removeprefix(CONTROLLER): value for name, value in weights.items()}
            controller.load_state_dict(own, strict=False)  # E is none of its parameters; its buffers are there already
            controller.set_attn_implementation("sdpa")
            self.controller = controller
        self.to(model.device)

    def embed(self, input_ids: Tensor, prompt_places: Tensor, queries: Tensor, query_mask: Tensor) -> Tensor:
        """Rows [B, T, H], with the prompts [B, S, H] in their positions."""
        words = self.model.get_input_embeddings()
        if self.table is not None:
            prompts: Tensor = self.table[: queries.shape[1]].expand(len(queries), -1, -1)
        else:
            read = {"inputs_embeds": words(queries), "attention_mask": query_mask}
            prompts = self.controller(**read, use_cache=False).last_hidden_state
        rows: Tensor = words(input_ids)
        return rows.masked_scatter(prompt_places.unsqueeze(-1), prompts[query_mask.bool()].to(rows.dtype))

    def forward(self, attention_mask: Tensor, labels: Tensor, **batch: Tensor) -> Any:
        """The model's output: the mean loss over the labels, and all logits. batch: what `embed` takes."""
        return self.model(inputs_embeds=self.embed(**batch), attention_mask=attention_mask, labels=labels)


def same_module(method: Method, weights: Weights, model: PreTrainedModel) -> nn.Module:
    """A method as a module for `Trainer`, with the same weights; for fine-tuning that is the model itself."""
    if EMBEDDINGS in weights:
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(weights[EMBEDDINGS])  # type: ignore[operator]
    if method.settings.kind in ("soft", "dynamic"):
        return PromptedModel(model, method, weights)
    model.load_state_dict(dict(weights), strict=False)  # only the parameters, tied ones once
    return model.requires_grad_(True)


class _Stopwatch(TrainerCallback):
    """Reads the clock after two steps, and not between, because that would slow down a GPU."""

    def __init__(self, steps: Sequence[int], device: torch.device) -> None:
        self.steps, self.device, self.times = steps, device, list[float]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the clock; `Trainer` calls this."""
        if state.global_step in self.steps:
            self.times.append(now(self.device))


@as_users_have_it()
def trainer_seconds(
    module: nn.Module, rate: float, warm: Sequence[EncodedPair], pairs: Sequence[EncodedPair], base: BaseModel
) -> float:
    """The seconds of `Trainer` on `pairs`, after a warm-up on `warm`; both are read in the order given.

    base: of our side, for the device and the precision of training.
    """
    size, cpu = TRAINING.batch_size, base.device.type == "cpu"
    first, last = len(warm) // size, (len(warm) + len(pairs)) // size
    stopwatch = _Stopwatch((first, last), base.device)
    collator = partial(lay_out, prompted=isinstance(module, PromptedModel))
    with TemporaryDirectory(prefix="bench-") as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=last, per_device_train_batch_size=size, learning_rate=rate,
            train_sampling_strategy="sequential", lr_scheduler_type="constant", weight_decay=TRAINING.weight_decay,
            optim="adamw_torch_fused", max_grad_norm=TRAINING.max_grad_norm or 0.0, use_cpu=cpu,
            bf16=base.dtype is torch.bfloat16, dataloader_pin_memory=not cpu, remove_unused_columns=False,
            save_strategy="no", logging_strategy="no", logging_nan_inf_filter=False, report_to="none",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(module, arguments, collator, train_dataset=[*warm, *pairs], callbacks=[stopwatch])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    module.zero_grad(set_to_none=True)
    return stopwatch.times[1] - stopwatch.times[0]
