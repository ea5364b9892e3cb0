"""Full disk, no permission, no memory: the error says so, nothing is half-written, and later the stage goes on."""

import json
import re
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from stages.plumbing.files import output_folder
from stages.records import Pair, write_records
from tests.faults.disks import attempts_on_a_disk, mounts_are_allowed
from tests.faults.pipeline import Undisturbed, check_tidy, check_whole, each_stage, results
from tests.stage_runs import fails, finish, start
from tests.tiny import tiny_model
from tests.training_runs import workspace

GROWING = [0, 1 << 12, 1 << 17, 1 << 30]


def limit(kind: int, value: int) -> None:
    """Limit a resource of this process."""
    resource.setrlimit(kind, (value, value))


def limit_address_space(more: int) -> None:
    """Leave this process so many bytes more than it has."""
    limit(resource.RLIMIT_AS, int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + more)


@pytest.fixture(scope="session")
def disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not mounts_are_allowed(tmp_path_factory.mktemp("mount")):
        pytest.skip("processes cannot have their own mounts here")


@pytest.mark.usefixtures("disks")
@each_stage
def test_on_a_full_disk_a_stage_fails_cleanly(stage: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "disk")
    *attempts, last = attempts_on_a_disk(folder, stage, GROWING)
    failed = [attempt for attempt in attempts if attempt["code"]]
    assert len(failed) >= 2
    for attempt in failed:
        printed = str(attempt["printed"])
        assert attempt["code"] == 1, printed
        assert "Traceback" not in printed
        error = printed.splitlines()[-1]
        assert re.match(rf"ERROR {stage}: ({folder}/)?(data|metrics|\.state)/.*: no space left on the device; ", error)
        assert ".tmp-" not in error
        assert attempt["results"] == undisturbed.results, "the earlier results stay"
        assert attempt["left"] == []
    assert last["code"] == 0, last["printed"]
    assert last["results"] == undisturbed.results
    assert last["left"] == []


@pytest.mark.usefixtures("disks")
def test_on_a_read_only_disk_a_stage_says_so(undisturbed: Undisturbed, tmp_path: Path) -> None:
    (refused,) = attempts_on_a_disk(undisturbed.copy(tmp_path / "disk"), "subset", [None])
    assert (refused["code"], refused["results"]) == (1, undisturbed.results)
    assert str(refused["printed"]).startswith("ERROR subset: .state: Read-only file system; ")


@pytest.mark.parametrize("stage", ["pair-extract", "train"])  # Arrow and JSON lines; safetensors
def test_a_limit_on_the_size_of_files_is_named(stage: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.before(stage, tmp_path / "limited")
    earlier = results(folder)
    largest = max((undisturbed.folder / name).stat().st_size for name in undisturbed.results.keys() - earlier.keys())
    last = fails(folder, stage, partial(limit, resource.RLIMIT_FSIZE, largest - 1))
    assert ": larger than the limit on file size; raise the limit (ulimit -f) " in last
    assert ".tmp-" not in last
    assert results(folder).items() >= earlier.items()
    check_whole(folder)
    check_tidy(folder)
    finish(folder, stage)
    assert results(folder) == undisturbed.results


def test_without_memory_training_says_so_until_there_is_enough(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.before("train", tmp_path / "small")
    refused = []
    for power in range(18, 36, 3):
        run = start(folder, "train", partial(limit_address_space, 1 << power))
        run.process.join(60)
        if run.running():
            run.signal(signal.SIGKILL)
        code, printed = run.wait()
        check_whole(folder)
        if code == 0:
            break
        # oneDNN does not look whether it got memory for the code that it writes; a library may wait for ever for a
        # thread that found none. tests/faults/README.md says so.
        if code in (-signal.SIGSEGV, -signal.SIGKILL):
            continue
        assert code == 1, printed
        assert "Traceback" not in printed
        refused.append(printed.splitlines()[-1])
    assert code == 0
    assert len(refused) >= 2
    assert {line.partition("; ")[0] for line in refused} == {"ERROR train: memory: not enough"}
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def test_in_six_gib_a_model_of_the_default_s_size_trains(tmp_path: Path) -> None:
    one = {"protocols.quick.training.learning_rates": {"low": 1e-3, "high": 1e-3, "trials": 1}}
    folder = workspace(tmp_path / "laptop", protocol="quick", **one)  # dynamic: the method that needs most
    with output_folder(folder / "data/download/model") as made:
        tiny_model(made, "llama")  # its tokenizer
        shape = {"vocab_size": 49152, "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536}
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
        config = AutoConfig.for_model("llama", max_position_embeddings=8192, **shape, **heads)
        AutoModelForCausalLM.from_config(config).save_pretrained(made)
    pairs = [Pair(f"d{number}", 0, "the weather " * 40, "is it really great ? " * 20) for number in range(6)]
    with output_folder(folder / "data/subset") as made:
        write_records(made / "train.jsonl", pairs)
        write_records(made / "validation.jsonl", pairs[:1])
    assert "out of memory" not in finish(folder, "train", partial(limit, resource.RLIMIT_DATA, 6 << 30))
    (rate,) = json.loads((folder / "metrics/learning_rates.json").read_bytes())
    assert rate["status"] == "finished"
