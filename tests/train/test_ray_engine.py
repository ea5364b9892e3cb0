"""The engine `ray` with a stand-in for Ray: what it asks for, what it hands to units, what it leaves."""

from pathlib import Path

import pytest

from stages.language_model.device import library_versions
from stages.params.schema import load_params
from stages.plumbing.errors import StageError
from stages.train.checkpoint import fingerprint_of
from stages.train.delivery import Trained
from stages.train.ray_engine import _Search, search_on_ray
from stages.train.unit import Work, read_work
from tests import fake_ray
from tests.training_runs import workspace

SHORT = {
    "runtime.engine": "ray",
    "protocols.tiny.training.learning_rates": {"low": 0.001, "high": 0.01, "trials": 1},
    "protocols.tiny.training.num_train_epochs": 1,
}
TWO = {"protocols.tiny.training.learning_rates": {"low": 0.001, "high": 0.01, "trials": 2}}


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Work:
    """A training that the stage would start in `folder`."""
    workspace(folder, **{**SHORT, **changes})
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DIALOG_PROMPTING_STATE", raising=False)
    return read_work(Path("data/subset"), Path("data/download/model"), load_params())


@pytest.mark.parametrize("written", ["~/kept", "kept"])
def test_checkpoints_are_cleaned_where_units_were_told_to_keep_them(
    written: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = fake_ray.install(monkeypatch, tmp_path / "node")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    work = work_in(tmp_path / "work", monkeypatch, **{"runtime.checkpoints": written})
    search_on_ray(work)
    kept = tmp_path / ("home" if written.startswith("~") else "work") / "kept"
    assert [words[0].params.runtime.checkpoints for words in ray.words] == [str(kept)]
    assert kept.is_dir() and [path for path in kept.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "work/~").exists()


def test_what_is_done_when_a_training_is_stopped_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Units of one length end together: the second is done, and not yet taken, when the first one fails the search."""
    ray = fake_ray.install(monkeypatch, tmp_path / "node")
    work = work_in(tmp_path / "work", monkeypatch, method="fine-tune", **TWO)
    keep, kept = _Search._keep, list[list[int]]()

    def fail_once(self: _Search, given: Trained, group: list[tuple[int, float]]) -> None:
        kept.append([index for index, _ in group])
        if len(kept) == 1:
            raise KeyboardInterrupt
        keep(self, given, group)

    monkeypatch.setattr(_Search, "_keep", fail_once)
    with pytest.raises(KeyboardInterrupt):
        search_on_ray(work)
    assert len(ray.words) == 2 and kept == [[0], [1]]
    search_on_ray(work)
    assert [len(words[0].trials) for words in ray.words] == [1, 1, 1], "the unit that was kept is not trained again"


def test_what_was_begun_with_another_library_is_another_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = work_in(tmp_path / "work", monkeypatch)
    here = fingerprint_of(work.facts({}))
    monkeypatch.setattr("stages.train.unit.library_versions", lambda: {**library_versions(), "tokenizers": "0.1"})
    assert fingerprint_of(work.facts({})) != here


@pytest.mark.parametrize("name", ["python", "torch", "tokenizers", "peft", "numpy", "gguf"])
def test_another_version_on_a_node_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    work = work_in(tmp_path / "work", monkeypatch)
    here = library_versions()
    monkeypatch.setattr("stages.train.ray_engine.library_versions", lambda: {**here, name: "0.1"})
    message = rf"^node 127\.0\.0\.9: software: {name} \d\S*, where the command was started 0\.1; install the same"
    with pytest.raises(StageError, match=message):
        search_on_ray(work)
