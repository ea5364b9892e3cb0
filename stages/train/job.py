"""A training as a value, and what its trials have in common once it is loaded."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from stages.language_model.base_model import BaseModel
from stages.language_model.cpu_linear import put_aside
from stages.language_model.device import arithmetic, choose_device, library_versions, versions
from stages.language_model.loading import empty_model, load_base_model, load_tokenizer
from stages.language_model.memory import free_memory
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template, endings
from stages.methods.decoding import RowLimit
from stages.methods.few_shot import Nearest, fitting, window_of
from stages.methods.method import Method
from stages.methods.registry import METHODS, build_method
from stages.methods.trained_method import TrainedMethod
from stages.params.methods import Dynamic, FewShot, Prefix
from stages.params.schema import Params, Protocol
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, files_hash
from stages.train.examples import PAIRS, Examples, load_examples
from stages.train.state import code_hash

VALUES = 4 * 4  # bytes of a trained number: weight, gradient and the two moments of Adam, each in float32
GB = 1e9


@dataclass(frozen=True)
class Job:
    """A training: everything that its result depends on, and where subset and base model are."""

    params: Params
    subset: Path
    model: Path
    data_hash: str
    base_hash: str
    prompt_template: PromptTemplate
    code: str = field(default_factory=code_hash)

    def rates(self) -> list[float]:
        """What its trials try, in ascending order: learning rates; of few-shot numbers of examples; of zero-shot 0."""
        if self.params.chosen_method.kind == "zero-shot":
            return [0.0]
        if isinstance(self.params.chosen_method, FewShot):
            return sorted(map(float, {*self.params.chosen_method.examples}))
        return self.params.chosen_protocol.training.learning_rates.values()

    def environment(self) -> dict[str, Any]:
        """What the last bits of a result depend on, in this process."""
        device = choose_device(self.params.runtime)
        return versions(device, arithmetic(self.params.chosen_protocol.training.dtype, device))

    def fingerprint(self, rate: float, environment: dict[str, Any] | None) -> str:
        """The name of one of its trials; `environment` is None if it may move from one to another."""
        protocol = self.params.chosen_protocol.model_dump(exclude={"data": True, "training": {"learning_rates"}})
        facts = {
            "data": self.data_hash, "model": self.base_hash, "prompt_template": asdict(self.prompt_template),
            "method": self.params.chosen_method.model_dump(exclude={"learning_rate", "examples"}), "searched": rate,
            "seed": self.params.seed, "protocol": protocol, "code": self.code, "environment": environment,
            "libraries": library_versions(),
        }  # fmt: skip
        return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:24]


def read_job(subset: Path, model: Path, params: Params) -> Job:
    """Check the inputs; StageError if one is damaged, or the base model cannot take the rows or the method."""
    files = check_folder(subset)["files"]
    read = {name: files[name] for name in PAIRS if name in files}  # with other test pairs it is the same training
    data_hash = files_hash({"files": read})
    base_hash, empty = files_hash(check_folder(model)), empty_model(model)
    check_fit(empty.config, params)
    lengths, text = params.chosen_protocol.lengths, params.chosen_model.prompt_template
    tokenizer = load_tokenizer(model)
    prompt_template = build_prompt_template(tokenizer, text, lengths, template_key(params))
    own = [*prompt_template.prefix, *prompt_template.separator, prompt_template.end]
    known, needed = len(BaseModel(empty).embeddings), max(tokenizer.vocab_size, 1 + max(own))
    if needed > known:  # added tokens that nothing uses may be more: Gemma 3 has one for images
        found = f"{known} embeddings for {needed} tokens of its tokenizer"
        raise StageError(model, found, "use the files of one model")
    return Job(params, subset, model, data_hash, base_hash, prompt_template)


def template_key(params: Params) -> str:
    """Where the prompt template stands, for errors."""
    return f"params.yaml: models.{params.model}.prompt_template"


def check_fit(config: PretrainedConfig, params: Params) -> None:
    """StageError if rows are longer than the positions of a model or its window, or it has too few first layers."""
    lengths, settings = params.chosen_protocol.lengths, params.chosen_method
    longest = settings.slots(lengths.max_query_tokens) + lengths.max_query_tokens + lengths.max_new_tokens
    in_front = settings.length if isinstance(settings, Prefix) else 0
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and in_front + longest > positions:
        found = f"prompt, query and response are up to {in_front + longest} tokens, the model takes {positions}"
        remedy = "lower max_query_tokens, max_new_tokens or what the method puts in front"
        raise StageError(f"params.yaml: protocols.{params.protocol}.lengths", found, remedy)
    window = window_of(config)
    if in_front and window and in_front + longest > window:  # it counts columns, padding and all
        found = f"{in_front} before rows of up to {longest} tokens, the model's window is {window}"
        raise StageError(f"params.yaml: methods.{params.method}.length", found, "lower it")
    there = config.num_hidden_layers
    if isinstance(settings, Dynamic) and settings.init == "first-layers" and settings.layers > there:
        found = f"{settings.layers} first layers of a model that has {there}"
        raise StageError(f"params.yaml: methods.{params.method}.layers", found, "lower it or set init to random")


def precisions(params: Params, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """Of training and of decoding; what trains nothing only decodes."""
    protocol = params.chosen_protocol
    training, decoding = (arithmetic(one, device) for one in (protocol.training.dtype, protocol.decoding_dtype))
    return (training if METHODS[params.chosen_method.kind].trains else decoding), decoding


def check_memory(folder: Path, params: Params) -> None:
    """StageError if base model and trial do not fit on the device together: before any weights are read."""
    device, model = choose_device(params.runtime), empty_model(folder)
    kept, method = {*precisions(params, device)}, build_method(BaseModel(model), params.chosen_method)
    training, trained = precisions(params, device)[0], sum(shape.numel() for shape in method.shapes().values())
    if device.type == "cpu" and method.trains:
        kept.add(torch.float32)  # as `load` holds it
    frozen = sum(value.numel() for value in model.parameters()) * sum(dtype.itemsize for dtype in kept)
    cast = 2 * training.itemsize if training.itemsize < 4 else 0  # weights and gradients once more, in a pass
    needed, free = frozen + trained * (VALUES + cast), free_memory(device)
    if needed > free:
        found = f"the base model and a trial need {needed / GB:.3g} GB, {free / GB:.3g} GB are to be had"
        raise StageError(f"memory of {device}", found, "train on a device with more memory, or choose a smaller model")


@dataclass(frozen=True)
class Loaded:
    """What the trials of a job share in one process."""

    job: Job
    examples: Examples
    method: Method  # in the precision of training
    initial: dict[str, Tensor]  # the weights from which every trial starts; none for a method that trains nothing
    decoder: TrainedMethod  # the same method in the precision of decoding, without weights

    @property
    def protocol(self) -> Protocol:
        """How long texts may be, and how to train."""
        return self.job.params.chosen_protocol

    @property
    def parameters(self) -> int:
        """How many numbers a trial trains."""
        return sum(value.numel() for value in self.initial.values())

    def untrained(self, count: int) -> dict[str, Tensor]:
        """What a method keeps that trains nothing: with so many examples, or fewer if pairs or positions are few."""
        method, wanted = self.decoder.method, self.examples.drawn(self.job.params.seed, count)
        chosen = fitting(wanted, method.base, self.protocol.lengths)
        initial = method.initial_weights(torch.Generator(), chosen)
        if len(chosen) < count and initial:
            found = f"{len(chosen)} of {count} examples fit into the model's positions, of {len(wanted)} that there are"
            if any(not len(context) for context in initial.values()):
                remedy = f"lower protocols.{self.job.params.protocol}.lengths, or use another method or model"
                raise StageError(f"params.yaml: methods.{self.job.params.method}.examples", found, remedy)
            print(found)
        return initial


def load(job: Job) -> Loaded:
    """Load what trials need: the base model in each precision, and for a moment in float32, from which training starts.

    Raises StageError if base model and trial do not fit into the memory, or an example or the model cannot be used.
    """
    params, protocol = job.params, job.params.chosen_protocol
    check_memory(job.model, params)
    device, tokenizer = choose_device(params.runtime), load_tokenizer(job.model)
    examples = load_examples(job.subset, tokenizer, job.prompt_template, protocol.lengths, template_key(params))

    def built(where: torch.device, dtype: torch.dtype) -> Method:
        return build_method(load_base_model(job.model, where, dtype, protocol.training.dropout), params.chosen_method)

    wanted, initial = precisions(params, device), dict[str, Tensor]()
    methods = {dtype: built(device, dtype) for dtype in {*wanted}}
    training, decoding = (methods[dtype] for dtype in wanted)
    if training.trains:
        first = methods.get(torch.float32) or built(torch.device("cpu"), torch.float32)
        initial = first.initial_weights(torch.Generator().manual_seed(params.seed), examples.drawn(params.seed))
    if decoding is not training:  # until it decodes
        put_aside(decoding.base.model)
    ends, rows = endings(tokenizer, job.prompt_template, decoding.base), RowLimit(params.runtime.generation_batch_size)
    looks_up = isinstance(params.chosen_method, FewShot) and params.chosen_method.choose == "nearest"
    nearest = Nearest(examples.pairs, tokenizer, job.prompt_template, protocol.lengths) if looks_up else None
    decoder = TrainedMethod(decoding, {}, tokenizer, job.prompt_template, protocol.lengths, {}, ends, rows, nearest)
    loaded = Loaded(job, examples, training, initial, decoder)
    print(f"{params.method} on {device}: {loaded.parameters:,} trained parameters")
    return loaded
