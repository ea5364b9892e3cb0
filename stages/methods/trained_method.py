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

from stages.language_model.device import arithmetic, choose_device
from stages.language_model.encoding import encode_queries, to_text
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template, endings
from stages.methods.decoding import Decoded, Endings, RowLimit, decode_and_score
from stages.methods.few_shot import Nearest
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.params.methods import MethodSettings
from stages.params.schema import Lengths, Params, Runtime
from stages.params.sources import PromptTemplateText, as_json
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, files_hash, scratch_folder, to_json
from stages.records import Pair, load_records

WEIGHTS = "weights.safetensors"
DESCRIPTION = "method.json"
PAIRS = "pairs.jsonl"  # the training pairs, where each query gets its own examples of them
TEMPLATE_TEXT = "prompt_template_text"  # in it: what the chat template, if it is one, gave when it was trained
RETRAIN = "run `dvc repro train`"
ANYWHERE = Runtime(
    device="auto", threads=0, generation_batch_size=0, engine="local", address=None, gpus_per_trial=1, checkpoints=None
)


def write_trained(folder: Path, weights: Path | None, description: dict[str, Any], pairs: Path) -> None:
    """Write the description into `folder`, and copy the trained weights, if any, and the pairs that are looked up."""
    if weights is not None:
        shutil.copyfile(weights, folder / WEIGHTS)
    if description["method"].get("choose") == "nearest":
        shutil.copyfile(pairs, folder / PAIRS)
    (folder / DESCRIPTION).write_text(to_json(description), encoding="utf-8")


def read_description(folder: Path, base_hash: str, params: Params | None = None) -> dict[str, Any]:
    """The JSON beside a trained method's weights.

    A chat template that another version of the library reads in another way is no other: rows stay as trained.

    Raises:
        StageError: a file is missing or damaged; it was trained on another base model, or with other lengths (rows of a
            prompt would lack) or another prompt template than `params` has.
    """
    check_folder(folder)
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if description["base_model"] != base_hash:
        found = f"it was trained on the base model {description['base_model'][:12]}, this one is {base_hash[:12]}"
        raise StageError(folder / DESCRIPTION, found, RETRAIN)
    if params is None:
        return description
    for name, now in params.chosen_protocol.lengths.model_dump().items():
        if now != (then := description["lengths"].get(name)):
            found = f"{now}, but {folder} was trained with {then}"
            raise StageError(f"params.yaml: protocols.{params.protocol}.lengths.{name}", found, RETRAIN)
    if as_json(params.chosen_model.prompt_template) != description["prompt_template"]:
        key = f"params.yaml: models.{params.model}.prompt_template"
        raise StageError(key, f"{folder} was trained with another one", RETRAIN)
    return description


def check_weights(path: Path, method: Method, tensors: dict[str, Tensor]) -> None:
    """Raise StageError that names the first tensor of a file that is missing, unknown or of another shape."""
    expected = method.shapes()
    for name in sorted(expected.keys() | tensors.keys()):
        missing, known = name not in tensors, name in expected
        if missing or not known or (method.trains and tensors[name].shape != expected[name]):
            found = f"{name} is {'missing' if missing else 'unknown or of another shape'}"
            raise StageError(path, found, "run `dvc repro --force train`")


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
        return self.texts(self.decode_and_score(self.encode(queries)).answers)

    def encode(self, queries: Sequence[str]) -> list[list[int]]:
        """Token ids of N queries, [N][at most lengths.max_query_tokens].

        With examples of their own in front, if they get some; these are not counted in that length.
        """
        found = encode_queries(queries, self.tokenizer, self.prompt_template, self.lengths)
        if self.nearest is None or not queries:
            return found
        return self.nearest.in_front(self.method.base, queries, found, self.description["examples"])

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
    trained: Path, model: Path, params: Params | None = None, beside: Sequence[TrainedMethod] = ()
) -> TrainedMethod:
    """Load a trained method and its base model.

    Args:
        trained: folder of the stage train.
        model: folder of the base model, of the stage download.
        params: where it runs, and the precision of decoding; None: in float32, on any device, with all threads.
        beside: others that are loaded; with one on the same base model this one shares its frozen parameters.

    Raises:
        StageError: a file is missing or damaged, or it was trained otherwise (`read_description`).
    """
    description = read_description(trained, files_hash(check_folder(model)), params)
    runtime = params.runtime if params else ANYWHERE
    device = choose_device(runtime)
    dtype = arithmetic(params.chosen_protocol.decoding_dtype if params else "float32", device)
    twins = [one.method.base for one in beside if one.description["base_model"] == description["base_model"]]
    shared = next((base for base in twins if (base.device.type, base.dtype) == (device.type, dtype)), None)
    base = shared or load_base_model(model, device, dtype)
    tokenizer = load_tokenizer(model)
    try:
        settings: MethodSettings = TypeAdapter(MethodSettings).validate_python(description["method"])
        tensors = load_file(trained / WEIGHTS) if (trained / WEIGHTS).exists() else {}
        lengths = Lengths.model_validate(description["lengths"])
        written = description.get(TEMPLATE_TEXT, description["prompt_template"])
        text = written if isinstance(written, str) else PromptTemplateText.model_validate(written)
    except (KeyError, ValidationError, SafetensorError) as error:
        raise StageError(trained, f"not a trained method ({error})", RETRAIN) from None
    prompt_template = build_prompt_template(tokenizer, text, lengths, f"{trained / DESCRIPTION}: prompt_template")
    method = build_method(base, settings)
    check_weights(trained / WEIGHTS, method, tensors)
    weights = {name: tensor.to(base.device) for name, tensor in tensors.items()}
    nearest = None
    if (trained / PAIRS).exists():
        with scratch_folder() as scratch:
            nearest = Nearest(load_records(trained / PAIRS, Pair, scratch), tokenizer, prompt_template, lengths)
    ends, rows = endings(tokenizer, prompt_template, base), RowLimit(runtime.generation_batch_size)
    return TrainedMethod(method, weights, tokenizer, prompt_template, lengths, description, ends, rows, nearest)
