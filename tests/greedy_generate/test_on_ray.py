"""greedy-generate with runtime.engine ray, on a stand-in for Ray; tests/train/test_ray.py has a real cluster."""

from dataclasses import replace
from pathlib import Path

import pytest

from stages.greedy_generate.generation import Task, generate, read_task
from stages.greedy_generate.on_ray import generate_on_ray
from stages.language_model import device
from stages.params.schema import load_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_manifest
from tests import fake_ray
from tests.trained import trained_workspace

MODEL, TRAINED = Path("data/download/model"), Path("data/train")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_workspace(tmp_path_factory.mktemp("on-ray") / "workspace")


def with_device(task: Task, device: str) -> Task:
    runtime = task.params.runtime.model_copy(update={"device": device})
    return replace(task, params=task.params.model_copy(update={"runtime": runtime}))


@pytest.fixture
def task(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.chdir(workspace)
    return read_task(Path("data/subset"), load_params())


def test_it_gives_the_responses_that_local_gives_with_the_share_of_a_unit(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = fake_ray.install(monkeypatch, tmp_path / "node", {"CPU": 8.0, "GPU": 8.0}, {"CPU": 64.0})
    made = generate_on_ray(with_device(task, "auto"), MODEL, TRAINED)
    here = generate(with_device(task, "auto"), MODEL, TRAINED)
    assert made.responses == here.responses
    assert made.facts == here.facts
    assert made.cost.keys() == here.cost.keys()
    (options,) = ray.options
    assert (options["num_gpus"], options["num_cpus"], options["max_calls"]) == (1.0, 1, 1)
    inputs = [path.name.partition("-")[0] for path in tmp_path.glob("node/dialog-prompting-*/*/*") if path.is_dir()]
    assert inputs == ["model"], "the base model stays for the next task, trained weights do not"


def test_a_device_that_only_nodes_have_is_no_error_and_one_that_none_has_is(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    fake_ray.install(monkeypatch, tmp_path / "one", {"CPU": 8.0})
    with pytest.raises(StageError, match=r"^params.yaml: runtime: a task needs 1 GPU and 1 CPUs, and none of 1 nodes"):
        generate_on_ray(with_device(task, "cuda"), MODEL, TRAINED)
    fake_ray.install(monkeypatch, tmp_path / "other", {"CPU": 8.0, "GPU": 1.0})
    with pytest.raises(StageError, match=r"^node 127\.0\.0\.9: "):  # it looks for it there, not here
        generate_on_ray(with_device(task, "cuda"), MODEL, TRAINED)


def test_another_version_of_a_library_on_the_node_is_refused(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    share = device.Share(0.0, 1, 1, {**device.library_versions(), "peft": "0"})
    monkeypatch.setattr("stages.greedy_generate.on_ray.share_of", lambda *_: share)
    with pytest.raises(StageError, match=r"^node 127\.0\.0\.9: software: peft .*, where the command was started 0; "):
        generate_on_ray(task, MODEL, TRAINED)


def test_what_was_trained_for_other_parameters_is_refused_before_a_cluster_is_asked_for(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = fake_ray.install(monkeypatch, tmp_path / "node")
    other = tmp_path / "other"
    other.mkdir()
    for path in TRAINED.iterdir():
        text = path.read_bytes()
        (other / path.name).write_bytes(text.replace(b'"max_query_tokens": ', b'"max_query_tokens": 1'))
    write_manifest(other)
    with pytest.raises(StageError, match=r"lengths\.max_query_tokens"):
        generate_on_ray(task, MODEL, other)
    assert ray.addresses == []
