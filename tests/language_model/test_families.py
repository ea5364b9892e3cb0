"""Tiny models of many architectures: they give the same results as transformers, or loading refuses them."""

import math
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from stages.language_model.base_model import BaseModel
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import load_base_model
from stages.methods.decoding import decode_and_score
from stages.methods.dynamic import DynamicMethod
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.params.methods import Dynamic
from stages.plumbing.errors import StageError
from tests.models import SETTINGS, learner, loss_of, moved_weights, weights
from tests.scratch import new_folder

CPU = torch.device("cpu")
VOCABULARY, LIMIT = 96, 4
WINDOW = 4  # tokens that a layer with a sliding window sees
LLAMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
HEADS = {**LLAMA, "head_dim": 8}
GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
OPT: dict[str, Any] = {
    "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
    "word_embed_proj_dim": 16,
}  # fmt: skip
NEO: dict[str, Any] = {
    "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
    "max_position_embeddings": 64,
}  # fmt: skip
XGLM = {"d_model": 16, "ffn_dim": 32, "num_layers": 2, "attention_heads": 2, "max_position_embeddings": 64}
Kind = tuple[str, dict[str, Any]]  # what transformers calls it, its configuration
FAMILIES: dict[str, Kind] = {
    "gpt2": ("gpt2", GPT),
    "llama": ("llama", LLAMA),
    "qwen2": ("qwen2", LLAMA),
    "qwen3": ("qwen3", HEADS),
    "opt-125m": ("opt", OPT),
    "opt-350m": ("opt", {**OPT, "hidden_size": 32, "do_layer_norm_before": False}),
    "mistral": ("mistral", {**HEADS, "sliding_window": 64}),
    "phi-3": ("phi3", LLAMA),
    "smollm3": ("smollm3", {**LLAMA, "no_rope_layers": [1, 0]}),
    "olmo-2": ("olmo2", LLAMA),
    "stablelm": ("stablelm", LLAMA),
    "gpt-neo": ("gpt_neo", NEO),
    "gpt-j": ("gptj", {**GPT, "rotary_dim": 4}),
    "gpt-bigcode": ("gpt_bigcode", GPT),
    "falcon": ("falcon", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}),
    "gpt-neox": ("gpt_neox", {key: value for key, value in LLAMA.items() if key != "pad_token_id"}),
    "gpt-oss": ("gpt_oss", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("gemma", HEADS),
    "gemma-3": ("gemma3_text", {**HEADS, "sliding_window": 64}),
    "mistral, rows longer than its window": ("mistral", {**HEADS, "sliding_window": WINDOW}),
    "gemma-3, rows longer than its window": (
        "gemma3_text", {**HEADS, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gpt-neo, rows longer than its window": ("gpt_neo", {**NEO, "window_size": WINDOW}),
    "xglm": ("xglm", XGLM),
    "bloom": ("bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
}  # fmt: skip
NO_CACHE, NO_KEYS = "cannot decode with a cache of keys and values", "layers that keep no keys and values"
LINEAR = dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2)
LINEAR |= dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8)
PER_LAYER = {"global_head_dim": 8, "hidden_size_per_layer_input": 4, "num_kv_shared_layers": 0}
REFUSED: dict[str, tuple[Kind, str]] = {
    "qwen-3.5": (
        ("qwen3_5_text", {**HEADS, **LINEAR, "layer_types": ["linear_attention", "full_attention"]}), NO_CACHE,
    ),
    "lfm2": (("lfm2", {**LLAMA, "layer_types": ["conv", "full_attention"]}), NO_CACHE),
    "mamba": (("mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}), NO_KEYS),
    "openai-gpt": (("openai-gpt", GPT), NO_KEYS),
    "gemma-2": (("gemma2", {**HEADS, "final_logit_softcapping": 30.0}), "caps its logits"),
    "gemma-4": (
        ("gemma4_text", {**HEADS, **PER_LAYER, "vocab_size_per_layer_input": VOCABULARY}),
        "cannot read word embeddings that are not its own",
    ),
}  # fmt: skip
# OPT-350m has projections around its layers, XGLM adds positions that no weight holds.
NO_IDENTITY = ("opt-350m", "xglm")
KINDS = (
    "zero-shot", "fine-tune", "embeddings", "lora", "soft", "prompt-tuning", "soft-deep", "dynamic", "dynamic-deep",
)  # fmt: skip
PROMPTS = ("soft", "dynamic", "dynamic-first-layers")
SEVERAL_KINDS: dict[str, Kind] = {
    "gemma-2": ("gemma2", {**HEADS, "sliding_window": 64, "final_logit_softcapping": None}),
    "qwen2-sliding": ("qwen2", {**LLAMA, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}),
}


def side(length: int, seed: int) -> list[int]:
    tokens: list[int] = torch.randint(1, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [*tokens, 0]


PAIRS = [EncodedPair(side(query, query), side(answer, 9 + answer)) for query, answer in ((5, 2), (1, 4), (3, 1))]


def random_model(kind: Kind) -> Path:
    """Make a folder with a random model whose answers depend on all its weights."""
    config = AutoConfig.for_model(kind[0], vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **kind[1])
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    for value in model.parameters():
        noise = torch.randn_like(value)
        value.data = 0.6 * noise if value.dim() > 1 else value.data + 0.1 * noise
    model.get_input_embeddings().weight.data *= 0.25  # otherwise an answer depends only on the last token
    torch.random.set_rng_state(state)
    folder = new_folder("family-")
    model.save_pretrained(folder)
    return folder


@cache
def family_folder(name: str) -> Path:
    return random_model((FAMILIES | SEVERAL_KINDS)[name])


@cache
def family(name: str) -> BaseModel:
    return load_base_model(family_folder(name), CPU, torch.float32)


@cache
def plain_model(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(family_folder(name), attn_implementation="eager").eval()


def eager_model(name: str, one: Method, own: dict[str, Tensor]) -> Any:
    """The unchanged transformers model with its plainest attention and the trained weights of a trial."""
    model = deepcopy(plain_model(name))
    if "embeddings" in own:
        model.get_input_embeddings().weight.data = own["embeddings"]
    else:
        model.load_state_dict(dict(one.language_model(own)), strict=False)
    model.tie_weights()
    return model.requires_grad_(False)


def deeper(model: Any, own: dict[str, Tensor], prompt: Tensor) -> list[Any]:
    """Hooks that change what each layer but the last one writes where the slots are."""
    body = getattr(model.base_model, "decoder", model.base_model)
    layers, slots = body.h if hasattr(body, "h") else body.layers, prompt.shape[1]
    centred = prompt - prompt.mean(dim=-1, keepdim=True)
    normal = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()

    def after(number: int, layer: Any, given: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        if "depth" in own:
            hidden[:, :slots] += own["depth"][number, :slots]
        else:
            hidden[:, :slots] += torch.tanh(normal @ own["depth.down"].T) @ own["depth.up"][number].T
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return [layer.register_forward_hook(partial(after, number)) for number, layer in enumerate(layers[:-1])]


def eager_logits(model: Any, one: Method, own: dict[str, Tensor], query: list[int], answer: list[int]) -> Tensor:
    """The logits that predict each token of the answer, and one more, from one full forward pass without a cache."""
    words = model.get_input_embeddings()(torch.tensor([[*query, *answer]]))
    if not one.settings.slots(1):
        logits = model(input_ids=torch.tensor([[*query, *answer]])).logits
    else:
        prompt = one.prompt(own, words[:, : len(query)])
        hooks = deeper(model, own, prompt) if any(name.startswith("depth") for name in own) else []
        logits = model(inputs_embeds=torch.cat([prompt, words], dim=1)).logits
        for hook in hooks:
            hook.remove()
    return logits[0, -1 - len(answer) :]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_greedy_tokens_equal_an_eager_computation(name: str) -> None:
    said = set()
    queries, references = [pair.query for pair in PAIRS], [pair.response for pair in PAIRS]
    for kind in KINDS:
        one = build_method(family(name), SETTINGS[kind])
        own = moved_weights(one)
        model = eager_model(name, one, own)
        loss = loss_of(one, own, PAIRS)
        decoded = decode_and_score(one, own, queries, references, LIMIT, {-1: []})
        expected = torch.zeros(())
        for query, reference, answer in zip(queries, references, decoded.answers, strict=True):
            logits = eager_logits(model, one, own, query, reference)[:-1]
            expected += F.cross_entropy(logits, torch.tensor(reference), reduction="sum")
            # Each token is the likeliest behind those before it: so is the greedy answer, by induction.
            assert eager_logits(model, one, own, query, answer)[:-1].argmax(dim=-1).tolist() == answer, kind
            assert len(answer) == LIMIT
            said.add(tuple(answer))
        assert torch.allclose(loss, expected, rtol=1e-4), kind
        assert float(decoded.losses.sum()) == pytest.approx(float(expected), rel=1e-4), kind
    assert len(said) > 4


@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_takes_a_step_in_both_precisions(name: str) -> None:
    coarse = load_base_model(family_folder(name), CPU, torch.bfloat16)
    for kind in ("fine-tune", "lora", "soft-deep", "dynamic-deep"):
        initial = weights(build_method(family(name), SETTINGS[kind]))
        for base in (family(name), coarse):
            trial = learner(build_method(base, SETTINGS[kind]), initial)
            assert math.isfinite(trial.step(PAIRS, 0, 1e-2)), kind
            # LoRA's A has no gradient while B is zero: it moves from the second step on. So does `down`.
            still = ("lora_A", "depth.down")
            moving = {key: value for key, value in trial.weights.items() if not any(name in key for name in still)}
            unchanged = [key for key, value in moving.items() if torch.equal(value, initial[key])]
            assert not unchanged, kind


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_start_at_the_size_of_words_and_the_identity_start_gives_each_word_or_is_refused(name: str) -> None:
    base = family(name)
    words = base.embed(torch.arange(1, 17).unsqueeze(0))
    size = base.words().square().mean().sqrt()  # as the layers read them
    for kind in PROMPTS:
        method = build_method(base, SETTINGS[kind])
        prompt = method.prompt(weights(method), words)
        assert 0.8 < float(prompt.square().mean().sqrt() / size) < 1.25, kind
    one = build_method(base, SETTINGS["dynamic-identity"])
    if name in NO_IDENTITY:
        with pytest.raises(StageError, match=r"init: identity, which .* cannot start from; set it to random"):
            weights(one)
        return
    prompt = one.prompt(weights(one), words)
    assert torch.allclose(prompt.square().mean(dim=-1).sqrt(), size.expand(1, 16), rtol=0.05)
    before, after = (rows - rows.mean(dim=-1, keepdim=True) for rows in (words, prompt))
    assert bool((F.cosine_similarity(before, after, dim=-1) > 0.99).all())


@pytest.mark.parametrize("name", [*FAMILIES, *SEVERAL_KINDS])
def test_a_controller_of_more_layers_than_the_model_repeats_the_model_s_kinds_of_layers(name: str) -> None:
    base = family(name)
    one = build_method(base, Dynamic(kind="dynamic", layers=5, init="random", train_embeddings=True))
    prompt = one.prompt(weights(one), base.embed(torch.arange(1, 17).unsqueeze(0)))
    assert prompt.shape == (1, 16, base.width) and bool(prompt.isfinite().all())
    assert isinstance(one, DynamicMethod)
    for key in ("layer_types", "attention_layers", "no_rope_layers"):
        own, whole = (getattr(each.config, key, None) for each in (one.controller, base.model))
        assert own == (whole and [whole[layer % 2] for layer in range(5)]), key


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_prompted_or_decoded_is_refused_in_one_line_when_it_is_loaded(name: str) -> None:
    kind, found = REFUSED[name]
    folder = random_model(kind)
    with pytest.raises(StageError, match=rf"^{folder}: .*{found}.*; use a model of another architecture$") as error:
        load_base_model(folder, CPU, torch.float32)
    assert "\n" not in str(error.value)


def test_a_controller_whose_size_no_weight_decides_is_refused_and_the_other_methods_work() -> None:
    """The first OLMo models have normalisation without weights."""
    folder = random_model(("olmo", LLAMA))
    base = load_base_model(folder, CPU, torch.float32)
    assert build_method(base, SETTINGS["soft"])
    with pytest.raises(StageError, match=f"^{folder}: OlmoModel cannot generate prompts .*; use another method"):
        build_method(base, SETTINGS["dynamic"])


def test_the_first_layers_are_the_language_model_s_and_bring_bloom_s_embedding_normalisation() -> None:
    own = weights(build_method(family("bloom"), SETTINGS["dynamic-first-layers"]))
    model = dict(family("bloom").model.base_model.named_parameters())
    for name in ("word_embeddings_layernorm.weight", "h.0.mlp.dense_h_to_4h.weight"):
        assert torch.equal(own[f"controller.{name}"], model[name])
    assert len(own["controller.ln_f.weight"].unique()) == 1
