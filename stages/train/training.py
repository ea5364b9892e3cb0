"""One trial from its first step, or its last checkpoint, to its result: trained, validated, stopped early (App. B)."""

import math
import time
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.language_model.cpu_linear import put_aside
from stages.language_model.encoding import EncodedPair, side_lengths
from stages.language_model.memory import give_back_freed_memory
from stages.plumbing.progress import Progress
from stages.plumbing.signals import StopRequest, Terminated
from stages.similarity.bleu import bleu
from stages.train.examples import epoch_batches
from stages.train.job import Loaded
from stages.train.state import TrialState
from stages.train.step import Learner, scheduled
from stages.train.trial import Row, Trial

SECONDS_BETWEEN_CHECKPOINTS = 300.0  # within an epoch; there is one at the end of each epoch anyway


def train_trial(loaded: Loaded, rate: float, state: TrialState, is_best: bool = False) -> Trial:
    """Train a trial to its end, or find it there; then `state` has its result.

    is_best: its best epoch answers the validation queries, if it has not done so, and its weights are kept.

    Raises:
        Terminated, KeyboardInterrupt: a signal came; everything up to the last step is on disk.
        StageError: another process trains the same.
    """
    with state.lock(), StopRequest() as stop:
        trial = state.read_result()
        if trial is None or (is_best and trial.parameters and not state.weights.exists()):
            if loaded.initial:
                trial = _Training(loaded, rate, state, stop).run()
            else:
                trial = _untrained(loaded, int(rate), state, stop)
        if is_best and "bleu4" not in trial.best:
            with trial.cost.timed("validation_seconds"):
                weights = load_file(state.weights, str(loaded.method.base.device)) if state.weights.exists() else {}
                title = f"best epoch ({trial.best_epoch})"
                trial.best.update(validate(loaded, weights, stop, title, trial.examples, only_answers=True))
            state.write_result(trial, None)
    return trial


def _untrained(loaded: Loaded, examples: int, state: TrialState, stop: StopRequest) -> Trial:
    """A trial of a method that trains nothing: only validated, as epoch 0."""
    trial = Trial(0.0, examples, 0, loaded.examples.cuts, [loaded.job.environment()], epoch=0)
    weights, title = loaded.untrained(examples), f"{examples} examples" if examples else "untrained"
    with trial.cost.timed("validation_seconds"):
        there = {name: value.to(loaded.method.base.device) for name, value in weights.items()}
        trial.record_epoch(validate(loaded, there, stop, title, examples), loaded.protocol.training)
    state.write_result(trial, weights)
    return trial


class _Training:
    """A trial under way."""

    def __init__(self, loaded: Loaded, rate: float, state: TrialState, stop: StopRequest) -> None:
        self.loaded, self.state, self.stop, lengths = loaded, state, stop, loaded.protocol.lengths
        longest = lengths.max_query_tokens, lengths.max_new_tokens
        self.learner = Learner(loaded.method, loaded.initial, loaded.protocol.training, longest)
        self.trial = Trial(rate, parameters=loaded.parameters, cuts=loaded.examples.cuts)
        if found := state.load():
            self.trial, tensors = found
            self.learner.restore(tensors, self.trial.steps)
            self.trial.cost.stopped += 1
            print(f"goes on where it was stopped: in epoch {self.trial.epoch}, {self.trial.step} steps done")
        here = loaded.job.environment()
        self.trial.environments = [*(one for one in self.trial.environments if one != here), here]
        self.saved_at = time.monotonic()

    def run(self) -> Trial:
        """Epoch after epoch to the end."""
        trial, best = self.trial, None
        try:
            while trial.status == "running":
                self._train()
                best = self._validate() if trial.status == "running" else None
                if trial.status == "running":
                    trial.epoch, trial.step = trial.epoch + 1, 0
                    self._save(best)
        except (Terminated, KeyboardInterrupt):
            self._save(None)
            raise
        self.state.write_result(trial, best)
        return trial

    def _title(self) -> str:
        most, rate = self.loaded.protocol.training.num_train_epochs, self.trial.learning_rate
        rates = self.loaded.job.rates()
        place = f"trial {rates.index(rate) + 1} of {len(rates)}"
        return f"{place}, epoch {self.trial.epoch} of at most {most}, learning rate {rate:.2g}"

    def _train(self) -> None:
        """The rest of the epoch's steps, or those up to the one in which the trial diverges."""
        trial, training = self.trial, self.loaded.protocol.training
        examples = self.loaded.examples.train
        batches = epoch_batches(examples, training.batch_size, self.loaded.job.params.seed, trial.epoch)
        done = sum(map(len, batches[: trial.step]))
        with Progress(len(examples), self._title(), "pairs", done) as progress:
            for step in range(trial.step, len(batches)):
                tokens = examples[batches[step]]
                pairs = list(map(EncodedPair, tokens["query"], tokens["response"]))
                with trial.cost.timed("seconds"):
                    self._step(pairs, step, training.num_train_epochs * len(batches))
                if trial.status != "running":
                    return
                trial.step = step + 1
                trial.cost.pairs += len(pairs)
                progress.advance(len(pairs), f"loss {trial.loss_sum / trial.loss_tokens:.2f}")
                self.stop.check()
                if time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self._save(None)

    def _step(self, pairs: list[EncodedPair], step: int, last_step: int) -> None:
        trial = self.trial
        seeds = np.random.SeedSequence([self.loaded.job.params.seed, trial.epoch, step])
        rate = trial.learning_rate * scheduled(trial.steps + 1, last_step, self.loaded.protocol.training)
        loss = self.learner.step(pairs, int(seeds.generate_state(1)[0]), rate)
        if not math.isfinite(loss):
            return trial.diverge(f"step {trial.steps + 1}")
        trial.steps += 1
        trial.loss_sum += loss
        trial.loss_tokens += sum(len(pair.response) for pair in pairs)

    def _validate(self) -> dict[str, Tensor] | None:
        """Close the epoch; the weights if it is the best one so far."""
        trial, weights = self.trial, self.learner.weights
        with trial.cost.timed("validation_seconds"):
            scores = validate(self.loaded, weights, self.stop, self._title())
        if not math.isfinite(scores["validation_loss"]):  # the loss was finite, but the last update diverged
            trial.diverge(f"step {trial.steps}")
            return None
        return weights if trial.record_epoch(scores, self.loaded.protocol.training) else None

    def _save(self, best: Weights | None) -> None:
        self.state.save(self.trial, self.learner.tensors(), best)
        self.saved_at = time.monotonic()


def validate(
    loaded: Loaded, weights: Weights, stop: StopRequest, title: str, examples: int = 0, only_answers: bool = False
) -> Row:
    """What the validation pairs say of a trial, in the precision of decoding: its loss; its answers, if they select.

    examples: in the context, of few-shot.
    """
    pairs, written = loaded.examples.validation, loaded.examples.written
    trained = replace(loaded.decoder, weights=dict(weights), description={"examples": examples})
    answers = only_answers or loaded.protocol.training.metric_for_best_model == "bleu4"
    references = None if only_answers else list(pairs["response"])
    give_back_freed_memory()
    with Progress(len(pairs), f"{title}: validation", "responses") as progress:

        def tick(ended: int) -> None:
            stop.check()
            progress.advance(ended)

        queries = trained.encode([pair.query for pair in written])
        found = trained.decode_and_score(queries, references, tick, answer=answers)
    if trained.method.base.device.type == "cuda":
        torch.cuda.empty_cache()  # what decoding took is for whoever else uses the card
    if trained.method is not loaded.method:
        put_aside(trained.method.base.model)
    scores: Row = {}
    if not only_answers:
        scores["validation_loss"] = float(found.losses.sum()) / int(side_lengths(pairs)[1].sum())
    if answers:
        texts = trained.texts(found.answers)
        scores |= {
            "bleu4": bleu(texts, [pair.response for pair in written]),
            "empty": round(sum(not text for text in texts) / len(texts), 6),  # share of the answers without a word
            "distinct": round(len(set(texts)) / len(texts), 6),  # different answers over answers
        }
    return scores
