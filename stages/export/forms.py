"""How each method answers in plain transformers: the files of its prompt, and the lines of an exported README.

A method that is added gets a line in `form_of`; all else about the export is the same for every method.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel

from stages.language_model.text_tokens import for_people, spelled_out
from stages.methods.dynamic import CONTROLLER, DynamicMethod
from stages.methods.few_shot import CONTEXT
from stages.methods.lora import ADAPTER, LoraMethod
from stages.methods.prefix import KEYS, VALUES
from stages.methods.soft import DEPTH, PROMPT
from stages.methods.trained_method import TrainedMethod
from stages.params.methods import Dynamic, MethodSettings, Soft
from stages.plumbing.errors import StageError
from stages.report.markdown import fence

ADAPTER_FOLDER = "adapter"
CONTROLLER_FOLDER = "controller"
PROMPT_FILE, DEPTH_FILE = "prompt.safetensors", "depth.safetensors"
CONTEXT_FILE, CONTEXT_TEXT = "context.safetensors", "context.txt"
LINES = """\
import torch
from transformers import {classes}

FOLDER = "."  # this folder; from the hub: huggingface_hub.snapshot_download("OWNER/NAME")
PREFIX, SEPARATOR, END = {prefix}, {separator}, {end}  # {parts}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
{typed}model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.{dtype})
{load}

def rows_of(text):  # what the language model reads{shape}
    tokens = {tokenizer}({text}, add_special_tokens=False, split_special_tokens=True)["input_ids"]{behind}
{letters}    tokens = PREFIX + tokens[max(len(tokens) - {room}, 0) :] + SEPARATOR  # a long query loses its beginning
{query}    return {rows}


@torch.inference_mode()
def respond(text):
    rows = rows_of(text)
    answer = model.generate({given}=rows, attention_mask=torch.ones(rows.shape[:2], dtype=torch.long))
    tokens = [token for token in answer[0]{after}.tolist() if token != END]
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return " ".join(text{line}.split())


print(respond("How was your day ?"))
"""
LOAD_FILE = "from safetensors.torch import load_file\n\n"
SERVER_LINES = f"""\
from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
with open("{CONTEXT_TEXT}", encoding="utf-8") as file:
    examples = file.read()


def respond(text, model="NAME"):
    prompt = examples + {{before}} + text + {{between}}
    answer = client.completions.create(model=model, prompt=prompt, stop={{end}}, temperature=0, max_tokens={{longest}})
    return " ".join(answer.choices[0].text.split())
"""
# For a tokenizer that would find control tokens in any text, because they are not marked as special.
TYPED = """\
typed = AutoTokenizer.from_pretrained(FOLDER)  # for what people write: control tokens are letters there
added = [str(token) for token in typed.added_tokens_decoder.values()]
typed.add_tokens([text for text in added if text.replace("\u2581", " ").strip()], special_tokens=True)
"""
# For a tokenizer that finds them even then.
LETTERS = """\
    tokens = [part for token in tokens for part in {letters}.get(token, [token])]  # control tokens as letters
"""


# What layers behind the first one read more where slots are.
DEEPER = """\
depth = {{name: value.to(model.dtype) for name, value in load_file(f"{{FOLDER}}/{file}").items()}}
{low}lists = [each for each in model.base_model.modules() if isinstance(each, torch.nn.ModuleList)]
layers = next(each for each in lists if len(each) == model.config.num_hidden_layers)
for number, layer in enumerate(layers[1:]):

    def deeper(layer, given, number=number):
        hidden = given[0]
        slots = {slots} if hidden.shape[1] > 1 else 0  # a token of the answer is read alone
        more = {more}
        return (torch.cat([hidden[:, :slots] + more, hidden[:, slots:]], dim=1), *given[1:])

    layer.register_forward_pre_hook(deeper)
"""
SHARED = {"low": "", "more": 'depth["depth"][number, :slots]'}
LOW_RANK = {
    "low": """\
low = []


def note(controller, given, output):
    prompt = torch.nn.functional.layer_norm(output.last_hidden_state, output.last_hidden_state.shape[-1:])
    low.append(torch.tanh(prompt @ depth["depth.down"].T))


controller.register_forward_hook(note)
""",
    "more": '(low[-1] @ depth["depth.up"][number].T)[:, :slots]',
}


class Form:
    """A method without a prompt: what it trained is all in the language model."""

    files: str = ""  # what lies beside the language model, in words
    classes: tuple[str, ...] = ()  # of transformers, that `load` needs
    load: str = ""  # lines that load what the prompt is made of, once
    rows: str = "query"  # what the language model reads, [1, T, H], made of the embedded query, [1, S, H]
    by_tokens: bool = False  # PEFT's `generate` takes no embeddings: the model reads the tokens of the query

    def __init__(self, what: str) -> None:
        self.what = what  # was trained, in words

    def note(self, trained: TrainedMethod) -> str:
        """What else a reader of the README should know."""
        return ""

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """Write what the prompt is made of into `folder`, in float32."""
        return


class SoftPrompt(Form):
    """Z [P, H] as one tensor; a query of S tokens gets its first S rows."""

    files = f"`{PROMPT_FILE}`: the soft prompt, one tensor `prompt` [P, H]"
    load = LOAD_FILE + f'prompt = load_file(f"{{FOLDER}}/{PROMPT_FILE}")["prompt"].to(model.dtype)\n'
    rows = "torch.cat([prompt[: query.shape[1]].unsqueeze(0), query], dim=1)"

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """Z, as it was trained."""
        save_file({"prompt": trained.weights[PROMPT].float().cpu().contiguous()}, folder / PROMPT_FILE)


class Controller(Form):
    """C as a model of transformers of its own, without word embeddings: it reads embedded queries."""

    files = (
        f"`{CONTROLLER_FOLDER}/`: the Transformer that makes the prompt, a model of its own (it reads embedded queries)"
    )
    classes = ("AutoModel",)
    load = f'controller = AutoModel.from_pretrained(f"{{FOLDER}}/{CONTROLLER_FOLDER}", dtype=model.dtype)\n'
    rows = "torch.cat([controller(inputs_embeds=query).last_hidden_state, query], dim=1)"

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """C; the table of word embeddings that its architecture insists on has one row of zeros."""
        method = trained.method
        assert isinstance(method, DynamicMethod)
        model: Any = AutoModel.from_config(method.controller.config).float()
        own = {name.removeprefix(CONTROLLER): value for name, value in trained.weights.items() if CONTROLLER in name}
        assert not model.load_state_dict(own, strict=False).unexpected_keys
        model.get_input_embeddings().weight.data.zero_()
        model.save_pretrained(folder / CONTROLLER_FOLDER)


class Deep(Form):
    """A prompt that acts at every layer: its form at the input, and what is added to the hidden states of its slots."""

    def __init__(self, what: str, form: Form, settings: Soft | Dynamic) -> None:
        super().__init__(what)
        self.form, self.classes, self.rows, slots = form, form.classes, form.rows, "hidden.shape[1] // 2"
        if isinstance(settings, Soft) and settings.length != "query":
            self.rows, slots = "torch.cat([prompt.unsqueeze(0), query], dim=1)", str(settings.length)
        more = LOW_RANK if isinstance(settings, Dynamic) else SHARED
        self.files = f"{form.files}; `{DEPTH_FILE}`: what is added to the hidden states of its slots"
        self.load = LOAD_FILE + form.load.removeprefix(LOAD_FILE) + DEEPER.format(file=DEPTH_FILE, slots=slots, **more)

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """The prompt, and what is added."""
        self.form.write(trained, folder)
        own = {name: value.float().cpu() for name, value in trained.weights.items() if name.startswith(DEPTH)}
        save_file(own, folder / DEPTH_FILE)


class Adapter(Form):
    """A and B as PEFT's own adapter, for who has the base model; in the language model they are added already."""

    files = f"`{ADAPTER_FOLDER}/`: the same updates as an adapter of PEFT, for the untouched base model"

    def note(self, trained: TrainedMethod) -> str:
        """That PEFT's users need less."""
        load = f'PeftModel.from_pretrained(base, f"{{FOLDER}}/{ADAPTER_FOLDER}")'
        return f"Who has the base model needs `{ADAPTER_FOLDER}/` alone: `{load}`."

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """A and B by the names that PEFT gives them, and its configuration."""
        method = trained.method
        assert isinstance(method, LoraMethod)
        method.config().save_pretrained(str(folder / ADAPTER_FOLDER))
        names = {name: f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}" for name in trained.weights}
        tensors = {names[name]: value.float().cpu().contiguous() for name, value in trained.weights.items()}
        save_file(tensors, folder / ADAPTER_FOLDER / "adapter_model.safetensors", metadata={"format": "pt"})


class PeftPrompt(Form):
    """What stands in front of every query alike, as an adapter of PEFT."""

    files = f"`{ADAPTER_FOLDER}/`: what was trained as an adapter of PEFT, which needs no other code"
    load = f'from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(model, f"{{FOLDER}}/{ADAPTER_FOLDER}")\n'
    by_tokens = True

    def save(self, config: Any, table: Tensor, folder: Path) -> None:
        """The adapter: its configuration, and a row for each of P tokens."""
        config.save_pretrained(str(folder / ADAPTER_FOLDER))
        rows = {"prompt_embeddings": table.float().cpu().contiguous()}
        save_file(rows, folder / ADAPTER_FOLDER / "adapter_model.safetensors")


class FixedPrompt(PeftPrompt):
    """Z [P, H] of a fixed length: prompt tuning."""

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """Z, as it was trained."""
        from peft import PromptTuningConfig  # takes seconds to import

        table, config = trained.weights[PROMPT], trained.method.base.model.config
        own = PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=len(table), token_dim=table.shape[1],
            num_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads,
            num_transformer_submodules=1, inference_mode=True,
        )  # fmt: skip
        self.save(own, table, folder)


class Prefix(PeftPrompt):
    """Keys and values: prefix tuning."""

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """One row for each of P tokens: for every layer its keys, then its values."""
        from peft import PrefixTuningConfig  # takes seconds to import

        both = torch.stack([trained.weights[KEYS], trained.weights[VALUES]], dim=1)  # [L, 2, heads, P, size]
        layers, _, heads, length, size = both.shape
        config = PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=length, num_layers=layers, num_attention_heads=heads,
            token_dim=heads * size, num_transformer_submodules=1, inference_mode=True,
        )  # fmt: skip
        self.save(config, both.permute(3, 0, 1, 2, 4).reshape(length, -1), folder)


class Context(Form):
    """The examples as text, and as the tokens that the method read."""

    files = f"`{CONTEXT_TEXT}`: the examples as text; `{CONTEXT_FILE}`: their token ids"
    load = (
        f'{LOAD_FILE}examples = load_file(f"{{FOLDER}}/{CONTEXT_FILE}")["context"].unsqueeze(0)\n'
        "examples = model.get_input_embeddings()(examples)\n"
    )
    rows = "torch.cat([examples, query], dim=1)"

    def note(self, trained: TrainedMethod) -> str:
        """How to ask a server."""
        return f"A server with an API like OpenAI's, for the base model:\n\n{fence('python', server_lines(trained))}"

    def write(self, trained: TrainedMethod, folder: Path) -> None:
        """The context.

        Raises:
            StageError: each query has its own.
        """
        if trained.nearest is not None:
            remedy = "set choose to random and run `dvc repro`"
            raise StageError("few-shot", "each query has its own examples, which a text cannot look up", remedy)
        tokens = trained.weights[CONTEXT].cpu()
        save_file({"context": tokens}, folder / CONTEXT_FILE)
        text = str(trained.tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False))
        (folder / CONTEXT_TEXT).write_text(text, encoding="utf-8")


FORMS: dict[str, Form] = {  # by the kind of the method, as in stages/methods/registry.py
    "zero-shot": Form("the base model as it is, with the prompt template below; nothing was trained"),
    "fine-tune": Form("every parameter of the base model was trained"),
    "lora": Adapter("low-rank updates of the linear layers were trained; here they are added to the weights"),
    "embeddings": Form("the word embeddings of the base model were trained, and nothing else; there is no prompt"),
    "prefix": Prefix("keys and values at every layer were trained; they stand in front of every query"),
    "few-shot": Context("nothing was trained; examples stand in front of every query"),
    "soft": SoftPrompt("one prompt for all queries was trained; the first rows of it stand in front of each"),
    "dynamic": Controller("a small Transformer was trained that generates a prompt from each query"),
}


def form_of(settings: MethodSettings) -> Form:
    """The form of a method with these settings."""
    form = FORMS[settings.kind]
    if isinstance(settings, Soft | Dynamic) and settings.depth == "every-layer":
        return Deep(f"{form.what}, and acts at every layer", form, settings)
    if isinstance(settings, Soft) and settings.length != "query":
        return FixedPrompt("one prompt was trained that stands in front of every query")
    return form


def transformers_lines(trained: TrainedMethod, form: Form) -> str:
    """A program that answers a query as the stage greedy-generate does, with transformers alone."""
    template, tokenizer = trained.prompt_template, trained.tokenizer
    parts = [repr(str(tokenizer.decode(tokens))) for tokens in (template.prefix, template.separator, [template.end])]
    front, letters = template.query_front, spelled_out(tokenizer)
    copied = for_people(tokenizer) is not tokenizer
    return LINES.format(
        classes=", ".join(sorted([*form.classes, "AutoModelForCausalLM", "AutoTokenizer"])),
        prefix=template.prefix,
        separator=template.separator,
        end=template.end,
        line=r'.partition("\n")[0]' if "\n" in template.text["end"] else "",
        parts=f"the token ids of {parts[0]}, {parts[1]} and {parts[2]}",
        dtype=str(trained.method.base.dtype).removeprefix("torch."),
        load=form.load,
        typed=TYPED if copied else "",
        tokenizer="typed" if copied else "tokenizer",
        text=f"{json.dumps(front.text)} + text" if front.text else "text",
        letters=LETTERS.format(letters=letters) if letters else "",
        behind=f"[{front.tokens}:]" if front.tokens else "",
        room=trained.lengths.max_query_tokens - len(template.prefix) - len(template.separator),
        rows="torch.tensor([tokens])" if form.by_tokens else form.rows,
        query="" if form.by_tokens else "    query = model.get_input_embeddings()(torch.tensor([tokens]))\n",
        shape=", as tokens [1, T]" if form.by_tokens else ", [1, T, H]",
        given="input_ids" if form.by_tokens else "inputs_embeds",
        after="[rows.shape[1] :]" if form.by_tokens else "",
    )


def server_lines(trained: TrainedMethod) -> str:
    """A program that asks a server for the answer that follows the examples in the folder."""
    template, tokenizer = trained.prompt_template, trained.tokenizer
    before, between = (str(tokenizer.decode(tokens)) for tokens in (template.prefix, template.separator))
    # The last space of the prefix is not among its tokens: it is one with the query's first word.
    return SERVER_LINES.format(
        before=json.dumps(before + " " * template.text["prefix"].endswith(" ")),
        between=json.dumps(between),
        end=json.dumps(str(tokenizer.decode([template.end]))),
        longest=trained.lengths.max_new_tokens,
    )
