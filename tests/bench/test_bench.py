"""The benchmark: both sides compute the same, ratios are right, and every row is produced. Tests assert no times."""

import argparse
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.bench import __main__ as bench
from stages.bench import (
    clock,
    data,
    engines,
    measure,
    products,
    results,
    scale,
    sleeping,
    synthetic,
    table,
    trainer,
    training,
)
from stages.bench.decoding import batch_sizes, generate
from stages.bench.shapes import SHAPES
from stages.bench.trainer import lay_out, load_plain_model, same_module, trainer_rate
from stages.language_model.cpu_linear import use_onednn
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import load_base_model
from stages.methods.batch import collate
from stages.methods.decoding import greedy
from stages.methods.method import Method
from stages.methods.trained_method import write_trained
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, files_hash, output_folder, write_json
from stages.records import Pair, write_records
from stages.train.losses import response_losses
from stages.train.trials import new_trial, train_step
from stages.train.trials_per_pass import TrialsPerPass
from tests.models import FAMILIES, TRAINING, method, model_folder, pairs, weights
from tests.tiny import ROOT, tiny_dialogues

CPU = torch.device("cpu")
TRAINED = ("fine-tune", "soft", "dynamic")
families = pytest.mark.parametrize(("family", "tied"), FAMILIES)
methods = pytest.mark.parametrize("name", TRAINED)


def moved(one: Method) -> dict[str, Tensor]:
    """Weights different from the initial ones, so that a baseline that ignores some of them gives other results."""
    generator = torch.Generator().manual_seed(7)
    return {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in weights(one).items()}


def baseline(one: Method, own: dict[str, Tensor], family: str, tied: bool) -> nn.Module:
    return same_module(one, own, load_plain_model(model_folder(family, tied), torch.float32, CPU))


@families
@methods
def test_the_module_for_trainer_has_the_loss_of_ours_on_the_same_pairs(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    own, some = moved(one), pairs(9)
    theirs = baseline(one, own, family, tied)(**lay_out(some, one.shares_layers)).loss
    ours = response_losses(one, [own], collate(some))[0] / sum(len(pair.response) for pair in some)
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)


@families
@methods
def test_both_sides_train_the_same_parameters(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    module = baseline(one, weights(one), family, tied)
    theirs = sorted(p.numel() for p in module.parameters() if p.requires_grad)
    # Neither side counts the controller's unused word embeddings.
    assert theirs == sorted(value.numel() for value in weights(one).values())


@methods
def test_two_steps_of_trainer_lead_to_the_weights_of_ours(name: str) -> None:
    # Not GPT-2: its keys have biases whose gradient is rounding noise around zero, and Adam turns that into full steps.
    one, some = method(name, "llama"), pairs(2 * TRAINING.batch_size)
    first, second = some[: TRAINING.batch_size], some[TRAINING.batch_size :]
    start = moved(one)
    trial = new_trial(start, 0, TRAINING.learning_rates.values()[0], TRAINING)
    for batch in (first, second):
        train_step(one, [trial], collate(batch), TRAINING, TrialsPerPass(1), dropout_seed=0)
    module = baseline(one, start, "llama", True)
    trainer_rate(module, partial(lay_out, prompted=one.shares_layers), first, second, TRAINING, CPU, torch.float32)
    theirs = [p.detach() for p in module.parameters() if p.requires_grad]
    for key, value in trial.weights.items():
        same_shape = [other for other in theirs if other.shape == value.shape]
        assert min((other - value).abs().max() for other in same_shape) < 1e-5, key
        assert (value - start[key]).abs().max() > 1e-3, key  # it moved


def test_trainer_reads_each_pair_once_behind_the_warm_ones_in_the_order_given() -> None:
    one, some = method("soft"), pairs(4 * TRAINING.batch_size)
    seen: list[EncodedPair] = []

    def collator(batch: Sequence[EncodedPair]) -> dict[str, Tensor]:
        seen.extend(batch)
        return lay_out(batch, True)

    module = baseline(one, weights(one), "gpt2", True)
    warm, rest = some[: TRAINING.batch_size], some[TRAINING.batch_size :]
    trainer_rate(module, collator, warm, rest, TRAINING, CPU, torch.float32)
    assert seen == some


def test_peft_trains_a_table_and_nothing_else() -> None:
    pytest.importorskip("peft")
    module = trainer.peft_module(load_plain_model(model_folder("gpt2", True), torch.float32, CPU), 5)
    assert [tuple(p.shape) for p in module.parameters() if p.requires_grad] == [(5, 32)]
    before = [p.detach().clone() for p in module.parameters()]
    some = pairs(2 * TRAINING.batch_size)
    first, second = some[: TRAINING.batch_size], some[TRAINING.batch_size :]
    trainer_rate(module, partial(lay_out, prompted=False), first, second, TRAINING, CPU, torch.float32)
    changed = [not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)]
    assert sum(changed) == 1


@families
@pytest.mark.parametrize("name", ["zero-shot", "dynamic"])
@pytest.mark.parametrize(("batch_size", "by_length"), [(1, False), (4, True), (64, False)])
def test_generate_gives_the_tokens_of_ours(
    name: str, family: str, tied: bool, batch_size: int, by_length: bool
) -> None:
    one = method(name, family, tied)
    own = moved(one) if one.shapes() else {}
    queries = [pair.query for pair in pairs(9, seed=3)]
    module: Any = baseline(one, own, family, tied).eval()
    theirs = generate(module, queries, 5, batch_size, by_length, limit=8)
    assert theirs == greedy(one, [own], queries, 8, 5)[0]
    assert len({tuple(answer) for answer in theirs}) > 1


def test_deterministic_algorithms_are_off_for_the_others_alone() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with clock.as_users_have_it():
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_repeats() -> None:
    assert clock.compare([4.0, 6.0, 5.0], [2.0, 2.0, 2.5]) == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert clock.compare([1.0], [4.0])["median"] == 0.25


def test_contenders_take_turns_in_alternating_order() -> None:
    order: list[tuple[str, int]] = []

    def contender(name: str, repeat: int) -> float:
        order.append((name, repeat))
        return 10.0 * repeat + len(order)

    found = clock.take_turns("title", "s", {name: partial(contender, name) for name in "xy"}, 3, CPU)
    assert order == [("x", 0), ("y", 0), ("y", 1), ("x", 1), ("x", 2), ("y", 2)]
    assert found["x"]["repeats"] == [1.0, 14.0, 25.0]
    assert (found["x"]["median"], found["x"]["min"], found["x"]["max"]) == (14.0, 1.0, 25.0)


def test_runs_one_after_another_are_as_many_times_slower_as_there_are_trials() -> None:
    rate = {"label": "Trainer", **clock.summary([24.0, 12.0, 36.0]), "peak_bytes": None}
    slower = training.one_after_another(rate, 12)
    assert slower["repeats"] == [2.0, 1.0, 3.0]
    assert (slower["median"], slower["min"], slower["max"]) == (2.0, 1.0, 3.0)
    assert slower["label"] == "Trainer, 12 times a measured run"


def test_a_sample_stands_for_an_epoch() -> None:
    many = pairs(600, longest=60)
    sample = data.sample_of_epoch(many, 4, seed=1)
    assert [len(batch) for batch in sample] == [data.BATCH_SIZE] * 4
    assert sample == data.sample_of_epoch(many, 4, seed=1)
    assert sample != data.sample_of_epoch(many, 4, seed=2)
    means = [data.tokens_of(batch) / data.BATCH_SIZE for batch in sample]
    everywhere = data.tokens_of(many) / len(many)
    assert max(means) > 1.5 * min(means)  # both short and long batches
    assert sum(means) / 4 == pytest.approx(everywhere, rel=0.15)


def test_fewer_pairs_than_a_batch_are_refused() -> None:
    with pytest.raises(StageError, match="training pairs"):
        data.sample_of_epoch(pairs(data.BATCH_SIZE - 1), 4, 0)


def test_batch_sizes_are_not_far_above_the_number_of_queries() -> None:
    assert batch_sizes(20, CPU) == [8, 16, 32]
    assert batch_sizes(3, CPU) == [8]
    assert batch_sizes(4000, torch.device("cuda"))[-1] == 1024


@pytest.mark.parametrize("by_onednn", [False, True])
def test_products_are_counted_whoever_computes_them(by_onednn: bool) -> None:
    rows, layer = torch.randn(3, 5, 7, requires_grad=True), nn.Linear(7, 11).requires_grad_(False)
    if by_onednn:
        use_onednn(layer)
    assert products.count_flop(lambda: layer(rows).sum().backward()) == 2 * 2 * 15 * 7 * 11  # forward and backward


def test_a_profile_tells_products_from_the_rest() -> None:
    large, vector = torch.randn(400, 400), torch.randn(10)
    mostly = products.profile_of(lambda: large @ large @ large, CPU)["products_share"]
    hardly = products.profile_of(lambda: [vector.exp() for _ in range(50)], CPU)
    assert mostly > 0.5
    assert hardly["products_share"] == 0
    assert hardly["largest_others"][0][0] == "aten::exp"


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = table.markdown(["a", "b"], [["1", "2"], ["3", "4"]]).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 | 4 |"]
    assert [table.number(value) for value in (0.01234, 12.34, 1234.5)] == ["0.0123", "12.3", "1,234"]


def rates(subject: str, ratio: float) -> dict[str, Any]:
    sides = {side: {"label": side, "median": 1.0, "min": 1.0, "max": 1.0} for side in ("ours", "theirs")}
    return {"subject": subject, "unit": "pairs/s", **sides, "ratio": {"median": ratio, "min": ratio, "max": ratio}}


def test_an_aim_is_reached_from_its_value_on_and_what_has_none_has_a_dash() -> None:
    lines = [rates("soft", 2.5), rates("dynamic", 2.49), rates("soft, embeddings frozen", 9.0)]
    _, _, tables = table.SECTIONS["a"]
    cells = [line.split(" | ")[-1] for line in tables(lines).splitlines()]
    assert cells == ["aim |", "--- |", "2.5x, reached |", "2.5x, missed |", "- |"]
    assert "aim" not in table.SECTIONS["b"][2](lines)


@pytest.mark.parametrize("name", ["bench", "bench-gpu"])
def test_the_markdown_in_metrics_is_what_the_figures_beside_it_render_to(name: str) -> None:
    figures = json.loads((ROOT / f"metrics/{name}.json").read_text(encoding="utf-8"))
    text = (ROOT / f"metrics/{name}.md").read_text(encoding="utf-8")
    assert text == table.render(figures)
    assert ("memory of the default run" in text) == (name == "bench")  # that is about a CPU


def test_the_peak_of_a_gpu_is_what_came_on_top_while_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = {"now": 7, "most": 9}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: memory["now"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: memory.update(most=memory["now"]))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: memory["most"])

    def work() -> float:
        memory["most"] = max(memory["most"], 12)
        return 3.0

    assert clock.with_peak(work, torch.device("cuda")) == (3.0, 5)
    assert clock.with_peak(work, CPU) == (3.0, None)


def test_another_size_of_row_g_stands_beside_the_earlier_ones_of_a_machine_like_this() -> None:
    old, same, new = ({"pairs": size, "dropped": dropped} for size, dropped in ((9, 1), (5, 2), (5, 3)))
    runs = [{"machine": {"processor": "a"}, "rows": {"g": {"sizes": [old, same]}}}]
    assert results.sizes_before(runs, {"processor": "a"}, "g") == [old, same]
    assert (
        results.sizes_before(runs, {"processor": "b"}, "g") == results.sizes_before(runs, {"processor": "a"}, "f") == []
    )
    assert scale.joined([old, same], [new]) == [new, old]


def test_the_memory_of_a_gpu_stands_beside_what_took_it() -> None:
    own = {"label": "ours", **clock.summary([2.0, 4.0, 3.0])}
    assert table.side({**own, "peak_bytes": 3 * 2**29}) == "ours: 3 (2..4), 1.5 GiB"
    assert table.side({**own, "peak_bytes": None}) == table.side(own) == "ours: 3 (2..4)"


def test_every_row_that_can_be_asked_for_has_a_section() -> None:
    (only,) = (action for action in bench.arguments_of()._actions if action.dest == "only")
    assert list(only.choices or ()) == list(table.SECTIONS)


def tiny_pairs(seed: int) -> list[Pair]:
    turns = [turn for dialogue in tiny_dialogues(20, seed) for turn in dialogue]
    return [Pair("d", at, turns[at], turns[at + 1]) for at in range(0, len(turns) - 1, 2)]


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Path:
    """An output of the stage pair-extract."""
    folder = tmp_path / "pairs"
    with output_folder(folder) as temporary:
        for seed, split in enumerate(("train", "test")):
            write_records(temporary / f"{split}.jsonl", tiny_pairs(seed))
    return folder


def arguments(*words: str) -> argparse.Namespace:
    return bench.arguments_of().parse_args([*words, "--device", "cpu"])


TINY_SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "model_type": "llama", "vocab_size": 400, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    },
    "gpt2": {"model_type": "gpt2", "vocab_size": 400, "n_layer": 2, "n_embd": 32, "n_head": 2},
}  # fmt: skip


@pytest.fixture
def measured(pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the benchmark on a tiny model and read what it wrote."""
    pytest.importorskip("peft")
    monkeypatch.setattr(data, "SHAPES", TINY_SHAPES)
    monkeypatch.setattr(products, "LARGE", {"cpu": 64})

    def run(*rows: str, **options: int) -> dict[str, Any]:
        counts = {"repeats": 1, "steps": 1, "queries": 5, "trials": 2, **options}
        numbers = [word for name, value in counts.items() for word in (f"--{name}", str(value))]
        words = ("--shape", "gpt2", "--pairs", str(pairs_folder), "--precision", "float32", "--only", *rows)
        places = ("--trained", str(tmp_path / "none"), "--out", str(tmp_path / "bench.json"))
        bench.main(arguments(*words, *places, *numbers, "--grow-shapes", "smollm2", "gpt2"))
        found: dict[str, Any] = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
        run = next(run for run in found["runs"] if set(run["rows"]) == set(rows))
        assert run["machine"]["versions"]["torch"] == torch.__version__
        assert (tmp_path / "bench.md").read_text(encoding="utf-8") == table.render(found)
        return run["rows"]  # type: ignore[no-any-return]

    return run


def test_rows_of_training(measured: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    rows = measured("a", "b", repeats=2)
    assert [line["subject"] for line in rows["a"]] == ["fine-tune", "soft", "dynamic", "soft, embeddings frozen"]
    assert [line["subject"] for line in rows["b"]] == ["soft", "soft", "dynamic", "dynamic"]
    for line in rows["a"] + rows["b"]:
        assert len(line["ours"]["repeats"]) == len(line["theirs"]["repeats"]) == 2
        assert line["ratio"]["median"] == pytest.approx(line["ours"]["median"] / line["theirs"]["median"])
    single = {line["subject"]: line for line in rows["a"]}
    for line in rows["b"]:
        side = "ours" if line["theirs"]["label"].startswith("ours") else "theirs"
        assert line["theirs"]["median"] == pytest.approx(single[line["subject"]][side]["median"] / 2)
    printed = capsys.readouterr().out
    assert [line[3] for line in printed.splitlines() if line.startswith("## ")] == ["a", "b"]
    assert printed.count("Trainer, 2 times a measured run") == 2


def test_row_of_decoding(measured: Callable[..., dict[str, Any]]) -> None:
    lines = measured("c")["c"]
    assert [line["subject"] for line in lines] == ["zero-shot"] * 2 + ["dynamic, untrained"] * 2
    assert [line["differing_responses"] for line in lines] == [0, 0, 0, 0]
    assert all(line["responses"] == 5 and list(line["batch_sizes_tried"]) == ["8"] for line in lines)


def test_row_of_products(measured: Callable[..., dict[str, Any]]) -> None:
    lines = measured("d")["d"]
    assert len(lines) == 5
    assert all(0 < line["products_share"] < 1 and line["floor_ms"] > 0 for line in lines)
    one, two = (line["flop"] for line in lines if "dynamic" in line["subject"] and "step" in line["subject"])
    assert two == 2 * one


def test_row_of_growth(measured: Callable[..., dict[str, Any]]) -> None:
    found = measured("e")["e"]
    assert [line["trials"] for line in found["trials"]] == [1, 2]
    assert [line["model"] for line in found["models"]] == ["smollm2", "gpt2"]
    seconds = found["trials"][1]["median"]
    assert found["pairs"][-1]["estimated_s"] == pytest.approx(41_637 / data.BATCH_SIZE * seconds)


@pytest.mark.timeout(900)  # a hundred thousand pairs, on slow machines too
def test_row_of_scale_finds_what_was_planted_and_is_added_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hundred thousand pairs: bounds on memory, of which the libraries take most; on time there is none."""
    monkeypatch.setenv("DIALOG_PROMPTING_STATE", str(tmp_path / "state"))
    out = tmp_path / "bench.json"
    (before, *_) = json.loads((ROOT / "metrics/bench.json").read_text(encoding="utf-8"))["runs"]
    write_json(out, {"runs": [before]})
    bench.main(arguments("--only", "g", "--sizes", "100000", "--held-out", "100", "--out", str(out)))
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["runs"][0] == before
    assert (tmp_path / "bench.md").read_text(encoding="utf-8") == table.render(found)
    (line,) = found["runs"][1]["rows"]["g"]["sizes"]
    assert line["dropped"] == line["planted"] > 1000
    mib = {stage: own["peak_bytes"] / 2**20 for stage, own in line["stages"].items()}
    bounds = {"pair-extract": 100, "subset": 200, "batching": 800, "score": 600}
    assert all(mib[stage] < bound for stage, bound in bounds.items()), mib


def test_a_synthetic_corpus_has_its_size_and_its_copies_and_is_the_same_again(tmp_path: Path) -> None:
    corpora = [
        synthetic.write_corpus(tmp_path / name, 3_000, 200, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    files = [(tmp_path / name / "train.jsonl").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    train = [json.loads(line) for line in files[0].splitlines()]
    assert corpora[0].pairs == sum(len(turns) // 2 for turns in train) == 3_000
    copies = train[:: synthetic.COPIES]
    assert corpora[0].planted == len(copies)
    assert all(turn == turn.upper() for turns in copies for turn in turns[:2])
    lengths = [len(turn.split()) for turns in train for turn in turns]
    assert sum(lengths) / len(lengths) == pytest.approx(13.7, rel=0.05)  # DailyDialog's


def test_row_of_engines(measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("ray") is None:  # not imported: it reads at once how to ask for a token
        pytest.skip("Ray is not installed")
    if os.environ.get("DIALOG_PROMPTING_CLUSTER_TESTS") != "1":
        pytest.skip("takes minutes: DIALOG_PROMPTING_CLUSTER_TESTS=1 pytest -n 0 tests/bench -k engines")
    monkeypatch.setattr(engines, "SLOTS", {2: 0.5, 64: 0.5})
    monkeypatch.setattr(sleeping, "PROCESSES", 2)
    monkeypatch.setattr(sleeping, "THREADS", 32)
    monkeypatch.setattr(engines, "STORE", 100_000_000)
    found = measured("f")["f"]
    assert [(line["engine"], line["slots"]) for line in found["real"]] == [("local", 1), ("ray", 1), ("ray", 2)]
    assert [(line["threads"], line["units"]) for line in found["sleeping"]] == [(False, 6), (True, 192)]
    assert all(line["seconds"] > line["ideal"] for line in found["sleeping"])
    assert found["queued"]["driver_before_bytes"] <= found["queued"]["driver_peak_bytes"]


def test_tables_of_engines_have_the_overhead_of_a_unit_and_the_ratio_to_the_ideal() -> None:
    real = [
        {"engine": "local", "slots": 1, "units": 8, "seconds": 80.0, "ideal": 80.0},
        {"engine": "ray", "slots": 2, "units": 8, "seconds": 60.0, "ideal": 40.0},
    ]
    units = [{"slots": 64, "threads": True, "units": 192, "seconds": 33.0, "ideal": 30.0}]
    sizes = {"driver_before_bytes": 2**29, "driver_peak_bytes": 2**30, "servers_bytes": 2**28}
    queued = {"queued": 10_000, "submit_s": 2.0, "look_s": 0.05, **sizes}
    text = table.SECTIONS["f"][2]({"real": real, "sleeping": units, "queued": queued})
    assert "| ray | 2 | 60 | 40 | +2.50 |" in text
    assert "| 64, threads | 192 | 33.0 | 30.0 | 1.100x |" in text
    assert "| 10,000 | 2 | 50 | 512 | 1,024 | 256 |" in text


def test_a_row_that_is_measured_again_leaves_the_others_as_they_are() -> None:
    first = {"machine": "one", "rows": {"a": 1, "b": 2, "e": 5}}
    alone = {"machine": "two", "rows": {"b": 20, "f": 6}}
    runs = results.with_run(results.with_run([], first), alone)
    assert runs == [{"machine": "one", "rows": {"a": 1, "e": 5}}, alone]
    assert results.with_run(runs, first) == [first, {"machine": "two", "rows": {"f": 6}}]
    assert results.with_run([first], {**alone, "rows": first["rows"]}) == [{**first, "machine": "two"}]


def test_tables_of_two_runs_say_which_rows_are_whose() -> None:
    figures = json.loads((ROOT / "metrics/bench.json").read_text(encoding="utf-8"))
    (row, found), *others = figures["runs"][0]["rows"].items()
    moved_row = {**figures["runs"][0], "seconds": 600, "rows": {row: found}}
    text = table.render({"runs": [moved_row, {**figures["runs"][0], "rows": dict(others[:2])}]})
    assert f"Row {row}:\n" in text and "Rows b, c:\n" in text and text.count("- machine: ") == 2
    assert [line[3] for line in text.splitlines() if line.startswith("## ")] == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["[]", "no JSON", '{"rows": {}}', '{"runs": [1]}'])
def test_a_file_that_holds_something_else_is_not_written_over(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(StageError, match=r"other\.json: no results of this benchmark .*; remove it"):
        bench.main(arguments("--out", str(path)))
    assert path.read_text() == text
    assert results.read_runs(tmp_path / "none.json") == []


def test_what_was_trained_on_this_model_is_decoded_with(tmp_path: Path) -> None:
    folder, trained = tmp_path / "model", tmp_path / "trained"
    with output_folder(folder) as temporary:
        shutil.copytree(model_folder("llama", True), temporary, dirs_exist_ok=True)
    one = method("soft", "llama")
    own = moved(one)
    save_file(own, tmp_path / "weights.safetensors")
    description = {"method": one.settings.model_dump(), "base_model": files_hash(check_folder(folder))}
    with output_folder(trained) as temporary:
        write_trained(temporary, tmp_path / "weights.safetensors", description)
    made = measure.make_bench(arguments(), folder, tiny_pairs(0), tiny_pairs(1))
    (first, *_), (second, _, found) = measure.decoders(made, trained)
    assert (first, second) == ("zero-shot", "soft, trained")
    assert all(torch.equal(found[key], own[key]) for key in own)
    *_, (other, _, _) = measure.decoders(made, tmp_path / "none")
    assert other == "dynamic, untrained"


def test_what_is_missing_is_named_with_the_command_that_brings_it(pairs_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="dvc repro download"):
        bench.main(arguments("--model", str(tmp_path / "none"), "--pairs", str(pairs_folder)))
    with pytest.raises(StageError, match="dvc repro pair-extract"):
        bench.main(arguments("--model", str(tmp_path), "--pairs", str(tmp_path / "none")))
    with pytest.raises(StageError, match=r"--out bench\.md: not a name of a JSON file"):
        bench.main(arguments("--out", "bench.md"))


def test_dailydialogs_own_files_become_pairs(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"dialogues_{split}.txt").write_text("a __eou__ b  c __eou__ d __eou__\n", encoding="utf-8")
    source, train, test = measure.read_pairs(arguments("--dialogues", str(tmp_path)))
    assert (source, train) == ("DailyDialog", test)
    assert [(pair.query, pair.response) for pair in train] == [("a", "b c")]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_have_the_sizes_that_they_are_called_by(shape: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    expected = {"gpt2": 124e6, "gpt2-medium": 355e6, "smollm2": 135e6, "llama-350m": 362e6}[shape]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPES[shape]))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(expected, rel=0.01)


def test_a_random_model_is_one_that_the_stages_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHAPES", TINY_SHAPES)
    with data.random_model("smollm2", ["some words", "and others"]) as folder:
        base = load_base_model(folder, CPU, torch.float32)
        assert base.tied and base.width == 32
    assert not folder.exists()
