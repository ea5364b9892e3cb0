"""A stage checks its input against what the stage before wrote, and runs no code that it finds there."""

import json
import pickle
from pathlib import Path

import pytest

from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, check_folder, write_json
from tests.faults.pipeline import STAGES, Harmful, Undisturbed, flip, results, seal
from tests.stage_runs import COMMANDS, fails


def inputs(stage: str) -> list[str]:
    """The folders that a stage reads: those of its arguments that an earlier stage writes."""
    words, earlier = COMMANDS[stage], STAGES[: STAGES.index(stage)]
    return [word for word in words if any(word in COMMANDS[other] for other in earlier) and word.startswith("data/")]


READS = [(stage, name) for stage in STAGES for name in inputs(stage)]
assert len(READS) == 9


@pytest.mark.parametrize(("stage", "name"), READS)
def test_damage_in_what_is_read_is_found(stage: str, name: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "flipped")
    path = max((folder / name).iterdir(), key=lambda each: each.stat().st_size)
    content, before = path.read_bytes(), results(folder)
    flip(path)
    last = fails(folder, stage)
    assert last.startswith(f"ERROR {stage}: {path.relative_to(folder)}: its sha256 is not the one in its manifest; ")
    assert f"produce it again: rm -rf {name}; find " in last and last.endswith("; dvc repro")
    path.write_bytes(content)
    assert results(folder) == before
    (folder / name).rename(folder / "elsewhere")
    assert fails(folder, stage).startswith(f"ERROR {stage}: {name}/{MANIFEST}: missing; ")


def test_a_truncated_missing_or_surplus_file_is_found(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "damaged") / "data/greedy_generate"
    path = folder / "responses.jsonl"
    content, manifest = path.read_bytes(), json.loads((folder / MANIFEST).read_bytes())
    for damage, found in (
        (lambda: path.write_bytes(b""), f"{path}: 0 bytes, but the manifest has {len(content)}; "),
        (path.unlink, f"{path}: missing, though the manifest names it; "),
        ((folder / "adapter_config.json").touch, f"{folder}/adapter_config.json: not written by the stage"),
        (lambda: (folder / MANIFEST).write_bytes(b"{"), f"{folder}/{MANIFEST}: no manifest ("),
        (lambda: write_json(folder / MANIFEST, {**manifest, "x": 1}), f"{folder}/{MANIFEST}: its sha256 differs "),
        ((folder / MANIFEST).unlink, f"{folder}/{MANIFEST}: missing; run `dvc repro`, which makes it"),
    ):
        path.write_bytes(content)
        check_folder(folder)
        damage()
        with pytest.raises(StageError) as caught:
            check_folder(folder)
        assert str(caught.value).startswith(found)
        (folder / "adapter_config.json").unlink(missing_ok=True)
        write_json(folder / MANIFEST, manifest)


@pytest.mark.parametrize(
    ("stage", "name", "found"),
    [
        ("train", "data/download/model/model.safetensors", "data/download/model"),
        ("greedy-generate", "data/train/weights.safetensors", "data/train: not a trained method ("),
    ],
)
def test_a_pickle_in_place_of_weights_is_not_loaded(
    stage: str, name: str, found: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder, proof = undisturbed.copy(tmp_path / "pickled"), tmp_path / "proof"
    (folder / name).write_bytes(pickle.dumps(Harmful(proof)))
    seal((folder / name).parent)
    assert found in fails(folder, stage)
    assert not proof.exists()


def test_a_model_that_brings_its_own_code_is_refused(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder, proof = undisturbed.copy(tmp_path / "coded"), tmp_path / "proof"
    model = folder / "data/download/model"
    configuration = json.loads((model / "config.json").read_bytes())
    configuration |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Configuration"}}
    (model / "config.json").write_text(json.dumps(configuration))
    (model / "foreign.py").write_text(f"open({str(proof)!r}, 'w')\n")
    seal(model)
    assert "data/download/model/config.json: no causal" in fails(folder, "train")
    assert not proof.exists()
