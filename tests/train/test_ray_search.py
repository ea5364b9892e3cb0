"""The engine `ray` with a stand-in for Ray: what it asks for, what it hands to trials, what it leaves."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.language_model.device import Share, library_versions
from stages.plumbing.cluster import explained
from stages.plumbing.errors import StageError
from stages.train.job import Job
from stages.train.search import search
from stages.train.state import TrialState
from stages.train.trial import Trial
from tests import fake_ray
from tests.train.test_trial import BY_LOSS, job_in

SHORT = {
    "runtime.engine": "ray",
    "protocols.tiny.training.learning_rates": {"low": 0.001, "high": 0.01, "trials": 2},
    "protocols.tiny.training.num_train_epochs": 1,
    **BY_LOSS,
}


def without_times(trials: list[Trial]) -> list[dict[str, Any]]:
    return [{**asdict(trial), "cost": None} for trial in trials]


@pytest.mark.parametrize("method", ["dynamic", "zero-shot"])
@pytest.mark.parametrize("checkpoints", [None, "kept", "~/kept"])
def test_it_gives_what_this_process_gives_and_leaves_results_alone(
    checkpoints: str | None, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = fake_ray.install(monkeypatch, tmp_path / "node")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = {"runtime.checkpoints": checkpoints, "method": method, "runtime.threads": 1}
    trials, best, state = search(job_in(tmp_path / "ray", monkeypatch, **SHORT, **own))
    asked = [words[:3] for words in ray.words]
    rates = {"dynamic": [0.001, 0.01], "zero-shot": [0.0]}[method]
    wanted = [*((rate, False) for rate in rates), (best.learning_rate, True)]
    assert [(rate, is_best) for _, rate, is_best in asked] == wanted
    weights = state.weights.read_bytes() if method == "dynamic" else b""
    root = {None: "ray/.state/train", "kept": "ray/kept", "~/kept": "home/kept"}[checkpoints]
    kept = {path.parent.name for path in (tmp_path / root).glob("*/*") if path.is_dir()}
    assert kept == {job.fingerprint(rate, None) for job, rate, _ in asked}
    assert list(tmp_path.glob("node/*/train/*")) == [], "a node keeps nothing of a trial that is done"
    search(job_in(tmp_path / "ray", monkeypatch, **SHORT, **own))
    assert len(ray.words) == len(asked), "nothing is trained again"
    here, best_here, state_here = search(
        job_in(tmp_path / "here", monkeypatch, **{**SHORT, "runtime.engine": "local"}, method=method)
    )
    assert without_times(trials) == without_times(here) and best.learning_rate == best_here.learning_rate
    assert weights == (state_here.weights.read_bytes() if weights else b"")


def test_what_is_done_when_a_training_is_stopped_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trials of one length end together: the second is done, and not yet taken, when the first one fails the search."""
    ray = fake_ray.install(monkeypatch, tmp_path / "node")
    job, keep, kept = job_in(tmp_path / "work", monkeypatch, **SHORT), TrialState.write_result, list[str]()

    def fail_once(self: TrialState, *given: Any) -> None:
        if tmp_path / "work" in self.folder.parents:  # not on a node
            kept.append(self.fingerprint)
            if len(kept) == 1:
                raise KeyboardInterrupt
        keep(self, *given)

    monkeypatch.setattr(TrialState, "write_result", fail_once)
    with pytest.raises(KeyboardInterrupt):
        search(job)
    assert len(ray.words) == 2 and len({*kept}) == 2
    search(job)
    repeated = [job.fingerprint(words[1], None) for words in ray.words[2:-1]]
    assert repeated == kept[:1], "the trial that was kept is not repeated"


def test_with_other_data_or_code_it_is_another_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job: Job = job_in(tmp_path / "work", monkeypatch, **SHORT)
    here = job.fingerprint(1e-3, None)
    assert here != job.fingerprint(2e-3, None) and here != job.fingerprint(1e-3, {"threads": 1})
    changes: list[dict[str, Any]] = [{"data_hash": "x"}, {"base_hash": "x"}, {"code": "x"}]
    for change in changes:
        assert replace(job, **change).fingerprint(1e-3, None) != here
    monkeypatch.setattr("stages.train.job.library_versions", lambda: {**library_versions(), "tokenizers": "0.1"})
    assert job.fingerprint(1e-3, None) != here


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_another_number_of_threads_is_another_training_here_and_the_same_one_on_a_cluster(
    engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node", {"CPU": 2.0})
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        own = {"method": "zero-shot", "runtime.engine": engine, "runtime.threads": threads}
        found.append(search(job_in(tmp_path / "work", monkeypatch, **{**SHORT, **own}))[2].fingerprint)
    torch.set_num_threads(before)
    assert (found[0] == found[1]) == (engine == "ray")


def test_another_version_on_a_node_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    job = job_in(tmp_path / "work", monkeypatch, **SHORT)
    share = Share(0.0, 1, {**library_versions(), "numpy": "0.1"})
    monkeypatch.setattr("stages.train.ray_search.share_of", lambda *_: share)
    message = r"^node 127\.0\.0\.9: software: numpy \d\S*, where the command was started 0\.1; install the same"
    with pytest.raises(StageError, match=message):
        search(job)


def test_without_ray_only_the_engine_ray_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StageError, match=r"runtime\.engine: Ray is not installed in"):
        search(job_in(tmp_path / "ray", monkeypatch, **SHORT))
    search(job_in(tmp_path / "local", monkeypatch, **{**SHORT, "runtime.engine": "local"}))


def test_a_cluster_of_another_version_or_that_lets_nobody_in_is_told_so() -> None:
    error = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.7\n")
    told = str(explained("head:6379", error))
    assert told.startswith("params.yaml: runtime.address: head:6379: Version mismatch: ")
    assert "Ray: 2.50.0" in told and "same versions" in told and "\n" not in told
    told = str(explained("head:6379", ConnectionError("ray client\nis not there")))
    assert "no cluster that lets us in at head:6379 (ray client is not there)" in told and "RAY_AUTH_MODE" in told
