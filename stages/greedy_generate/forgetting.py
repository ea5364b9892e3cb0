"""What tuning destroys: how much worse the model reads text that it was not tuned on.

A frozen model keeps what it knows: that is the paper's motive for prompts (Sec. 1). So the model is read without a
prompt, but with whatever was trained of its own: word embeddings, LoRA's updates, everything. A prompt alone changes
nothing.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.language_model.base_model import Weights
from stages.language_model.text_tokens import text_tokens
from stages.methods.method import Method
from stages.methods.trained_method import TrainedMethod
from stages.params.schema import OF_SCIKIT_LEARN, Forgetting
from stages.plumbing.errors import StageError

BLOCK = 128  # tokens that are read together
BLOCKS_PER_PASS = 8
DRAWS = 10_000
KEY = "params.yaml: forgetting"


@dataclass(frozen=True)
class Passage:
    """The beginning of a text, in blocks of token ids [N, BLOCK]."""

    name: str
    sha256: str  # of the whole text
    blocks: Tensor


def passage_of(settings: Forgetting, text: str, tokenizer: PreTrainedTokenizerBase) -> Passage:
    """As many whole blocks of a text as `settings.tokens` are; `text` is what `read_text` gave, perhaps elsewhere.

    Raises:
        StageError: the text, or `tokens`, is shorter than two blocks.
    """
    (ids,) = text_tokens(tokenizer, [text])
    count = min(len(ids), settings.tokens) // BLOCK
    if count < 2:
        found = f"{min(len(ids), settings.tokens)} tokens"
        raise StageError(KEY, found, f"give a longer text, at least {2 * BLOCK} tokens")
    name = settings.text if settings.text == OF_SCIKIT_LEARN else Path(settings.text).name
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Passage(name, digest, torch.tensor(ids[: count * BLOCK]).view(count, BLOCK))


def read_text(settings: Forgetting) -> str:
    """The text that params.yaml names.

    Raises:
        StageError: the file is another one, or not text.
    """
    if settings.text == OF_SCIKIT_LEARN:
        folder = Path(str(distribution(OF_SCIKIT_LEARN).locate_file("sklearn/datasets/descr")))  # to import it is slow
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rst")))
    content = Path(settings.text).expanduser().read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != settings.sha256:
        raise StageError(f"{KEY}.sha256", f"{settings.text} has {found}", "correct it, or restore the file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise StageError(f"{KEY}.text", f"{settings.text} is not UTF-8", "name a text file in UTF-8") from None


def losses(method: Method, weights: Weights, blocks: Tensor) -> Tensor:
    """Cross-entropy of each block's tokens but the first, in nats a token: [N, BLOCK] -> [N], in float64."""
    own, found = method.prepared(weights), []
    with torch.inference_mode():
        for part in blocks.to(method.base.device).split(BLOCKS_PER_PASS):
            hidden = method.transformer.hidden(method.embed(own, part), weights=method.layers(own))
            logits = method.base.logits(hidden[:, :-1], method.output(own)).float()
            loss = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none")
            found.append(loss.view(len(part), -1).cpu().double().mean(dim=1))
    return torch.cat(found)


def forgetting(trained: TrainedMethod, untouched: Method, passage: Passage) -> dict[str, Any]:
    """The loss before and after tuning, their difference, and its 95 % interval by a bootstrap over blocks.

    untouched: a method that trains nothing, on the same base model.
    """
    blocks = passage.blocks
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
        "text": passage.name,
        "sha256": passage.sha256,
    }
