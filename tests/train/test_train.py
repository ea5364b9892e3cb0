"""The stage train as a user runs it: killed, continued, and with the same bytes at the end."""

import json
import os
import signal
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file

from stages.language_model.encoding import encode_pairs, to_text
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.prompt_template import build_prompt_template, endings
from stages.methods.decoding import greedy
from stages.methods.trained_method import TEMPLATE_TEXT, load_trained, read_description, read_trained
from stages.params.methods import Dynamic
from stages.params.schema import load_params
from stages.params.sources import CHAT_TEMPLATE
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder
from stages.records import Pair, read_records
from stages.similarity.bleu import bleu
from stages.train.examples import PAIRS
from tests.stage_runs import contents
from tests.stops import Stop
from tests.tiny import tiny_model
from tests.training_runs import checkpoints, finish, result, start, stopped, workspace, write_subset


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = workspace(tmp_path_factory.mktemp("undisturbed"))
    finish(folder)
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
    assert summary["validation_bleu4"] == max(row["bleu4"] for row in rows)
    description = json.loads((undisturbed / "data/train/method.json").read_text())
    assert Dynamic.model_validate(description["method"])
    tensors = load_file(undisturbed / "data/train/weights.safetensors")
    assert summary["trained_parameters"] == sum(tensor.numel() for tensor in tensors.values())


def test_training_lowers_the_loss_and_moves_the_answers(undisturbed: Path) -> None:
    rows = json.loads((undisturbed / "metrics/curves.json").read_text())
    highest = [row for row in rows if row["trial"] == 2]
    assert highest[-1]["train_loss"] < highest[0]["train_loss"]
    assert highest[-1]["validation_loss"] < highest[0]["validation_loss"]


def test_a_finished_search_keeps_its_results_and_the_best_weights_and_nothing_else(undisturbed: Path) -> None:
    states = list((undisturbed / ".state/train").iterdir())
    assert [{path.name for path in state.iterdir()} for state in states] == [{"lock", "result"}] * 3
    weights = [path for state in states for path in state.rglob("*.safetensors")]
    assert [path.parent.name for path in weights] == ["result"], "of the best trial alone"


def validation_bleu4(folder: Path) -> float:
    """BLEU-4 on the validation pairs, with the weights that the stage wrote."""
    base = load_base_model(folder / "data/download/model", torch.device("cpu"), torch.float32)
    tokenizer = load_tokenizer(folder / "data/download/model")
    pairs = read_records(folder / "data/subset/validation.jsonl", Pair)
    params = load_params(folder / "params.yaml")
    lengths = params.chosen_protocol.lengths
    description = json.loads((folder / "data/train/method.json").read_text())
    method, own = read_trained(folder / "data/train", base, description)
    prompt_template = build_prompt_template(tokenizer, params.chosen_model.prompt_template, lengths, "prompt_template")
    queries = list(encode_pairs(pairs, tokenizer, prompt_template, lengths)[0]["query"])
    answers = greedy(method, own, queries, lengths.max_new_tokens, endings(tokenizer, prompt_template, base))
    return bleu([to_text(answer, tokenizer) for answer in answers], [pair.response for pair in pairs])


def test_the_weights_have_the_score_that_is_reported_of_them_on_the_validation_pairs(undisturbed: Path) -> None:
    summary = json.loads((undisturbed / "metrics/train.json").read_text())
    assert validation_bleu4(undisturbed) == pytest.approx(summary["validation_bleu4"], abs=1e-6)


def test_the_weights_are_those_of_the_best_epoch_not_of_the_last(tmp_path: Path) -> None:
    hot = {"low": 0.01, "high": 0.05, "trials": 2}  # makes an early epoch the best
    changes = {"protocols.tiny.training.learning_rates": hot, "protocols.tiny.training.num_train_epochs": 6}
    folder = workspace(tmp_path / "early", method="fine-tune", **changes)
    finish(folder)
    rows = json.loads((folder / "metrics/curves.json").read_text())
    summary = json.loads((folder / "metrics/train.json").read_text())
    last = [row for row in rows if row["learning_rate"] == summary["learning_rate"]][-1]
    assert summary["epoch"] < last["epoch"]
    assert summary["validation_bleu4"] > last["bleu4"] + 1e-4
    assert validation_bleu4(folder) == pytest.approx(summary["validation_bleu4"], abs=1e-6)


def test_the_test_pairs_change_nothing_and_are_no_reason_to_train_again(undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "other-test")
    write_subset(folder / "data/subset", test_seed=7)
    finish(folder)
    assert result(folder) == result(undisturbed)
    write_subset(folder / "data/subset", test_seed=8)
    assert "epoch" not in finish(folder)
    assert result(folder) == result(undisturbed)


def test_a_second_run_trains_nothing_again(undisturbed: Path) -> None:
    before = result(undisturbed)
    assert "epoch" not in finish(undisturbed)
    assert result(undisturbed) == before


def test_killed_in_an_epoch_and_in_a_checkpoint_it_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "killed")
    moments = {  # the name of a checkpoint has the epoch and step at which it goes on
        Stop(1, "-000002-00000000", "os.rename"): 0,
        Stop(1, "-000004-00000000", "os.mkdir"): 2,
        Stop(4, "-000004-00000000"): 2,
    }
    for moment, whole in moments.items():
        code, _ = stopped(folder, moment)
        assert code == -signal.SIGKILL
        assert len(checkpoints(folder)) == whole
        assert not (folder / "data/train").exists()
    err = finish(folder)
    assert "epoch 1 of at most 4, learning rate 0.001:" not in err
    assert "goes on where it was stopped: in epoch 3, 0 steps done" in err
    assert result(folder) == result(undisturbed)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first(number: int, expected: int, undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "stopped")
    code, err = stopped(folder, Stop(1, "-000002-00000000", "os.rename", number))
    assert code == expected
    assert err.splitlines()[-1].startswith("ERROR train: ")
    assert "Traceback" not in err and "goes on where" not in err
    assert "goes on where it was stopped: in epoch " in finish(folder)
    assert result(folder) == result(undisturbed)


def test_it_goes_on_with_the_next_trial(undisturbed: Path, tmp_path: Path) -> None:
    killed = workspace(tmp_path / "killed")
    stopped(killed, Stop(4, "-000002-00000000", "os.rename"))  # in the second trial
    err = finish(killed)
    assert "learning rate 0.001:" not in err  # the finished trial is not trained again
    assert result(killed) == result(undisturbed)


ENDINGS = {
    "before the last checkpoints are removed": Stop(21, "/checkpoints", "shutil.rmtree"),
    "before the weights of the others go": Stop(7, "-result", "os.mkdir"),
    "between an old result and the new one": Stop(8, "-result", "os.rename"),
    "before the output is written": Stop(1, "/data/.tmp-", "os.mkdir"),
}


@pytest.mark.parametrize("moment", ENDINGS.values(), ids=ENDINGS)
def test_killed_when_all_trials_are_over_nothing_is_trained_again(
    moment: Stop, undisturbed: Path, tmp_path: Path
) -> None:
    folder = workspace(tmp_path / "over")
    assert stopped(folder, moment)[0] == -signal.SIGKILL
    assert not (folder / "data/train").exists()
    assert "epoch" not in finish(folder)
    assert result(folder) == result(undisturbed)
    kept = {path.name for state in (folder / ".state/train").iterdir() for path in state.rglob("*")}
    assert kept == {"lock", "result", "manifest.json", "weights.safetensors"}


def test_no_training_touches_another_s_state_however_old(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "shared", method="fine-tune")
    stopped(folder, Stop(3, "-000002-00000000", "os.mkdir"))  # the first trial has finished
    own = list((folder / ".state/train").iterdir())
    assert len(own) == 2
    for path in [each for state in own for each in (state, *state.rglob("*"))]:
        os.utime(path, (0, 0))
    before = contents(*own)
    workspace(folder, method="dynamic", seed=1)
    finish(folder)
    assert contents(*own) == before
    workspace(folder, method="fine-tune")
    assert "learning rate 0.001:" not in finish(folder)


def test_other_parameters_never_use_the_state_of_these(undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "other", seed=1)
    (folder / ".state").symlink_to(undisturbed / ".state")
    err = finish(folder)
    assert "epoch 1 " in err
    assert result(folder) != result(undisturbed)


def test_two_at_once_one_works_and_the_other_names_it(undisturbed: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "both")
    first = start(folder, Stop(1, "-000002-00000000", "os.rename", signal.SIGSTOP))
    first.wait_until_paused()  # it holds its lock for longer than the second one waits
    code, err = start(folder, DIALOG_PROMPTING_LOCK_SECONDS="1").wait()
    first.signal(signal.SIGCONT)
    assert first.wait()[0] == 0
    assert code == 1
    assert f"held by process {first.pid}" in err.splitlines()[-1]
    assert result(folder) == result(undisturbed)


def test_every_trial_diverged_is_an_error(tmp_path: Path) -> None:
    hot = {
        "protocols.tiny.training.learning_rates": {"low": 0.9, "high": 1.0, "trials": 2},
        "protocols.tiny.training.weight_decay": 1e30,
    }
    folder = workspace(tmp_path / "diverged", **hot)
    code, err = start(folder).wait()
    assert code == 1
    assert "every trial diverged" in err.splitlines()[-1] and "step " in err.splitlines()[-1]


def test_lengths_beyond_the_model_s_positions_are_refused(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "long", **{"protocols.tiny.lengths": {"max_query_tokens": 300, "max_new_tokens": 12}})
    code, err = start(folder).wait()
    assert code == 1
    assert "612 tokens, the model takes 512" in err.splitlines()[-1]


def test_the_text_that_a_chat_template_gave_is_written_beside_the_weights(tmp_path: Path) -> None:
    template = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<|endoftext|>{% endfor %}"
    folder = workspace(tmp_path / "template", method="zero-shot", **{"models.smollm2.prompt_template": CHAT_TEMPLATE})
    with output_folder(folder / "data/download/model") as model:
        tiny_model(model)
        tokenizer = load_tokenizer(model)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(model)
    finish(folder)
    description = json.loads((folder / "data/train/method.json").read_text())
    assert description["prompt_template"] == CHAT_TEMPLATE
    text = {"prefix": "<u>", "separator": "<|endoftext|><a>", "end": "<|endoftext|>"}
    assert description[TEMPLATE_TEXT] == text


def test_an_end_that_people_write_is_refused_with_the_number_of_responses_that_have_it(tmp_path: Path) -> None:
    """The stand-ins of the first check have no such mark: only the corpus shows it."""
    prompt_template = {"separator": "\n", "end": "!"}
    folder = workspace(tmp_path / "mark", **{"models.smollm2.prompt_template": prompt_template})
    files = [folder / "data/subset" / name for name in PAIRS]
    pairs = [pair for file in files for pair in read_records(file, Pair)]
    count = sum("!" in pair.response for pair in pairs)
    code, err = start(folder).wait()
    said = (
        f"models.smollm2.prompt_template: its end, '!', is inside {count} of {len(pairs)} responses; choose another end"
    )
    assert (code, err.splitlines()[-1]) == (1, f"ERROR train: params.yaml: {said}")
    assert count > 2


def test_weights_of_another_base_model_are_refused(undisturbed: Path) -> None:
    with pytest.raises(StageError, match="trained on the base model"):
        read_description(undisturbed / "data/train", "0" * 64)


@pytest.mark.parametrize(("choose", "best"), [("random", "loss"), ("nearest", "loss"), ("nearest", "bleu4")])
def test_validation_chooses_the_number_of_examples_and_what_is_kept_reads_the_same(
    choose: Literal["random", "nearest"], best: str, tmp_path: Path
) -> None:
    settings = {"kind": "few-shot", "examples": [1, 4], "choose": choose}
    metric = {"protocols.tiny.training.metric_for_best_model": best}
    folder = workspace(tmp_path / choose, method="few-shot", **{"methods.few-shot": settings}, **metric)
    finish(folder)
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
    decoded = trained.decode_and_score(trained.encode([pair.query for pair in pairs])[0], references)
    assert float(decoded.losses.sum()) / sum(map(len, references)) == pytest.approx(chosen["validation_loss"], rel=1e-5)
    answers = bleu(trained.texts(decoded.answers), [pair.response for pair in pairs])
    assert answers == pytest.approx(chosen["validation_bleu4"], abs=1e-6)
    assert (folder / "data/train/pairs.jsonl").exists() == (choose == "nearest")
