"""How each method answers in plain transformers: the files of its prompt, and the lines of an exported README.

A method that is added gets an entry in `FORMS`; all else about the export is the same for every method.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
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
from stages.methods.method import EMBEDDINGS
from stages.methods.prefix import KEYS, VALUES
from stages.methods.soft import PROMPT
from stages.methods.trained_method import TrainedMethod
from stages.params.methods import Dynamic, MethodSettings, Soft
from stages.plumbing.errors import StageError

LINES = """\
import unicodedata

import torch
{imports}from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = "."  # this folder; from the hub: huggingface_hub.snapshot_download("OWNER/NAME")
PREFIX, SEPARATOR, END = {prefix}, {separator}, {end}  # {parts}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
{typed}model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.{dtype})
{load}

@torch.inference_mode()
def respond(text):
    text = " ".join(unicodedata.normalize("NFC", text).split())  # as queries were in training
    tokens = {tokenizer}({text}, add_special_tokens=False, split_special_tokens=True)["input_ids"]{behind}
{letters}    tokens = PREFIX + tokens[max(len(tokens) - {room}, 0) :] + SEPARATOR  # a long query loses its beginning
    {rows}
    answer = model.generate({given}=rows, attention_mask=torch.ones(rows.shape[:2], dtype=torch.long))
    tokens = [token for token in answer[0]{after}.tolist() if token != END]
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return " ".join(text{line}.split())


print(respond("How was your day ?"))
"""
SERVER_LINES = """\
import unicodedata

from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
with open("context.txt", encoding="utf-8") as file:
    examples = file.read()


def respond(text, model="NAME"):
    text = " ".join(unicodedata.normalize("NFC", text).split())
    prompt = examples + {before} + text + {between}
    answer = client.completions.create(model=model, prompt=prompt, stop={end}, temperature=0, max_tokens={longest})
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
TENSORS = """\
from safetensors.torch import load_file
tensors = {name: value.to(model.dtype) for name, value in load_file(f"{FOLDER}/prompt.safetensors").items()}
"""
# What layers behind the first one read more where slots are.
DEEPER = """\
lists = [each for each in model.base_model.modules() if isinstance(each, torch.nn.ModuleList)]
layers = next(each for each in lists if len(each) == model.config.num_hidden_layers)
for number, layer in enumerate(layers[1:]):

    def deeper(layer, given, number=number):
        more, hidden = tensors["more"][number], given[0]
        if hidden.shape[1] > 1:  # a token of the answer is read alone
            hidden[:, : len(more)] += more

    layer.register_forward_pre_hook(deeper)
"""
MORE = {  # for them, by the kind of the method, [L - 1, P, H]
    "soft": """
    tensors["more"] = tensors["depth"][:, : prompt.shape[1]]""",
    "dynamic": """
    low = torch.nn.functional.layer_norm(prompt, prompt.shape[-1:]) @ tensors["depth.down"].T
    tensors["more"] = torch.tanh(low) @ tensors["depth.up"].mT""",
}
PROMPTED = """\
query = model.get_input_embeddings()(torch.tensor([tokens]))
    prompt = {prompt}
    rows = torch.cat([prompt, query], dim=1)"""


def write_tensors(trained: TrainedMethod, folder: Path) -> None:
    """Write what is part of no model, if there is any: a prompt, what it adds at each layer, examples."""
    own = {name: value for name, value in trained.weights.items() if not name.startswith((EMBEDDINGS, CONTROLLER))}
    if own:
        save_file({name: value.cpu().contiguous() for name, value in own.items()}, folder / "prompt.safetensors")


def write_controller(trained: TrainedMethod, folder: Path) -> None:
    """Write C as a model; the word embeddings that its architecture insists on have one row of zeros."""
    method = trained.method
    assert isinstance(method, DynamicMethod)
    config = deepcopy(method.controller.config)
    config.bos_token_id = config.eos_token_id = None  # it has no tokens, of which the library would warn
    model: Any = AutoModel.from_config(config).float()
    own = {name.removeprefix(CONTROLLER): value for name, value in trained.weights.items() if CONTROLLER in name}
    assert not model.load_state_dict(own, strict=False).unexpected_keys
    model.get_input_embeddings().weight.data.zero_()
    model.save_pretrained(folder / "controller")
    write_tensors(trained, folder)


def write_adapter(config: Any, tensors: dict[str, Tensor], folder: Path) -> None:
    """Write an adapter of PEFT."""
    config.save_pretrained(str(folder / "adapter"))
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "adapter/adapter_model.safetensors", metadata={"format": "pt"})


def write_lora(trained: TrainedMethod, folder: Path) -> None:
    """Write A and B by the names that PEFT gives them; in the language model they are added already."""
    assert isinstance(trained.method, LoraMethod)
    own = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": each for name, each in trained.weights.items()}
    write_adapter(trained.method.config(), own, folder)


def write_virtual_tokens(trained: TrainedMethod, folder: Path) -> None:
    """Write what stands in front of every query alike: a row for each of P tokens.

    Prompt tuning: Z [P, H]. Prefix tuning: for every layer the keys, then the values, [P, L * 2 * heads * size].
    """
    from peft import PrefixTuningConfig, PromptTuningConfig  # takes seconds to import

    weights = trained.weights
    kind: Any = PrefixTuningConfig if KEYS in weights else PromptTuningConfig
    if KEYS in weights:
        both = torch.stack([weights[KEYS], weights[VALUES]], dim=1)  # [L, 2, heads, P, size]
        rows = both.permute(3, 0, 1, 2, 4).flatten(1)
    else:
        rows = weights[PROMPT]
    # What else such a configuration has, PEFT takes from the model that it is loaded for.
    write_adapter(kind(task_type="CAUSAL_LM", num_virtual_tokens=len(rows)), {"prompt_embeddings": rows}, folder)


def write_context(trained: TrainedMethod, folder: Path) -> None:
    """Write the examples as tokens and as text, and a program that sends the text to a server.

    Raises:
        StageError: each query has its own.
    """
    if trained.nearest is not None:
        remedy = "set choose to random and run `dvc repro`"
        raise StageError("few-shot", "each query has its own examples, which a text cannot look up", remedy)
    write_tensors(trained, folder)
    text = trained.tokenizer.decode(trained.weights[CONTEXT].tolist(), clean_up_tokenization_spaces=False)
    (folder / "context.txt").write_text(str(text), encoding="utf-8")
    (folder / "server.py").write_text(server_lines(trained), encoding="utf-8")


@dataclass(frozen=True)
class Form:
    """How a method is exported. By default all that was trained is in the language model."""

    what: str  # was trained, in words
    files: str = ""  # what lies beside the language model, in words
    write: Callable[[TrainedMethod, Path], None] = lambda trained, folder: None  # these files, in float32
    load: str = ""  # lines that load them
    rows: str = "rows = torch.tensor([tokens])"  # lines: what the model reads, tokens [1, T] or embeddings [1, T, H]


VIRTUAL_TOKENS = Form(
    "one prompt was trained that stands in front of every query",
    "`adapter/`: what was trained as an adapter of PEFT, which needs no other code",
    write_virtual_tokens,
    'from peft import PeftModel\nmodel = PeftModel.from_pretrained(model, f"{FOLDER}/adapter")\n',
)
FORMS = {  # by the kind of the method, as in stages/methods/registry.py
    "zero-shot": Form("the base model as it is, with the prompt template below; nothing was trained"),
    "fine-tune": Form("every parameter of the base model was trained"),
    "embeddings": Form("the word embeddings of the base model were trained, and nothing else; there is no prompt"),
    "lora": Form(
        "low-rank updates of the linear layers were trained; here they are added to the weights",
        "`adapter/`: the same updates as an adapter of PEFT; who has the base model needs it alone: "
        '`PeftModel.from_pretrained(base, f"{FOLDER}/adapter")`',
        write_lora,
    ),
    "prefix": replace(
        VIRTUAL_TOKENS, what="keys and values at every layer were trained; they stand in front of every query"
    ),
    "few-shot": Form(
        "nothing was trained; examples stand in front of every query",
        "`context.txt`: the examples as text; `server.py`: asks a server of the base model with them, by an API like "
        "OpenAI's; `prompt.safetensors`: their token ids",
        write_context,
        "from safetensors.torch import load_file\n"
        'examples = load_file(f"{FOLDER}/prompt.safetensors")["context"].tolist()\n',
        rows="rows = torch.tensor([examples + tokens])",
    ),
    "soft": Form(
        "one prompt for all queries was trained; the first rows of it stand in front of each",
        "`prompt.safetensors`: the soft prompt `prompt` [P, H]",
        write_tensors,
        TENSORS,
        rows=PROMPTED.format(prompt='tensors["prompt"][: {slots}].unsqueeze(0)'),
    ),
    "dynamic": Form(
        "a small Transformer was trained that generates a prompt from each query",
        "`controller/`: the Transformer that makes the prompt, a model of its own (it reads embedded queries)",
        write_controller,
        "from transformers import AutoModel\n"
        'controller = AutoModel.from_pretrained(f"{FOLDER}/controller", dtype=model.dtype)\n',
        rows=PROMPTED.format(prompt="controller(inputs_embeds=query).last_hidden_state"),
    ),
}


def form_of(settings: MethodSettings) -> Form:
    """The form of a method with these settings."""
    form = FORMS[settings.kind]
    if isinstance(settings, Soft | Dynamic) and settings.depth == "every-layer":
        return replace(
            form,
            what=f"{form.what}; it acts at every layer",
            files=f"{form.files}; `prompt.safetensors` has what is added to the hidden states of its slots",
            load=TENSORS + form.load.removeprefix(TENSORS) + DEEPER,
            rows=form.rows + MORE[settings.kind],
        )
    return VIRTUAL_TOKENS if isinstance(settings, Soft) and settings.length != "query" else form


def transformers_lines(trained: TrainedMethod, form: Form) -> str:
    """A program that answers a query as the stage greedy-generate does, with transformers alone."""
    template, tokenizer = trained.prompt_template, trained.tokenizer
    parts = [repr(str(tokenizer.decode(tokens))) for tokens in (template.prefix, template.separator, [template.end])]
    front, letters = template.query_front, spelled_out(tokenizer)
    copied, embedded = for_people(tokenizer) is not tokenizer, "query" in form.rows
    load = form.load.splitlines(keepends=True)
    return LINES.format(
        prefix=template.prefix, separator=template.separator, end=template.end,
        imports="".join(line for line in load if line.startswith("from ")),
        load="".join(line for line in load if not line.startswith("from ")),
        parts=f"the token ids of {parts[0]}, {parts[1]} and {parts[2]}",
        dtype=str(trained.method.base.dtype).removeprefix("torch."),
        typed=TYPED if copied else "",
        tokenizer="typed" if copied else "tokenizer",
        text=f"{json.dumps(front.text)} + text" if front.text else "text",
        letters=LETTERS.format(letters=letters) if letters else "",
        behind=f"[{front.tokens}:]" if front.tokens else "",
        room=template.room(trained.lengths.max_query_tokens),
        rows=form.rows.replace("{slots}", str(trained.method.settings.slots(0) or "len(tokens)")),
        given="inputs_embeds" if embedded else "input_ids",
        after="" if embedded else "[rows.shape[1] :]",
        line=r'.partition("\n")[0]' if "\n" in template.text["end"] else "",
    )  # fmt: skip


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
