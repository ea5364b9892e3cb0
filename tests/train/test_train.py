"""The stage train as a user runs it: killed, continued, and with the same bytes at the end."""

import json
import signal
from pathlib import Path
from typing import Literal

import pytest
from safetensors.torch import load_file

from stages.language_model.encoding import encode_pairs
from stages.language_model.loading import load_tokenizer
from stages.methods.trained_method import TEMPLATE_TEXT, load_trained
from stages.params.methods import Dynamic
from stages.params.sources import CHAT_TEMPLATE
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder
from stages.records import Pair, read_records
from stages.similarity.bleu import bleu
from stages.train.examples import PAIRS
from stages.train.job import load
from tests.stage_runs import finish, start, stopped
from tests.stops import Stop
from tests.tiny import tiny_model
from tests.train.test_trial import job_in
from tests.training_runs import result, workspace, write_subset


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = workspace(tmp_path_factory.mktemp("undisturbed"))
    finish(folder, "train")
    return folder


def test_what_is_written(undisturbed: Path) -> None:
    rows = json.loads((undisturbed / "metrics/curves.json").read_text())
    rates = json.loads((undisturbed / "metrics/learning_rates.json").read_text())
    summary = json.loads((undisturbed / "metrics/train.json").read_text())
    assert {row["trial"] for row in rows} == {0, 1, 2}
    scores = {"train_loss", "validation_loss", "bleu4", "empty", "distinct", "selection"}
    assert set(rows[0]) == {"trial", "learning_rate", "epoch", *scores}
    assert all(row["selection"] == row["bleu4"] for row in [*rows, *rates])
    assert [rate["learning_rate"] for rate in rates] == pytest.approx([0.001, 1e-5**0.5, 0.01])
    best = max(rates, key=lambda rate: (rate["bleu4"], -rate["trial"]))
    assert summary["learning_rate"] == best["learning_rate"]
    assert json.loads((undisturbed / "metrics/cost/train.json").read_text())["precision"] == "float32"
    assert summary["validation_bleu4"] == max(row["bleu4"] for row in rows)
    highest = [row for row in rows if row["trial"] == 2]
    assert highest[-1]["train_loss"] < highest[0]["train_loss"]
    assert highest[-1]["validation_loss"] < highest[0]["validation_loss"]
    description = json.loads((undisturbed / "data/train/method.json").read_text())
    assert Dynamic.model_validate(description["method"])
    assert description["environments"][0]["environment"]["threads"] == 1
    tensors = load_file(undisturbed / "data/train/weights.safetensors")
    assert summary["trained_parameters"] == sum(tensor.numel() for tensor in tensors.values())
    states = list((undisturbed / ".state/train").iterdir())
    assert [{path.name for path in state.iterdir()} for state in states] == [{"lock", "result"}] * 3
    assert len([*undisturbed.glob(".state/train/*/result/*.safetensors")]) == 1, "of the best trial alone"


def test_the_weights_are_those_of_the_best_epoch_not_of_the_last(tmp_path: Path) -> None:
    hot = {"low": 0.01, "high": 0.05, "trials": 2}  # makes an early epoch the best
    changes = {"protocols.tiny.training.learning_rates": hot, "protocols.tiny.training.num_train_epochs": 6}
    folder = workspace(tmp_path / "early", method="fine-tune", **changes)
    finish(folder, "train")
    rows = json.loads((folder / "metrics/curves.json").read_text())
    summary = json.loads((folder / "metrics/train.json").read_text())
    last = [row for row in rows if row["learning_rate"] == summary["learning_rate"]][-1]
    assert summary["epoch"] < last["epoch"]
    assert summary["validation_bleu4"] > last["bleu4"] + 1e-4
    pairs = read_records(folder / "data/subset/validation.jsonl", Pair)
    said = load_trained(folder / "data/train", folder / "data/download/model").respond([pair.query for pair in pairs])
    assert bleu(said, [pair.response for pair in pairs]) == pytest.approx(summary["validation_bleu4"], abs=1e-6)


def test_other_test_pairs_are_no_reason_to_train_again(undisturbed: Path) -> None:
    before = result(undisturbed)
    write_subset(undisturbed / "data/subset", test_seed=8)
    assert "epoch" not in finish(undisturbed, "train")
    assert result(undisturbed) == before


def test_two_at_once_one_works_and_the_other_names_it(undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "both")
    first = start(folder, "train", Stop(1, "-000002-00000000", "os.rename", signal.SIGSTOP))
    first.wait_until_paused()  # it holds its lock for longer than the second one waits
    code, err = start(folder, "train", DIALOG_PROMPTING_LOCK_SECONDS="1").wait()
    first.signal(signal.SIGCONT)
    assert first.wait()[0] == 0
    assert code == 1
    assert f"held by process {first.pid}" in err.splitlines()[-1]
    assert result(folder) == result(undisturbed)


ENDINGS = {
    "before the last checkpoints are removed": Stop(21, "/checkpoints", "shutil.rmtree"),
    "before the weights of the others go": Stop(7, "-result", "os.mkdir"),
    "between an old result and the new one": Stop(8, "-result", "os.rename"),
}


@pytest.mark.parametrize("moment", ENDINGS.values(), ids=ENDINGS)
def test_killed_after_all_trials_nothing_is_trained_again(moment: Stop, undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "over")
    assert stopped(folder, "train", moment)[0] == -signal.SIGKILL
    assert not (folder / "data/train").exists()
    assert "epoch" not in finish(folder, "train")
    assert result(folder) == result(undisturbed)
    kept = {path.name for state in (folder / ".state/train").iterdir() for path in state.rglob("*")}
    assert kept == {"lock", "result", "manifest.json", "weights.safetensors"}


def test_the_text_that_a_chat_template_gave_is_written_beside_the_weights(tmp_path: Path) -> None:
    template = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<|endoftext|>{% endfor %}"
    folder = workspace(tmp_path / "template", method="zero-shot", **{"models.smollm2.prompt_template": CHAT_TEMPLATE})
    with output_folder(folder / "data/download/model") as model:
        tiny_model(model)
        tokenizer = load_tokenizer(model)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(model)
    finish(folder, "train")
    description = json.loads((folder / "data/train/method.json").read_text())
    assert description["prompt_template"] == CHAT_TEMPLATE
    text = {"prefix": "<u>", "separator": "<|endoftext|><a>", "end": "<|endoftext|>"}
    assert description[TEMPLATE_TEXT] == text


def test_an_end_that_people_write_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stand-ins of the first check have no such mark: only the corpus shows it."""
    job = job_in(tmp_path, monkeypatch, **{"models.smollm2.prompt_template": {"separator": "\n", "end": "!"}})
    pairs = [pair for name in PAIRS for pair in read_records(job.subset / name, Pair)]
    count = sum("!" in pair.response for pair in pairs)
    assert count > 2
    with pytest.raises(StageError, match=f"smollm2.prompt_template: .* inside {count} of {len(pairs)} responses; "):
        load(job)


@pytest.mark.parametrize(("choose", "best"), [("random", "loss"), ("nearest", "loss"), ("nearest", "bleu4")])
def test_validation_chooses_how_many_examples(choose: Literal["random", "nearest"], best: str, tmp_path: Path) -> None:
    settings = {"kind": "few-shot", "examples": [1, 4], "choose": choose}
    metric = {"protocols.tiny.training.metric_for_best_model": best}
    folder = workspace(tmp_path / choose, method="few-shot", **{"methods.few-shot": settings}, **metric)
    finish(folder, "train")
    rates = json.loads((folder / "metrics/learning_rates.json").read_text())
    chosen = json.loads((folder / "metrics/train.json").read_text())
    assert [row["examples"] for row in rates] == [1, 4]
    assert rates[0]["validation_loss"] != rates[1]["validation_loss"]
    better = min if best == "loss" else max
    assert chosen["examples"] == better(rates, key=lambda row: row["selection"])["examples"]
    trained = load_trained(folder / "data/train", folder / "data/download/model")
    pairs = read_records(folder / "data/subset/validation.jsonl", Pair)
    tokens, _ = encode_pairs(pairs, trained.tokenizer, trained.prompt_template, trained.lengths)
    references = list(tokens["response"])
    decoded = trained.decode_and_score(trained.encode([pair.query for pair in pairs]), references)
    assert float(decoded.losses.sum()) / sum(map(len, references)) == pytest.approx(chosen["validation_loss"], rel=1e-5)
    answers = bleu(trained.texts(decoded.answers), [pair.response for pair in pairs])
    assert answers == pytest.approx(chosen["validation_bleu4"], abs=1e-6)
    assert (folder / "data/train/pairs.jsonl").exists() == (choose == "nearest")
