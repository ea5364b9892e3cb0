"""A trial in this process: validation computes what selects, the search keeps the best, memory is checked first."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config

from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import empty_model
from stages.methods import trained_method
from stages.methods.decoding import Decoded, decode_and_score
from stages.params.methods import MethodSettings, Prefix
from stages.params.schema import Params, load_params
from stages.plumbing.errors import StageError
from stages.plumbing.signals import StopRequest
from stages.train import job as jobs
from stages.train import search as searches
from stages.train import training
from stages.train.job import Job, Loaded, check_fit, check_memory, load, read_job
from stages.train.search import search
from stages.train.state import TrialState
from stages.train.step import Learner
from stages.train.training import validate
from stages.train.trial import Trial, best_trial, quality, range_end
from tests.models import SETTINGS, TRAINING, base_model, loss_of, method, model_folder, weights
from tests.training_runs import workspace

BY_LOSS = {"protocols.tiny.training.metric_for_best_model": "loss"}


def job_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Job:
    """A training that the stage would start in `folder`."""
    workspace(folder, **changes)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DIALOG_PROMPTING_STATE", raising=False)
    return read_job(Path("data/subset"), Path("data/download/model"), load_params())


def test_only_the_best_epoch_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = list[int]()  # how many tokens each validation could answer; 0: it only measured losses

    def noted(*words: Any) -> Decoded:
        limits.append(words[4])
        return decode_and_score(*words)

    monkeypatch.setattr(trained_method, "decode_and_score", noted)
    trials, best, state = search(job_in(tmp_path / "loss", monkeypatch, **BY_LOSS))
    rows = [row for trial in trials for row in trial.curve]
    assert limits == [0] * len(rows) + [12], "the best epoch of the best trial, once, at the end"
    answered = [row for row in rows if row.get("bleu4") is not None]
    assert answered == [best.best] and 0 < best.best["distinct"] <= 1 and best.best["empty"] is not None
    assert state.weights.exists()
    limits.clear()
    trials, best, _ = search(job_in(tmp_path / "bleu4", monkeypatch))
    assert limits == [12] * sum(len(trial.curve) for trial in trials)
    assert all(row.get("bleu4") is not None for trial in trials for row in trial.curve)


def test_a_context_with_fewer_examples_is_told_and_one_without_any_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(job_in(tmp_path / "one", monkeypatch, method="few-shot"))
    pairs = len(loaded.examples.train)
    loaded.decoder.method.base.model.config.max_position_embeddings = 9999
    loaded.untrained(pairs)
    assert "examples" not in capsys.readouterr().out
    loaded.untrained(pairs + 1)
    assert f"{pairs} of {pairs + 1} examples fit into the model's positions, of {pairs} " in capsys.readouterr().out
    loaded.method.base.model.config.sliding_window = 9
    loaded.decoder.method.base.model.config.sliding_window = 9
    with pytest.raises(StageError, match=r"methods\.few-shot\.examples: 0 of 1 examples fit into"):
        loaded.untrained(1)


def test_a_tokenizer_of_another_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def smaller(folder: Path) -> Any:
        model = empty_model(folder)
        model.resize_token_embeddings(100)
        return model

    monkeypatch.setattr("stages.train.job.empty_model", smaller)
    with pytest.raises(StageError, match=r"model: 100 embeddings for \d+ tokens of its tokenizer; use"):
        job_in(tmp_path / "one", monkeypatch)


@pytest.mark.parametrize("name", ["dynamic", "fine-tune"])
def test_the_loss_is_a_token_s_answers_or_not(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = []
    for number, changes in enumerate([BY_LOSS, {}]):
        loaded = load(job_in(tmp_path / str(number), monkeypatch, method=name, **changes))
        found.append(validate(loaded, loaded.initial, StopRequest(), "x"))
    assert found[0] == {"validation_loss": found[1]["validation_loss"]} and "bleu4" in found[1]
    tokens = loaded.examples.validation
    some = list(map(EncodedPair, tokens["query"], tokens["response"]))
    with torch.inference_mode():
        expected = float(loss_of(loaded.method, loaded.initial, some)) / sum(len(pair.response) for pair in some)
    assert found[0]["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_trial_that_diverges_is_marked_and_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps, compute = 0, Learner.gradients

    def broken(*words: Any) -> Tensor:
        nonlocal steps
        steps += 1
        return compute(*words) * (math.nan if steps == 10 else 1)

    monkeypatch.setattr(Learner, "gradients", broken)
    (first, *others), best, _ = search(job_in(tmp_path / "one", monkeypatch, method="fine-tune", **BY_LOSS))
    assert (first.status, first.diverged_at, len(first.curve), first.best_epoch) == ("diverged", "step 10", 1, 1)
    assert {each.status for each in others} == {"finished"} and best in others
    monkeypatch.setattr(Learner, "gradients", lambda *words: torch.tensor(math.nan))
    job = job_in(tmp_path / "all", monkeypatch, **BY_LOSS)
    for _ in range(2):  # the second search finds the results of the first
        with pytest.raises(StageError, match=r"^training: every trial diverged \(0.001 at step 1, "):
            search(job)


def trial_with(rate: float, *scores: float, patience: int = 9) -> Trial:
    """A trial that ended epochs with these scores: BLEU-4, and the loss that is one less it."""
    trial = Trial(rate, parameters=1)
    settings = {"metric_for_best_model": "bleu4", "early_stopping_patience": patience, "num_train_epochs": 100}
    for score in scores:
        trial.record_epoch({"validation_loss": 1 - score, "bleu4": score}, TRAINING.model_copy(update=settings))
        trial.epoch += 1
    return trial


def test_patience_counts_epochs_without_a_better_score() -> None:
    scores = [0.1, 0.3, 0.2, 0.3, 0.1]  # an equal score is not better
    for count, status in ((4, "running"), (5, "finished")):
        trial = trial_with(1e-3, *scores[:count], patience=3)
        assert (trial.best_epoch, trial.best["bleu4"], trial.status) == (2, 0.3, status)
    assert [row["bleu4"] for row in trial.curve] == scores


def test_bleu4_and_loss_can_choose_different_epochs() -> None:
    rows = [{"validation_loss": loss, "bleu4": bleu4} for loss, bleu4 in [(3.0, 0.1), (2.0, 0.05), (2.5, 0.2)]]
    assert [max(range(3), key=lambda n: quality(rows[n], metric)) for metric in ("bleu4", "loss")] == [2, 1]


def test_of_equal_trials_the_lowest_learning_rate_wins_and_the_ends_of_the_range_are_told() -> None:
    some = [trial_with(10.0**index, score) for index, score in enumerate((0.1, 0.2, 0.2, 0.1))]
    assert best_trial(some, "bleu4") is best_trial(some, "loss") is some[1]
    assert [range_end(trial, some) for trial in some] == ["lowest", None, None, "highest"]
    assert range_end(some[0], some[:1]) is None


def test_a_trial_that_diverged_takes_part_with_the_epochs_that_it_ended() -> None:
    some = [trial_with(0.1, 0.1), trial_with(0.2, 0.2)]
    some[1].diverge("step 9")
    assert best_trial([Trial(1.0, status="diverged", diverged_at="step 1"), *some], "bleu4") is some[1]


def test_another_range_trains_only_the_rates_that_are_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained, run = list[float](), training._Training.run

    def noted(self: training._Training) -> Trial:
        trained.append(self.trial.learning_rate)
        return run(self)

    monkeypatch.setattr(training._Training, "run", noted)
    step = training._Training._step

    def killed(self: training._Training, *words: Any) -> None:
        step(self, *words)
        if (self.trial.learning_rate, self.trial.epoch) == (0.001, 2):
            raise KeyboardInterrupt

    def rates(*ends: float) -> tuple[list[float], float]:
        low, high = ends
        ranged = {"protocols.tiny.training.learning_rates": {"low": low, "high": high, "trials": 2}}
        trained.clear()
        _, best, state = search(job_in(tmp_path, monkeypatch, method="fine-tune", **ranged))
        assert state.weights.exists()
        return list(trained), best.learning_rate

    other = tmp_path / ".state/train/other/result"  # of another training, and old
    other.mkdir(parents=True)
    os.utime(other, (0, 0))
    assert rates(0.001, 0.005) == ([0.001, 0.005], 0.005)
    # The lower one wins now; its weights went when it had lost, so it alone is trained once more. Not from its start
    # if that is stopped.
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            rates(0.001, 1.0)
        assert trained == [1.0, 0.001]
        patch.setattr(training._Training, "_validate", lambda self: pytest.fail("the first epoch again"))
        with pytest.raises(KeyboardInterrupt):
            rates(0.001, 1.0)
    assert rates(0.001, 1.0) == ([0.001], 0.001)
    assert rates(0.001, 1.0) == ([], 0.001)
    assert rates(0.001, 0.005) == ([], 0.005)
    assert other.exists()


def test_weights_that_are_not_where_they_were_written_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where `runtime.checkpoints` is one folder here and another one on a node."""

    def elsewhere(loaded: Loaded, rate: float, state: TrialState, is_best: bool) -> Trial:
        trial = training.train_trial(loaded, rate, state, is_best)
        state.weights.unlink()
        return trial

    monkeypatch.setattr(searches, "train_trial", elsewhere)
    with pytest.raises(StageError, match=r"weights\.safetensors: missing; give it again; runtime\.checkpoints must be"):
        search(job_in(tmp_path, monkeypatch, method="soft", **BY_LOSS))


def params_with(settings: MethodSettings, folder: Path, **changes: Any) -> Params:
    """Those of a training with a method of its own, `x`."""
    params = load_params(workspace(folder / "w", **changes) / "params.yaml")
    return params.model_copy(update={"methods": {"x": settings}, "method": "x"})


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "few-shot"])
def test_what_does_not_fit_into_memory_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_decodes = {"protocols.tiny.training.dtype": "bfloat16"} if name == "zero-shot" else {}
    params = params_with(SETTINGS[name], tmp_path, **only_decodes)
    stored = sum(value.numel() for value in base_model("gpt2").model.parameters()) * 4
    needed = stored + sum(value.numel() for value in weights(method(name)).values()) * 16
    monkeypatch.setattr(jobs, "free_memory", lambda device: needed)
    check_memory(model_folder("gpt2", True), params)
    monkeypatch.setattr(jobs, "free_memory", lambda device: needed - 1)
    with pytest.raises(StageError, match=r"memory of cpu: the base model and a trial need 0\.00\d+ GB, 0\.00"):
        check_memory(model_folder("gpt2", True), params)


def test_a_controller_cannot_start_from_more_layers_than_there_are(tmp_path: Path) -> None:
    params = params_with(SETTINGS["dynamic-first-layers"].model_copy(update={"layers": 3}), tmp_path)
    with pytest.raises(StageError, match=r"methods\.x\.layers: 3 first layers of a model that has 2; "):
        check_fit(empty_model(model_folder("gpt2", True)).config, params)


def test_what_the_model_cannot_take_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    lengths = {"protocols.tiny.lengths": {"max_query_tokens": 300, "max_new_tokens": 12}}
    params, config = params_with(SETTINGS["dynamic"], tmp_path, **lengths), GPT2Config(n_positions=512)

    def check(settings: MethodSettings) -> None:
        check_fit(config, params.model_copy(update={"methods": {"x": settings}}))

    with pytest.raises(StageError, match="612 tokens, the model takes 512"):
        check(SETTINGS["dynamic"])
    check(SETTINGS["fine-tune"])  # 312 tokens: it has no prompt
    with pytest.raises(StageError, match="513 tokens, the model takes 512"):
        check(Prefix(kind="prefix", length=201, init="random"))
    for window in ("sliding_window", "window_size"):
        config = GPT2Config.from_dict({"n_positions": 512, window: 400})
        with pytest.raises(StageError, match="89 before rows of up to 312 tokens, the model's window is 400"):
            check(Prefix(kind="prefix", length=89, init="random"))
        check(SETTINGS["zero-shot"])


@pytest.mark.parametrize("name", ["dynamic", "fine-tune"])
def test_trained_weights_start_in_float32(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    decoding = {"dynamic": torch.float32, "fine-tune": torch.bfloat16}[name]
    changes = {"protocols.tiny.training.dtype": "bfloat16", "protocols.tiny.decoding_dtype": f"{decoding}"[6:]}
    loaded = load(job_in(tmp_path, monkeypatch, method=name, **changes))
    stored = load_file(tmp_path / "data/download/model/model.safetensors")["transformer.wte.weight"]
    assert torch.equal(loaded.initial["embeddings" if name == "dynamic" else "transformer.wte.weight"], stored)
    assert (loaded.method.base.dtype, loaded.decoder.method.base.dtype) == (torch.bfloat16, decoding)
