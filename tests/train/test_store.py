"""Checkpoints at an address of fsspec: a training whose machine is gone goes on elsewhere, from its last epoch."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from stages.params.schema import load_params
from stages.plumbing.errors import StageError
from stages.train.checkpoint import TrainingState
from stages.train.groups import train_group
from stages.train.search import best_trial
from stages.train.store import SharedState, Store, state_of
from stages.train.trials import Trial
from tests.models import method, weights
from tests.stage_runs import fails
from tests.stops import Stop
from tests.train.test_memory import RATES, sweep
from tests.training_runs import checkpoints, finish, result, stopped, workspace

ENVIRONMENT = {"device": "one"}
TRIALS = RATES[:2]


class Died(Exception):
    """The machine is gone."""


@pytest.fixture(params=["memory", "folder"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield "memory://checkpoints/run" if request.param == "memory" else str(tmp_path / "shared")
    fsspec.filesystem("memory").store.clear()


def train(state: TrainingState) -> list[Trial]:
    trained = method("dynamic", dropout=0.1)
    return train_group(sweep(trained), weights(trained), state, TRIALS)


def die_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends as if it was killed, after so many checkpoints."""
    save, count = SharedState.save, 0

    def counted(self: SharedState, *words: object) -> None:
        nonlocal count
        save(self, *words)  # type: ignore[arg-type]
        count += 1
        if count == saves:
            raise Died

    monkeypatch.setattr(SharedState, "save", counted)


def interrupted(disk: Path, address: str) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        die_after(1, patch)
        train(state_of(disk, "f", ENVIRONMENT, address))


def test_on_another_disk_it_goes_on_from_the_last_epoch_and_ends_with_the_same_bytes(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = TrainingState(tmp_path / "undisturbed", "f", ENVIRONMENT)
    expected = train(undisturbed)
    interrupted(tmp_path / "one", address)
    capsys.readouterr()
    other = state_of(tmp_path / "other", "f", ENVIRONMENT, address)
    trials = train(other)
    assert "goes on where it was stopped: in epoch 2, 0 steps done" in capsys.readouterr().out
    assert [trial.curve for trial in trials] == [trial.curve for trial in expected]
    best = best_trial(trials, "bleu4")
    assert other.best_weights(best).read_bytes() == undisturbed.best_weights(best_trial(expected, "bleu4")).read_bytes()
    assert other.environments == [ENVIRONMENT]


def test_on_another_disk_a_group_with_a_checkpoint_is_not_split_and_keeps_to_an_earlier_split(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [[RATES[0], RATES[1]], [RATES[2]]]
    state_of(tmp_path / "one", "f", ENVIRONMENT, address).write_groups([TRIALS])
    state_of(tmp_path / "one", "f", ENVIRONMENT, address).write_groups(parts)
    interrupted(tmp_path / "one", address)
    monkeypatch.setattr("stages.train.groups.check_room", lambda *words: pytest.fail("it is not begun anew"))
    other = state_of(tmp_path / "other", "f", ENVIRONMENT, address)
    assert other.read_groups([RATES[:3]]) == parts
    train(other)
    assert "goes on where it was stopped" in capsys.readouterr().out


def test_an_address_may_hold_characters_of_patterns(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"{address}/runs[1]*"
    interrupted(tmp_path / "one", address)
    other = state_of(tmp_path / "other", "f", ENVIRONMENT, address)
    train(other)
    assert "goes on where it was stopped" in capsys.readouterr().out
    other.keep_result_only()
    assert Store(address, "f")._files(Store(address, "f").root) == []


def test_a_damaged_copy_of_a_checkpoint_does_not_keep_a_group_from_being_split(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "one", address)
    store = Store(address, "f")
    (newest,) = (name for name in store.names() if name.startswith("checkpoints/"))
    store.system.pipe_file(f"{store.root}/{newest}/state.json", b"")
    assert not state_of(tmp_path / "other", "f", ENVIRONMENT, address).has_begun(0)


def test_a_split_that_is_damaged_is_passed_over(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = state_of(tmp_path / "one", "f", ENVIRONMENT, address)
    state.write_groups([[one] for one in TRIALS])
    (state.groups / "groups.json").write_text("[[0]]", encoding="utf-8")
    assert state.read_groups([TRIALS]) == [TRIALS] and "passed over" in capsys.readouterr().err
    assert state.read_groups([TRIALS]) == [[one] for one in TRIALS], "now it comes from the copy"


def test_the_environments_that_it_was_trained_in_are_noted(address: str, tmp_path: Path) -> None:
    interrupted(tmp_path / "one", address)
    other = state_of(tmp_path / "other", "f", {"device": "another"}, address)
    train(other)
    assert other.environments == [ENVIRONMENT, {"device": "another"}]


def test_what_is_there_is_what_is_on_the_disk(address: str, tmp_path: Path) -> None:
    state = state_of(tmp_path, "f", ENVIRONMENT, address)
    trials = train(state)
    store = Store(address, "f")
    own = {path.parent.relative_to(state.folder).as_posix() for path in state.folder.rglob("manifest.json")}
    assert store.names() == own
    state.write_result(trials, state.best_weights(best_trial(trials, "bleu4")), [])
    assert "result" in store.names()
    elsewhere = state_of(tmp_path / "other", "f", ENVIRONMENT, address)
    assert [trial.curve for trial in elsewhere.read_result()] == [trial.curve for trial in trials]
    state.keep_result_only()
    assert store.names() == set()


@pytest.mark.parametrize("damage", [b"", b"x" * 50])
def test_a_damaged_copy_is_passed_over(
    damage: bytes, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "one", address)
    store = Store(address, "f")
    (newest,) = (name for name in store.names() if name.startswith("checkpoints/"))
    store.system.pipe_file(f"{store.root}/{newest}/state.json", damage)
    trials = train(state_of(tmp_path / "other", "f", ENVIRONMENT, address))
    assert "not usable" in capsys.readouterr().err
    assert all(trial.status == "finished" for trial in trials)


def test_a_copy_without_its_manifest_is_none(address: str, tmp_path: Path) -> None:
    """The manifest is copied last: a kill in between leaves such a folder."""
    interrupted(tmp_path / "one", address)
    store = Store(address, "f")
    (newest,) = (name for name in store.names() if name.startswith("checkpoints/"))
    store.system.rm_file(f"{store.root}/{newest}/manifest.json")
    assert newest not in store.names()
    other = state_of(tmp_path / "other", "f", ENVIRONMENT, address)
    train(other)
    assert not (other.folder / newest).exists()


def test_the_stage_goes_on_when_the_whole_state_folder_is_gone(tmp_path: Path) -> None:
    shared = {"runtime.checkpoints": str(tmp_path / "shared")}
    plain, killed = workspace(tmp_path / "plain"), workspace(tmp_path / "killed", **shared)
    finish(plain)
    stopped(killed, Stop(1, "-000004-00000000", "os.mkdir"))
    assert checkpoints(killed)
    (killed / ".state").rename(tmp_path / "gone")
    assert "goes on where it was stopped: in epoch 3, 0 steps done" in finish(killed)
    assert result(killed) == result(plain)
    assert [path for path in (tmp_path / "shared").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere://bucket/x", "runtime.checkpoints: nowhere://bucket/x: "),
        ("/proc/checkpoints", "runtime.checkpoints: /proc/checkpoints: "),
    ],
)
def test_an_address_that_cannot_be_written_is_named(address: str, message: str, tmp_path: Path) -> None:
    assert message in fails(workspace(tmp_path / "nowhere", **{"runtime.checkpoints": address}), "train")


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "secret", **{"runtime.checkpoints": "s3://me:hunter2@store/x"})
    with pytest.raises(StageError, match=r"runtime\.checkpoints: an address with a password in it") as refused:
        load_params(folder / "params.yaml")
    assert "hunter2" not in str(refused.value)
