"""What each method trains, and the prompts it makes."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.language_model.base_model import BaseModel
from stages.methods.registry import build_method
from stages.params.methods import Lora
from stages.plumbing.errors import StageError
from tests.models import FAMILIES, SETTINGS, base_model, learner, loss_of, method, pairs, weights

TRAINED = [name for name in SETTINGS if name not in ("zero-shot", "few-shot")]


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("name", [*TRAINED, "zero-shot"])
def test_the_shapes_are_those_of_the_first_weights(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    expected = {key: value.shape for key, value in weights(one).items()}
    assert one.shapes() == expected
    assert ("lm_head.weight" in expected) == (name == "fine-tune" and not tied), "tied weights are stored once"
    with torch.device("meta"):  # as it is asked before weights are read
        model = AutoModelForCausalLM.from_config(one.base.model.config)
    assert build_method(BaseModel(model), SETTINGS[name]).shapes() == expected


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("name", TRAINED)
def test_two_optimizer_steps_change_exactly_the_method_s_parameters(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    frozen = {key: value.clone() for key, value in one.base.model.state_dict().items()}
    trial = learner(one)
    before = {key: value.detach().clone() for key, value in trial.weights.items()}
    for step in range(2):  # from an identity start, the first step only moves what writes to the residual stream
        trial.step(pairs(4), step, 1e-2)
    assert {key for key, value in trial.weights.items() if not torch.equal(value, before[key])} == set(before)
    for key, value in one.base.model.state_dict().items():
        assert torch.equal(value, frozen[key]), key


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["dynamic", "dynamic-first-layers"])
def test_dynamic_prompts_differ_between_queries_and_depend_on_earlier_tokens_only(name: str, family: str) -> None:
    one = method(name, family)
    own = weights(one)
    query = torch.tensor([[5, 6, 7, 8, 9]])
    other_end = torch.tensor([[5, 6, 7, 99, 98]])
    prompt = one.prompt(own, one.embed(own, query))
    changed = one.prompt(own, one.embed(own, other_end))
    assert prompt.shape == (1, 5, one.base.width)
    assert torch.allclose(prompt[:, :3], changed[:, :3], atol=1e-6)
    assert not torch.allclose(prompt[:, 3:], changed[:, 3:], atol=1e-3)


def test_lora_s_dropout_acts_in_training_steps_and_nowhere_else() -> None:
    base = base_model()
    one = build_method(base, Lora(kind="lora", rank=4, alpha=8, dropout=0.5, target_modules=["c_attn"]))
    own = {name: value + 0.1 for name, value in weights(one).items()}

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(loss_of(one, own, pairs(4)))

    assert loss(0) == loss(1)
    one.dropout(True)
    assert loss(0) != loss(1)
    assert not base.model.training and not [each for each in base.model.modules() if each.training]
    learner(one, own).step(pairs(4), 0, 1e-3)
    assert loss(0) == loss(1)


@pytest.mark.parametrize("targets", [["c_attn"], ["q_proj", "v_porj"], ["q_proj", "lm_head"], ["embed_tokens"]])
def test_lora_refuses_names_that_the_model_does_not_have_and_layers_that_it_would_not_use(targets: list[str]) -> None:
    settings = Lora(kind="lora", rank=4, alpha=8, dropout=0.0, target_modules=targets)
    with pytest.raises(StageError, match=rf"target_modules: .*{targets[-1]}.*; name "):
        build_method(base_model("llama", tied=False), settings)


def test_lora_leaves_the_base_model_to_other_methods_as_it_was() -> None:
    base = base_model()
    names = [name for name, _ in base.model.named_modules()]
    build_method(base, SETTINGS["lora"])
    assert [name for name, _ in base.model.named_modules()] == names
    shared = {id(value) for value in base.model.parameters()}
    kept = [each for each in build_method(base, SETTINGS["lora"]).transformer.model.parameters() if id(each) in shared]
    assert len(kept) == len(shared)  # no copy of the frozen weights


def test_the_same_seed_gives_the_same_start() -> None:
    for name in ("soft", "soft-vocabulary", "dynamic"):
        one = method(name)
        first, same, other = weights(one, 1), weights(one, 1), weights(one, 2)
        assert all(torch.equal(first[key], same[key]) for key in first)
        assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_soft_prompt_from_the_vocabulary_is_made_of_word_embeddings() -> None:
    one = method("soft-vocabulary")
    is_a_row = (weights(one)["prompt"].unsqueeze(1) == one.base.embeddings.float()).all(dim=-1)  # [P, V]
    assert bool(is_a_row.any(dim=1).all())
