"""Runs the cells of the recipe study on the validation pairs of a subset, and keeps what was measured."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages.language_model.device import arithmetic, choose_device, versions
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.row_format import build_row_format
from stages.methods.decoding import RowLimit
from stages.methods.registry import build_method
from stages.params.schema import Params
from stages.plumbing.files import files_hash, read_manifest, state_folder, write_json
from stages.recipe.cells import FORMATS, Cell
from stages.train.checkpoint import TrainingState, fingerprint_of
from stages.train.cost import Cost
from stages.train.examples import hash_of_examples, load_examples
from stages.train.search import run_trials, untrained
from stages.train.sweep import Sweep
from stages.train.trials import Trial


class Study:
    """The cells of one corpus, with the protocol of params.yaml but for what a cell says."""

    def __init__(self, params: Params, subset: Path, model: Path, out: Path, corpus: str) -> None:
        self.params, self.subset, self.corpus, self.out = params, subset, corpus, out
        self.device = choose_device(params.runtime)
        protocol = params.chosen_protocol
        dtype = arithmetic(protocol.training.precision, self.device)
        self.base = load_base_model(model, self.device, dtype, protocol.training.dropout)
        self.tokenizer = load_tokenizer(model)
        self.data = {"data": hash_of_examples(read_manifest(subset)), "model": files_hash(read_manifest(model))}
        self.rows: list[dict[str, Any]] = json.loads(out.read_bytes())["rows"] if out.is_file() else []

    def run(self, cells: tuple[Cell, ...], done: Callable[[str], None]) -> None:
        """Run the cells that were not measured yet; each is written down at once."""
        for cell in cells:
            facts = self.facts(cell)
            if any(row["facts"] == facts for row in self.rows):
                continue
            began = time.monotonic()
            trials = self.trials(cell, facts)
            self.rows += [self.row(cell, facts, trial, time.monotonic() - began) for trial in trials]
            environment = versions(self.device, self.base.dtype)
            write_json(self.out, {"environment": environment, "rows": self.rows})
            done(f"{self.corpus}, {cell.row_format}, {cell.name}: {self.rows[-1]['validation_loss']}")

    def facts(self, cell: Cell) -> dict[str, Any]:
        """What a cell's result depends on; the same facts are not measured twice."""
        return {
            **self.data,
            "cell": cell.facts,
            "lengths": self.params.chosen_protocol.lengths.model_dump(),
            "training": self.params.chosen_protocol.training.model_dump(exclude={"learning_rates"}),
        }

    def trials(self, cell: Cell, facts: dict[str, Any]) -> list[Trial]:
        """Train (or, without rates, validate) one cell; goes on where it was stopped."""
        sweep = self.sweep(cell)
        if not cell.rates:
            return [untrained(sweep, Cost())]
        initial = sweep.method.initial_weights(torch.Generator().manual_seed(cell.seed))
        state = TrainingState(state_folder() / "recipe", fingerprint_of(facts), versions(self.device, self.base.dtype))
        return run_trials(sweep, initial, state)

    def sweep(self, cell: Cell) -> Sweep:
        """What the trials of a cell have in common."""
        protocol, method = self.params.chosen_protocol, build_method(self.base, cell.method)
        row_format = build_row_format(self.tokenizer, FORMATS[cell.row_format], protocol.lengths, cell.row_format)
        examples, _ = load_examples(self.subset, self.tokenizer, row_format, protocol.lengths, cell.row_format)
        names = ("embeddings_rate", "schedule", "batch_size")
        changes = {name: getattr(cell, name) for name in names} | {"learning_rates": cell.rates}
        training = protocol.training.model_copy(update=changes)
        return Sweep(
            method, method, self.tokenizer, row_format.end, examples, training, protocol.lengths.response_tokens,
            RowLimit(self.params.runtime.decode_rows), cell.seed,
        )  # fmt: skip

    def row(self, cell: Cell, facts: dict[str, Any], trial: Trial, seconds: float) -> dict[str, Any]:
        """What the table shows of one trial."""
        return {
            "corpus": self.corpus,
            "format": cell.row_format,
            "method": cell.name,
            "embeddings_rate": cell.embeddings_rate,
            "schedule": cell.schedule,
            "batch_size": cell.batch_size,
            "seed": cell.seed,
            "learning_rate": trial.learning_rate,
            "validation_loss": None if trial.best_loss is None else round(trial.best_loss, 4),
            "bleu4": round(trial.best_bleu4, 4),
            **{name: trial.curve[-1][name] for name in ("empty", "distinct") if trial.curve},
            "status": trial.status,
            "seconds": round(seconds),
            "facts": facts,
        }
