"""A trained method on disk and in use.

On disk: safetensors with only what was trained, and a small JSON that says what it belongs to. In use, here as in other
people's programs:

    trained = load_trained(Path("data/train"), Path("data/download/model"))
    trained.respond(["How was your day ?", "What do you do ?"])  # -> a response for each query
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.language_model.base_model import BaseModel
from stages.language_model.device import arithmetic, choose_device
from stages.language_model.encoding import encode_queries, to_text
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template, endings
from stages.methods.decoding import Decoded, Endings, RowLimit, decode_and_score
from stages.methods.few_shot import Nearest
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.params.methods import MethodSettings
from stages.params.schema import Lengths, Precision, Runtime
from stages.params.sources import PromptTemplateText
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, files_hash, scratch_folder, to_json
from stages.records import Pair, load_records

WEIGHTS = "weights.safetensors"
DESCRIPTION = "method.json"
PAIRS = "pairs.jsonl"  # the training pairs, where each query gets its own examples of them
TEMPLATE_TEXT = "prompt_template_text"  # in it: what the chat template, if it is one, gave when it was trained


def write_trained(folder: Path, weights: Path | None, description: dict[str, Any], pairs: Path) -> None:
    """Write the description into `folder`, and copy the trained weights, if any, and the pairs that are looked up."""
    if weights is not None:
        shutil.copyfile(weights, folder / WEIGHTS)
    if description["method"].get("choose") == "nearest":
        shutil.copyfile(pairs, folder / PAIRS)
    (folder / DESCRIPTION).write_text(to_json(description), encoding="utf-8")


def read_description(folder: Path, base_hash: str) -> dict[str, Any]:
    """The JSON beside a trained method's weights; raises StageError if it was trained on another base model."""
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if description["base_model"] != base_hash:
        found = f"it was trained on the base model {description['base_model'][:12]}, this one is {base_hash[:12]}"
        raise StageError(folder / DESCRIPTION, found, "run `dvc repro train`")
    return description


def read_trained(folder: Path, base: BaseModel, description: dict[str, Any]) -> tuple[Method, dict[str, Tensor]]:
    """The method and its trained tensors on the base model's device.

    Raises:
        StageError: the weights are not those of the method; the message names the first that is missing, unknown or
            of another shape.
    """
    path = folder / WEIGHTS
    try:
        settings = TypeAdapter(MethodSettings).validate_python(description["method"])
        tensors = load_file(path) if path.exists() else {}
    except (ValidationError, SafetensorError) as error:
        raise StageError(folder, f"not a trained method ({error})", "run `dvc repro train`") from None
    method = build_method(base, settings)
    expected = method.shapes()
    for name in sorted(expected.keys() | tensors.keys()):
        missing, known = name not in tensors, name in expected
        if missing or not known or (method.trains and tensors[name].shape != expected[name]):
            found = f"{name} is {'missing' if missing else 'unknown or of another shape'}"
            raise StageError(path, found, "run `dvc repro --force train`")
    return method, {name: tensor.to(base.device) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class TrainedMethod:
    """A trained method on its base model, ready to answer. N queries are texts; all decoding is greedy (App. B)."""

    method: Method
    weights: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerBase
    prompt_template: PromptTemplate
    lengths: Lengths  # that it was trained with, in tokens
    description: dict[str, Any]  # what the stage train wrote beside the weights
    ends: Endings  # the tokens at which an answer ends
    row_limit: RowLimit
    nearest: Nearest | None = None  # where each query gets its own examples

    def respond(self, queries: Sequence[str]) -> list[str]:
        """Responses to N queries, [N], each on one line: what the stage greedy-generate writes for these queries."""
        return self.texts(self.decode_and_score(self.encode(queries)[0]).answers)

    def encode(self, queries: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of N queries, [N][at most lengths.max_query_tokens], and how many were cut.

        With examples of their own in front, if they get some; these are not counted in that length.
        """
        found, cut = encode_queries(queries, self.tokenizer, self.prompt_template, self.lengths)
        if self.nearest is not None:
            found = self.nearest.in_front(self.method.base, queries, found, self.description["examples"])
        return found, cut

    def decode_and_score(
        self,
        queries: Sequence[list[int]],
        references: Sequence[list[int]] | None = None,
        tick: Callable[[int], None] = lambda ended: None,
        heard: Callable[[int, int], None] = lambda row, token: None,
        answer: bool = True,
    ) -> Decoded:
        """The responses to N encoded queries, if wanted, and the losses of N references, if there are any."""
        limit, ends, rows = self.lengths.max_new_tokens if answer else 0, self.ends, self.row_limit
        return decode_and_score(self.method, self.weights, queries, references, limit, ends, rows, tick, heard)

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Token ids of N responses as texts, [N]."""
        return [to_text(answer, self.tokenizer) for answer in answers]


def load_trained(
    trained: Path,
    model: Path,
    runtime: Runtime | None = None,
    precision: Precision = "float32",
    check: Callable[[dict[str, Any]], None] = lambda description: None,
    beside: Sequence[TrainedMethod] = (),
) -> TrainedMethod:
    """Load a trained method and its base model.

    Args:
        trained: folder of the stage train.
        model: folder of the base model, of the stage download.
        runtime: the table `runtime` of params.yaml; None is its `auto`, with as many threads as there are cores.
        precision: of the arithmetic, `decoding_dtype` of a protocol.
        check: called with what the stage train wrote beside the weights, before anything slow; raises to refuse it.
        beside: others that are loaded; with one on the same base model this one shares its frozen parameters.

    Raises:
        StageError: a file is missing or damaged, or it was trained on another base model.
    """
    runtime = runtime or Runtime(
        device="auto", threads=0, generation_batch_size=0, engine="local", address=None, gpus_per_trial=1,
        checkpoints=None,
    )  # fmt: skip
    check_folder(trained)
    description = read_description(trained, files_hash(check_folder(model)))
    check(description)
    device = choose_device(runtime)
    dtype = arithmetic(precision, device)
    twins = [one.method.base for one in beside if one.description["base_model"] == description["base_model"]]
    shared = next((base for base in twins if (base.device.type, base.dtype) == (device.type, dtype)), None)
    base = shared or load_base_model(model, device, dtype)
    tokenizer = load_tokenizer(model)
    try:
        lengths = Lengths.model_validate(description["lengths"])
        written = description.get(TEMPLATE_TEXT, description["prompt_template"])
        text = written if isinstance(written, str) else PromptTemplateText.model_validate(written)
    except (KeyError, ValidationError) as error:
        raise StageError(trained / DESCRIPTION, f"not a trained method ({error})", "run `dvc repro train`") from None
    prompt_template = build_prompt_template(tokenizer, text, lengths, f"{trained / DESCRIPTION}: prompt_template")
    method, weights = read_trained(trained, base, description)
    nearest = None
    if (trained / PAIRS).exists():
        with scratch_folder() as scratch:
            nearest = Nearest(load_records(trained / PAIRS, Pair, scratch), tokenizer, prompt_template, lengths)
    ends, rows = endings(tokenizer, prompt_template, base), RowLimit(runtime.generation_batch_size)
    return TrainedMethod(method, weights, tokenizer, prompt_template, lengths, description, ends, rows, nearest)
