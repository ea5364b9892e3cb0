"""The benchmark: both sides compute the same, ratios are right, and every row is produced. Tests assert no times."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.bench import __main__ as bench
from stages.bench import clock, data, table, trainer, training
from stages.bench.decoding import generate
from stages.language_model.encoding import EncodedPair
from stages.methods.decoding import decode_and_score
from stages.methods.method import Method
from stages.plumbing.files import output_folder
from stages.records import Pair, write_records
from stages.train.step import Learner
from tests.models import FAMILIES, method, model_folder, moved_weights, pairs
from tests.tiny import tiny_model

CPU = torch.device("cpu")
SIZE = data.TRAINING.batch_size


def baseline(one: Method, own: dict[str, Tensor], family: str, tied: bool) -> nn.Module:
    return trainer.same_module(one, own, trainer.load_plain_model(model_folder(family, tied), CPU))


@pytest.mark.parametrize("name", ["fine-tune", "soft", "dynamic"])
def test_two_steps_of_trainer_lead_to_the_weights_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not GPT-2: its keys have biases whose gradient is rounding noise around zero, and Adam turns that into full steps.
    one, some = method(name, "llama"), pairs(2 * SIZE)
    seen: list[EncodedPair] = []
    first, second = some[:SIZE], some[SIZE:]
    start = moved_weights(one)
    trial = Learner(one, start, data.TRAINING, (40, 40))
    for batch in (first, second):
        trial.step(batch, 0, 1e-3)
    module = baseline(one, start, "llama", True)
    lay_out = trainer.lay_out

    def looked_at(batch: Sequence[EncodedPair], prompted: bool) -> dict[str, Tensor]:
        seen.extend(batch)
        assert not torch.are_deterministic_algorithms_enabled()  # theirs pays for nothing that is ours
        return lay_out(batch, prompted)

    monkeypatch.setattr(trainer, "lay_out", looked_at)
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert trainer.trainer_seconds(module, 1e-3, first, second, one.base) > 0
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    assert seen == some  # each pair once, in the order given
    theirs = [value.detach() for value in module.parameters() if value.requires_grad]
    for key, value in trial.weights.items():
        same_shape = [other for other in theirs if other.shape == value.shape]
        assert min((other - value).abs().mean() for other in same_shape) < 1e-6, key
        assert (value - start[key]).abs().max() > 1e-3, key  # it moved


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("name", ["zero-shot", "dynamic"])
def test_generate_gives_the_tokens_of_ours(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    own = moved_weights(one) if one.shapes() else {}
    queries = [pair.query for pair in pairs(9, seed=3)]
    ours = decode_and_score(one, own, queries, None, data.LENGTHS.max_new_tokens, {5: []}).answers
    for batch_size, by_length in ((1, False), (4, True)):
        assert generate(baseline(one, own, family, tied).eval(), queries, 5, batch_size, by_length) == ours
    assert len({tuple(answer) for answer in ours}) > 1


def test_contenders_take_turns_and_a_ratio_is_that_of_the_medians() -> None:
    order: list[tuple[str, int]] = []
    rates = {"x": [4.0, 6.0, 5.0], "y": [2.0, 2.0, 2.5]}

    def contender(name: str, repeat: int) -> float:
        order.append((name, repeat))
        return rates[name][repeat]

    (found,) = clock.take_turns("title", {name: partial(contender, name) for name in "xy"}, 3)
    assert order == [("x", 0), ("y", 0), ("y", 1), ("x", 1), ("x", 2), ("y", 2)]
    assert found["ours"] == {"name": "x", "median": 5.0, "min": 4.0, "max": 6.0, "repeats": rates["x"]}
    assert found["ratio"] == {"median": 2.5, "min": 2.0, "max": 3.0}


@pytest.fixture
def arguments(tmp_path: Path) -> argparse.Namespace:
    some = [Pair("d", number, "how are you " * number, "fine ok") for number in range(1, 41)]
    with output_folder(tmp_path / "pairs") as folder:
        for split in ("train", "test"):
            write_records(folder / f"{split}.jsonl", some)
    with output_folder(tmp_path / "model") as folder:
        tiny_model(folder, "gpt2")
    counts = {"--repeats": 1, "--steps": 1, "--queries": 5, "--trials": 2}
    places = {"--model": tmp_path / "model", "--pairs": tmp_path / "pairs", "--out": tmp_path / "out.json"}
    return bench.arguments_of().parse_args([str(word) for each in (counts | places).items() for word in each])


def test_each_row_is_measured_beside_theirs(arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WARM", 1)
    bench.main(arguments)
    found: dict[str, Any] = json.loads(arguments.out.read_bytes())
    assert arguments.out.with_suffix(".md").read_text(encoding="utf-8") == table.render(found)
    for name in ("training", "sweep"):
        lines = found["rows"][name]
        assert [line["subject"] for line in lines] == [each for each in data.SETTINGS if each != "zero-shot"]
        assert [line["theirs"]["name"] for line in lines] == ["Trainer"] * 3 + ["PEFT with Trainer"] * 3
    decoding = [line["subject"] for line in found["rows"]["decoding"]]
    assert len(decoding) == 8 and all(subject.endswith("; 0 differ") for subject in decoding)
