"""The lines of the exported README: plain transformers, and vLLM's prompt embeddings."""

import json

from stages.export.forms import Form
from stages.language_model.text_tokens import needs_copy, spelled_out
from stages.methods.trained_method import TrainedMethod

TRANSFORMERS = """\
import torch
from transformers import {classes}

FOLDER = "."  # this folder; from the hub: huggingface_hub.snapshot_download("OWNER/NAME")
PREFIX, SEPARATOR, END = {prefix}, {separator}, {end}  # {parts}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
{typed}model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.{dtype})
{load}

def rows_of(text):  # what the language model reads, [1, T, H]
    tokens = {tokenizer}({text}, add_special_tokens=False, split_special_tokens=True)["input_ids"]{behind}
{letters}    tokens = PREFIX + tokens[max(len(tokens) - {room}, 0) :] + SEPARATOR  # a long query loses its beginning
    query = model.get_input_embeddings()(torch.tensor([tokens]))
    return {rows}


@torch.inference_mode()
def respond(text):
    rows = rows_of(text)
    answer = model.generate(inputs_embeds=rows, attention_mask=torch.ones(rows.shape[:2], dtype=torch.long))
    tokens = [token for token in answer[0].tolist() if token != END]
    return " ".join(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).split())


print(respond("How was your day ?"))
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

VLLM = """\
from vllm import LLM, SamplingParams

llm = LLM(model=FOLDER, dtype="{dtype}", enable_prompt_embeds=True)
greedy = SamplingParams(temperature=0, max_tokens={limit}, stop_token_ids=[END])
rows = rows_of("How was your day ?")[0].detach()  # as above
print(llm.generate({{"prompt_embeds": rows}}, greedy)[0].outputs[0].text)
"""


def transformers_lines(trained: TrainedMethod, form: Form) -> str:
    """A program that answers a query as the stage greedy-generate does, with transformers alone."""
    prompt_template, decode = trained.prompt_template, trained.tokenizer.decode
    parts = [
        repr(str(decode(tokens)))
        for tokens in (prompt_template.prefix, prompt_template.separator, [prompt_template.end])
    ]
    front, copied, letters = prompt_template.query_front, needs_copy(trained.tokenizer), spelled_out(trained.tokenizer)
    return TRANSFORMERS.format(
        classes=", ".join(sorted([*form.classes, "AutoModelForCausalLM", "AutoTokenizer"])),
        prefix=prompt_template.prefix,
        separator=prompt_template.separator,
        end=prompt_template.end,
        parts=f"the token ids of {parts[0]}, {parts[1]} and {parts[2]}",
        dtype=dtype_of(trained),
        load="".join(f"{line}\n" for line in form.load),
        typed=TYPED if copied else "",
        tokenizer="typed" if copied else "tokenizer",
        text=f"{json.dumps(front.text)} + text" if front.text else "text",
        letters=LETTERS.format(letters=letters) if letters else "",
        behind=f"[{front.tokens}:]" if front.tokens else "",
        room=trained.lengths.max_query_tokens - len(prompt_template.prefix) - len(prompt_template.separator),
        rows=form.rows,
    )


def vllm_lines(trained: TrainedMethod) -> str:
    """The same through vLLM, continuing the lines above."""
    return VLLM.format(dtype=dtype_of(trained), limit=trained.lengths.max_new_tokens)


def dtype_of(trained: TrainedMethod) -> str:
    """The precision in which it answers: `float32`."""
    return str(trained.method.base.dtype).removeprefix("torch.")
