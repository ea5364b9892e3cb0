"""What tuning destroys: how much worse the model reads text that it was not tuned on.

A frozen model keeps what it knows: that is the paper's motive for prompts (Sec. 1). So the model is read without a
prompt, but with whatever was trained of its own: word embeddings, LoRA's updates, everything. A prompt alone changes
nothing.
"""

import hashlib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.language_model.base_model import Weights
from stages.language_model.row_format import text_tokens
from stages.methods.method import Method
from stages.methods.trained_method import TrainedMethod
from stages.params.schema import Forgetting
from stages.plumbing.errors import StageError

OF_SCIKIT_LEARN = "scikit-learn"  # its descriptions of data sets: English prose that every installation has
BLOCK = 128  # tokens that are read together
BLOCKS_PER_PASS = 8
DRAWS = 10_000
KEY = "params.yaml: forgetting"


def read_text(name: str) -> str:
    """The text that params.yaml names.

    Raises:
        StageError: the file is not there, or not text.
    """
    if name == OF_SCIKIT_LEARN:
        folder = Path(str(distribution(name).locate_file("sklearn/datasets/descr")))  # to import it takes seconds
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rst")))
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{KEY}.text", f"{name} cannot be read ({error})", "name a text file in UTF-8") from None


def blocks_of(text: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> Tensor:
    """Token ids of the beginning of a text, [N, BLOCK]: as many whole blocks as `tokens` are.

    Raises:
        StageError: the text, or `tokens`, is shorter than two blocks.
    """
    (ids,) = text_tokens(tokenizer, [text])
    count = min(len(ids), tokens) // BLOCK
    if count < 2:
        raise StageError(KEY, f"{min(len(ids), tokens)} tokens", f"give a longer text, at least {2 * BLOCK} tokens")
    return torch.tensor(ids[: count * BLOCK]).view(count, BLOCK)


def losses(method: Method, weights: Weights, blocks: Tensor) -> Tensor:
    """Cross-entropy of each block's tokens but the first, in nats a token: [N, BLOCK] -> [N], in float64."""
    own, found = method.prepared(weights), []
    with torch.inference_mode():
        for part in blocks.to(method.base.device).split(BLOCKS_PER_PASS):
            hidden = method.transformer.hidden(method.embed(own, part), weights=method.layers(own))
            logits = method.base.logits(hidden[:, :-1], method.output(own)).float()
            loss = F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
            found.append(loss.double().mean(dim=1).cpu())
    return torch.cat(found)


def forgetting(trained: TrainedMethod, untouched: Method, settings: Forgetting, text: str) -> dict[str, Any]:
    """The loss before and after tuning, their difference, and its 95 % interval by a bootstrap over blocks.

    untouched: a method that trains nothing, on the same base model. text: what `read_text` gave for the settings,
    perhaps on another machine.
    """
    blocks = blocks_of(text, trained.tokenizer, settings.tokens)
    before = losses(untouched, {}, blocks)
    changed = trained.method.language_model(trained.weights)
    after = losses(trained.method, trained.weights, blocks) if changed else before
    difference = (after - before).numpy()
    drawn = np.random.default_rng(0).integers(len(difference), size=(DRAWS, len(difference)))
    interval = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
    return {
        "loss_before": round(float(before.mean()), 4),
        "loss_after": round(float(after.mean()), 4),
        "difference": round(float(difference.mean()), 4),
        "interval": [round(float(end), 4) for end in interval],
        "tokens": blocks.numel(),
        "text": settings.text if settings.text == OF_SCIKIT_LEARN else Path(settings.text).name,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
