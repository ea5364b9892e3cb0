"""A learning-rate sweep: trials trained, validated by greedy decoding and BLEU-4, and stopped early (App. B)."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from stages.bleu import bleu
from stages.language_model.encoding import EncodedPair, side_lengths, to_text
from stages.language_model.memory import free_memory, give_back_freed_memory
from stages.methods.batch import collate
from stages.methods.decoding import RowLimit, decode_and_score
from stages.methods.method import Method
from stages.params.schema import Training
from stages.plumbing.progress import Progress
from stages.plumbing.signals import StopRequest, Terminated
from stages.train.batches import EpochBatches, epoch_batches
from stages.train.checkpoint import BEGINNING, Position, TrainingState
from stages.train.cuda_graphs import CudaGraphs
from stages.train.examples import Examples
from stages.train.trials import Trial, Validation, train_step
from stages.train.trials_per_pass import TrialsPerPass

SECONDS_BETWEEN_CHECKPOINTS = 300.0  # within an epoch; there is one at the end of each epoch anyway
# Freed memory that may stay with the process on a CPU, in bytes. What was given back the kernel clears when it is
# needed again, so that steps are faster without; but pieces of one step do not fit the rows of the next.
KEPT_BETWEEN_STEPS = 7 << 28  # 1.75 GiB: a pass of SmolLM2; but never more than a quarter of what is free
KEPT_IN_VALIDATION = 3 << 28  # 0.75 GiB: reading a chunk of queries takes less


@dataclass(frozen=True)
class Sweep:
    """What the trials of a sweep have in common.

    `method` computes in the precision of training; `decoding_method` is the same method in the precision of decoding.
    """

    method: Method
    decoding_method: Method
    tokenizer: PreTrainedTokenizerBase
    end: int  # the token that ends a response
    examples: Examples
    training: Training
    max_new_tokens: int
    row_limit: RowLimit
    seed: int

    def batches(self, epoch: int) -> EpochBatches:
        """The batches of an epoch; the length of its row in this method decides which pairs a pair goes with."""
        sizes = self.method.row_tokens(self.examples.train)
        return epoch_batches(sizes, self.training.batch_size, self.seed, epoch)

    def pairs(self, batch: Sequence[int]) -> list[EncodedPair]:
        """The pairs of a batch."""
        tokens = self.examples.train[list(batch)]
        return list(map(EncodedPair, tokens["query"], tokens["response"]))

    def validate(self, trials: Sequence[Trial], stop: StopRequest, title: str) -> list[Validation]:
        """What each trial gives on the whole validation part, in the precision of decoding."""
        pairs, count = self.examples.validation, len(self.examples.validation)
        on_cpu = self.method.base.device.type == "cpu"
        give_back_freed_memory()  # what training has freed lies in pieces too small for the longest rows
        with Progress(count * len(trials), f"{title}: validation", "responses") as progress:

            def tick(ended: int) -> None:
                if on_cpu:
                    give_back_freed_memory(beyond=KEPT_IN_VALIDATION)
                stop.check()
                progress.advance(ended)

            decoded = decode_and_score(
                self.decoding_method,
                [trial.weights for trial in trials],
                list(pairs["query"]),
                list(pairs["response"]),
                self.max_new_tokens,
                self.end,
                self.row_limit,
                tick,
            )
        if self.method.base.device.type == "cuda":
            torch.cuda.empty_cache()  # what decoding took is for whoever else uses the card
        losses = (decoded.losses.sum(dim=1) / side_lengths(pairs)[1].sum()).tolist()
        texts = [[to_text(answer, self.tokenizer) for answer in own] for own in decoded.answers]
        return [
            Validation(
                loss, bleu(own, self.examples.references), sum(not text for text in own) / count, len(set(own)) / count
            )
            for loss, own in zip(losses, texts, strict=True)
        ]

    def run(self, trials: Sequence[Trial], state: TrainingState) -> None:
        """Train trials that share their passes until none is running; goes on from the state on disk.

        Raises:
            Terminated, KeyboardInterrupt: a signal came; everything up to the last step is on disk.
        """
        position = state.load(trials)
        if position != BEGINNING and any(trial.status == "running" for trial in trials):
            print(f"goes on where it was stopped: in epoch {position.epoch}, {position.step} steps done")
            state.cost.stopped += 1
        per_pass = TrialsPerPass(len(trials))
        graphs = CudaGraphs.for_pairs(self.method, self.examples.train, self.training.dropout)
        with StopRequest() as stop:
            while any(trial.status == "running" for trial in trials):
                position = _Epoch(self, trials, state, per_pass, graphs, stop, position).run()


class _Epoch:
    """One epoch of a list of trials, from any step of it on."""

    def __init__(
        self,
        sweep: Sweep,
        trials: Sequence[Trial],
        state: TrainingState,
        per_pass: TrialsPerPass,
        graphs: CudaGraphs | None,
        stop: StopRequest,
        position: Position,
    ) -> None:
        self.sweep, self.trials, self.state = sweep, trials, state
        self.per_pass, self.graphs, self.stop, self.position = per_pass, graphs, stop, position
        self.saved_at = time.monotonic()

    def running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == "running"]

    def run(self) -> Position:
        try:
            self._train()
            with self.state.cost.timed("validation_seconds"):
                self._validate()
        except (Terminated, KeyboardInterrupt):
            self.state.save(self.position, self.trials)
            raise
        self.position = Position(self.position.epoch + 1, 0)
        self.state.save(self.position, self.trials)
        for trial in self.trials:
            if trial.status != "running":
                trial.drop_tensors()
        return self.position

    def title(self) -> str:
        rates = self.running() or self.trials
        which = f"{len(rates)} trials" if len(rates) > 1 else f"learning rate {rates[0].learning_rate:.2g}"
        return f"epoch {self.position.epoch} of at most {self.sweep.training.num_train_epochs}, {which}"

    def _train(self) -> None:
        sweep, epoch = self.sweep, self.position.epoch
        batches = sweep.batches(epoch)
        done = sum(len(batches[step]) for step in range(self.position.step))
        device, kept = sweep.method.base.device, None
        if device.type == "cpu":
            kept = min(KEPT_BETWEEN_STEPS, free_memory(device) // 4)
        with Progress(len(sweep.examples.train), self.title(), "pairs", done) as progress:
            for step in range(self.position.step, len(batches)):
                running = self.running()
                if not running:
                    return
                pairs = sweep.pairs(batches[step])
                batch = collate(pairs).to(device)
                dropout_seed = int(np.random.SeedSequence([sweep.seed, epoch, step]).generate_state(1)[0])
                last_step = sweep.training.num_train_epochs * len(batches)
                with self.state.cost.timed("seconds"):
                    train_step(
                        sweep.method, running, batch, sweep.training, self.per_pass, dropout_seed, last_step,
                        self.graphs,
                    )  # fmt: skip
                    if kept is not None:
                        give_back_freed_memory(beyond=kept)
                self.position = Position(epoch, step + 1)
                self.state.cost.pairs += len(running) * len(pairs)
                progress.advance(len(pairs), self._losses())
                self.stop.check()
                if time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self.state.save(self.position, self.trials)
                    self.saved_at = time.monotonic()

    def _losses(self) -> str:
        shown = [t.loss_sum / t.loss_tokens for t in self.running() if t.loss_tokens]
        return f"loss {' '.join(f'{loss:.2f}' for loss in shown)}"

    def _validate(self) -> None:
        sweep, running = self.sweep, self.running()
        if not running:
            return
        results = sweep.validate(running, self.stop, self.title())
        for trial, validation in zip(running, results, strict=True):
            if not math.isfinite(validation.loss):  # the loss was finite, but the last update diverged
                trial.status, trial.diverged_at = "diverged", f"step {trial.steps}"
                continue
            if trial.record_epoch(self.position.epoch, validation, sweep.training):
                self.state.save_best(trial)
