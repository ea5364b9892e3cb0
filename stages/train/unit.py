"""The unit of work: a group of trials, a function of (subset, base model, method, learning rates, seed).

It gives the records of its trials (curve and status), the weights of the best one, of what was trained alone, and the
environment that it ran in. Nothing else that is around has a say, so it may run in any process on any machine.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.language_model.device import library_versions, versions
from stages.language_model.loading import load_tokenizer
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template
from stages.methods.decoding import RowLimit
from stages.params.schema import Params
from stages.plumbing.files import check_folder, files_hash
from stages.train.checkpoint import code_hash
from stages.train.cost import Cost
from stages.train.examples import hash_of_examples, load_examples
from stages.train.memory import check_base_model
from stages.train.preparation import check_fit, load_methods
from stages.train.sweep import Sweep
from stages.train.trials import Trial


@dataclass(frozen=True)
class Work:
    """What is to be trained: the parameters, and where subset and base model are."""

    params: Params
    subset: Path
    model: Path
    data_hash: str
    base_hash: str
    prompt_template: PromptTemplate
    code: str = field(default_factory=code_hash)

    def facts(self, environment: dict[str, Any]) -> dict[str, Any]:
        """Everything that the result depends on, for `fingerprint_of`."""
        params = self.params
        return {
            "data": self.data_hash, "model": self.base_hash,
            "method": params.chosen_method.model_dump(exclude={"learning_rate"}),  # `protocol` has the range it means
            "prompt_template": asdict(self.prompt_template), "seed": params.seed,
            "protocol": params.chosen_protocol.model_dump(exclude={"data"}),
            "code": self.code, "environment": environment, "libraries": library_versions(),
        }  # fmt: skip


def prompt_template_key(params: Params) -> str:
    """Where the prompt template stands, for errors."""
    return f"params.yaml: models.{params.model}.prompt_template"


def read_work(subset: Path, model: Path, params: Params) -> Work:
    """Check the inputs of a training.

    Raises:
        StageError: one is damaged, or the base model cannot take the rows or the method.
    """
    data_hash, base_hash = hash_of_examples(check_folder(subset)), files_hash(check_folder(model))
    check_fit(model, params)
    lengths, key = params.chosen_protocol.lengths, prompt_template_key(params)
    prompt_template = build_prompt_template(load_tokenizer(model), params.chosen_model.prompt_template, lengths, key)
    return Work(params, subset, model, data_hash, base_hash, prompt_template)


@dataclass(frozen=True)
class Trainer:
    """What trains the units of a work in one process: the sweep, with methods and examples, and the first weights."""

    sweep: Sweep
    initial: dict[str, Tensor]
    cuts: dict[str, int]

    @property
    def parameters(self) -> int:
        """How many numbers a trial trains; 0 for a method that trains nothing."""
        return sum(value.numel() for value in self.initial.values())

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What the last bits of a unit's result depend on."""
        base = self.sweep.method.base
        return versions(base.device, base.dtype)


def load_trainer(work: Work) -> Trainer:
    """Load what units need, once for all that this process trains."""
    params, protocol = work.params, work.params.chosen_protocol
    check_base_model(work.model, params)
    tokenizer = load_tokenizer(work.model)
    examples, cuts = load_examples(
        work.subset, tokenizer, work.prompt_template, protocol.lengths, prompt_template_key(params)
    )
    method, decoding_method, initial = load_methods(work.model, params)
    sweep = Sweep(
        method, decoding_method, tokenizer, work.prompt_template.end, examples, protocol.training,
        protocol.lengths.max_new_tokens, RowLimit(params.runtime.generation_batch_size), params.seed,
    )  # fmt: skip
    trainer = Trainer(sweep, initial, cuts)
    print(f"{params.method} on {method.base.device}: {trainer.parameters:,} trained parameters")
    return trainer


@dataclass(frozen=True)
class Outcome:
    """What the units of a work gave, put together."""

    trials: list[Trial]
    weights: Path | None  # of the best trial's best epoch; None for a method that trains nothing
    units: list[dict[str, Any]]  # of each its `trials` and its `environments`, more than one if it moved
    parameters: int
    cuts: dict[str, int]
    cost: Cost

    def environments(self) -> list[dict[str, Any]]:
        """Each environment that units were trained in, with the numbers of their trials: the last bits depend on it."""
        found: list[dict[str, Any]] = []
        for unit in sorted(self.units, key=lambda unit: min(unit["trials"])):
            for environment in unit["environments"]:
                entry = next((one for one in found if one["environment"] == environment), None)
                if entry is None:
                    found.append(entry := {"trials": [], "environment": environment})
                entry["trials"] += unit["trials"]
        return found

    def environment_of(self, trial: Trial) -> dict[str, Any]:
        """Where a trial ended."""
        unit = next(unit for unit in self.units if trial.index in unit["trials"])
        last: dict[str, Any] = unit["environments"][-1]
        return last
