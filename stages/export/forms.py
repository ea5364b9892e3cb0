"""How the prompt of each method is written, and the lines of plain transformers that make it again from a query.

A method that is added gets an entry in FORMS; all else about the export is the same for every method.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModel

from stages.methods.dynamic import CONTROLLER, DynamicMethod
from stages.methods.lora import ADAPTER, LoraMethod
from stages.methods.soft import PROMPT
from stages.methods.trained_method import TrainedMethod

ADAPTER_FOLDER = "adapter"
CONTROLLER_FOLDER = "controller"
PROMPT_FILE = "prompt.safetensors"


class Form:
    """A method without a prompt: what it trained is all in the language model.

    The lines use what stages/export/usage.py defines around them: FOLDER, `query`, the embedded query [1, S, H].
    """

    files: str = ""  # what lies beside the language model, in words
    classes: tuple[str, ...] = ()  # of transformers, that `load` needs
    load: tuple[str, ...] = ()  # lines that load what the prompt is made of, once
    rows: str = "query"  # what the language model reads, [1, T, H]
    note: str = ""  # what else a reader of the README should know

    def __init__(self, what: str) -> None:
        self.what = what  # was trained, in words

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """Write what the prompt is made of into `folder`."""
        return


class SoftPrompt(Form):
    """Z [P, H] as one tensor; a query of S tokens gets its first S rows."""

    files = f"`{PROMPT_FILE}`: the soft prompt, one tensor `prompt` [P, H]"
    load = (
        "from safetensors.torch import load_file",
        "",
        f'prompt = load_file(f"{{FOLDER}}/{PROMPT_FILE}")["prompt"].to(model.dtype)',
    )
    rows = "torch.cat([prompt[: query.shape[1]].unsqueeze(0), query], dim=1)"
    note = (
        "There is no adapter for PEFT here: its prompt tuning puts every row of the prompt in front of every query, "
        "this method as many rows as the query has tokens, so that the answers would be others."
    )

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """Z, as it was trained, in float32."""
        save_file({"prompt": trained.weights[PROMPT].float().cpu().contiguous()}, folder / PROMPT_FILE)


class Controller(Form):
    """C as a model of transformers of its own, without word embeddings: it reads embedded queries."""

    files = (
        f"`{CONTROLLER_FOLDER}/`: the Transformer that makes the prompt, a model of its own (it reads embedded queries)"
    )
    classes = ("AutoModel",)
    load = (f'controller = AutoModel.from_pretrained(f"{{FOLDER}}/{CONTROLLER_FOLDER}", dtype=model.dtype)',)
    rows = "torch.cat([controller(inputs_embeds=query).last_hidden_state, query], dim=1)"

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """C in float32; the table of word embeddings that its architecture insists on has one row of zeros."""
        method = trained.method
        assert isinstance(method, DynamicMethod)
        config: Any = method.controller.config
        model = AutoModel.from_config(config).float()
        own = {
            name.removeprefix(CONTROLLER): value.float().cpu()
            for name, value in trained.weights.items()
            if name.startswith(CONTROLLER)
        }
        left = model.load_state_dict(own, strict=False)
        table: nn.Parameter = model.get_input_embeddings().weight
        assert not left.unexpected_keys and table.shape[0] == 1
        with torch.no_grad():
            table.zero_()
        model.save_pretrained(folder / CONTROLLER_FOLDER)


class Adapter(Form):
    """A and B as PEFT's own adapter, for who has the base model; in the language model they are added already."""

    files = f"`{ADAPTER_FOLDER}/`: the same updates as an adapter of PEFT, for the untouched base model"
    note = (
        f"Who has the base model needs `{ADAPTER_FOLDER}/` alone: `PeftModel.from_pretrained(base, "
        f'f"{{FOLDER}}/{ADAPTER_FOLDER}")`.'
    )

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """A and B in float32, by the names that PEFT gives them, and its configuration."""
        method = trained.method
        assert isinstance(method, LoraMethod)
        method.config().save_pretrained(str(folder / ADAPTER_FOLDER))
        names = {name: f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}" for name in trained.weights}
        tensors = {names[name]: value.float().cpu().contiguous() for name, value in trained.weights.items()}
        save_file(tensors, folder / ADAPTER_FOLDER / "adapter_model.safetensors", metadata={"format": "pt"})


FORMS: dict[str, Form] = {  # by the kind of the method, as in stages/methods/registry.py
    "zero-shot": Form("the base model as it is, with the prompt template below; nothing was trained"),
    "fine-tune": Form("every parameter of the base model was trained"),
    "lora": Adapter("low-rank updates of the linear layers were trained; here they are added to the weights"),
    "embeddings": Form("the word embeddings of the base model were trained, and nothing else; there is no prompt"),
    "soft": SoftPrompt("one prompt for all queries was trained; the first rows of it stand in front of each"),
    "dynamic": Controller("a small Transformer was trained that generates a prompt from each query"),
}
