"""What greedy-generate writes of each test pair, here and on a stand-in for Ray."""

from pathlib import Path

import pytest
import torch

from stages.greedy_generate.forgetting import read_text
from stages.greedy_generate.generation import generate, generate_on_ray
from stages.language_model.encoding import EncodedPair, encode_pairs
from stages.methods.trained_method import load_trained
from stages.params.schema import Params, load_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder
from stages.records import Pair, read_records
from tests import fake_ray
from tests.models import loss_of
from tests.trained import trained_workspace, write_method

MODEL, TRAINED = Path("data/download/model"), Path("data/train")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_workspace(tmp_path_factory.mktemp("on-ray") / "workspace")


Task = tuple[Params, list[Pair], str]


def with_device(task: Task, device: str) -> Task:
    params, pairs, text = task
    runtime = params.runtime.model_copy(update={"device": device})
    return params.model_copy(update={"runtime": runtime}), pairs, text


def read_task() -> Task:
    params = load_params()
    return params, read_records(Path("data/subset/test.jsonl"), Pair), read_text(params.forgetting)


@pytest.fixture
def task(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.chdir(workspace)
    return read_task()


@pytest.mark.parametrize("nearest", [False, True])
def test_each_response_has_its_reference_s_loss(nearest: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained_workspace(tmp_path / "workspace"))
    if nearest:
        write_method(TRAINED, MODEL, "few-shot", nearest=Path("data/subset/train.jsonl"))
    task = _, pairs, _ = read_task()
    responses = generate(*task, MODEL, TRAINED).responses
    trained = load_trained(TRAINED, MODEL)
    encoded, _ = encode_pairs(pairs, trained.tokenizer, trained.prompt_template, trained.lengths)
    assert [(each.query, each.reference) for each in responses] == [(pair.query, pair.response) for pair in pairs]
    assert [each.response for each in responses] == trained.respond([pair.query for pair in pairs])
    assert [each.tokens for each in responses] == [len(tokens) for tokens in encoded["response"]]
    assert len({each.tokens for each in responses}) > 2
    queries = trained.encode([pair.query for pair in pairs])
    for query, reference, found in zip(queries, encoded["response"], responses, strict=True):
        with torch.inference_mode():
            loss = loss_of(trained.method, trained.weights, [EncodedPair(query, reference)])
        assert found.loss == pytest.approx(float(loss), abs=1e-3)


def test_ray_gives_the_responses_that_local_gives(task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = fake_ray.install(monkeypatch, tmp_path / "node", {"CPU": 8.0, "GPU": 8.0}, {"CPU": 64.0})
    made = generate_on_ray(*with_device(task, "auto"), MODEL, TRAINED)
    here = generate(*with_device(task, "auto"), MODEL, TRAINED)
    assert made.responses == here.responses
    assert made.facts == here.facts
    assert made.facts["relevance"] == {"queries": 11, "others": 9}, "what they are of: two of the 12 queries are equal"
    assert made.facts["threads"] == torch.get_num_threads()
    assert made.cost.keys() == here.cost.keys()
    (options,) = ray.options
    assert (options["num_gpus"], options["num_cpus"]) == (1.0, 1)
    inputs = [path.name.partition("-")[0] for path in tmp_path.glob("node/dialog-prompting-*/*/*") if path.is_dir()]
    assert inputs == ["model"], "the base model stays for the next task, trained weights do not"


def test_a_device_must_be_on_a_node_not_here(task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    fake_ray.install(monkeypatch, tmp_path / "node", {"CPU": 8.0, "GPU": 1.0})
    with pytest.raises(StageError, match=r"^node 127\.0\.0\.9: params\.yaml: runtime\.device: cuda, which"):
        generate_on_ray(*with_device(task, "cuda"), MODEL, TRAINED)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ('"max_query_tokens": 1', r"tiny\.lengths\.max_query_tokens: 32, but .* with 132;"),
        ('"separator": "x', r"models\.smollm2\.prompt_template: .* was trained with another one;"),
    ],
)
def test_what_was_trained_otherwise_is_refused(
    then: str, said: str, task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = fake_ray.install(monkeypatch, tmp_path / "node")
    with output_folder(tmp_path / "other") as other:
        for path in TRAINED.iterdir():
            (other / path.name).write_text(path.read_text("latin-1").replace(then[:-1], then), "latin-1")
    with pytest.raises(StageError, match=said):
        generate_on_ray(*task, MODEL, tmp_path / "other")
    assert not ray.settings
