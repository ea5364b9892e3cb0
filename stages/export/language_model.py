"""The complete language model, with what was trained in it, as a folder that plain transformers loads."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from stages.methods.trained_method import TrainedMethod


def write_language_model(trained: TrainedMethod, model: Path, folder: Path) -> None:
    """Write configuration, generation configuration, weights (safetensors, float32) and tokenizer into `folder`.

    What the base model ties stays tied, because E is trained as both. Answers end at the prompt template's own end, and
    are at most as long as the method was trained with; both stand in the generation configuration.

    Args:
        trained: the method.
        model: folder of its base model.
        folder: where to write.
    """
    whole: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    own = trained.method.language_model(trained.weights)
    left = whole.load_state_dict({name: value.float().cpu() for name, value in own.items()}, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    end = trained.prompt_template.end
    whole.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end, do_sample=False, max_new_tokens=trained.lengths.max_new_tokens
    )
    whole.save_pretrained(folder)
    trained.tokenizer.save_pretrained(folder)
