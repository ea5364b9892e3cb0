"""No foreign code runs: what the download refuses is refused again when a stage reads it."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pipeline import Undisturbed, results, seal
from tests.stage_runs import fails, finish, stopped
from tests.stops import Stop

READERS = pytest.mark.parametrize("stage", ["train", "greedy-generate"])


class Harmful:
    """An object that writes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.proof,))


@READERS
def test_a_pickle_in_place_of_the_base_model_is_not_loaded(
    stage: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder, proof = undisturbed.copy(tmp_path / "pickled"), tmp_path / "proof"
    (folder / "data/download/model/model.safetensors").write_bytes(pickle.dumps(Harmful(proof)))
    seal(folder / "data/download/model")
    if stage == "greedy-generate":  # make the description say that it was trained on this model
        finish_description(folder)
    last = fails(folder, stage)
    assert "data/download/model" in last
    assert not proof.exists()


def finish_description(folder: Path) -> None:
    from stages.plumbing.files import check_folder, files_hash

    path = folder / "data/train/method.json"
    base_model = files_hash(check_folder(folder / "data/download/model"))
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "base_model": base_model}))
    seal(folder / "data/train")


def test_a_pickle_in_place_of_trained_weights_is_not_loaded(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder, proof = undisturbed.copy(tmp_path / "pickled"), tmp_path / "proof"
    (folder / "data/train/weights.safetensors").write_bytes(pickle.dumps(Harmful(proof)))
    seal(folder / "data/train")
    assert "data/train: not a trained method (" in fails(folder, "greedy-generate")
    assert not proof.exists()


def test_a_pickle_in_a_checkpoint_is_passed_over(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder, proof = undisturbed.before("train", tmp_path / "pickled"), tmp_path / "proof"
    stopped(folder, "train", Stop(1, "-000004-00000000", "os.mkdir"))
    newest = max(folder.glob(".state/train/*/checkpoints/[0-9]*"))
    (newest / "trial-00.safetensors").write_bytes(pickle.dumps(Harmful(proof)))
    seal(newest)
    assert f"{newest.name}: not usable (" in finish(folder, "train")
    assert not proof.exists()
    assert results(folder) == undisturbed.results


def test_a_configuration_of_a_model_that_brings_its_own_code_is_refused(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder, proof = undisturbed.copy(tmp_path / "coded"), tmp_path / "proof"
    model = folder / "data/download/model"
    configuration = json.loads((model / "config.json").read_bytes())
    configuration |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Configuration"}}
    (model / "config.json").write_text(json.dumps(configuration))
    (model / "foreign.py").write_text(f"open({str(proof)!r}, 'w')\n")
    seal(model)
    assert "data/download/model: no" in fails(folder, "train")
    assert not proof.exists()


def test_a_file_that_the_download_did_not_write_is_refused(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "added")
    (folder / "data/download/model/pytorch_model.bin").write_bytes(pickle.dumps(Harmful(tmp_path / "proof")))
    assert "model/pytorch_model.bin: not written by the stage; remove it" in fails(folder, "train")
    assert not (tmp_path / "proof").exists()


def test_params_yaml_makes_no_objects(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder, proof = undisturbed.copy(tmp_path / "object"), tmp_path / "proof"
    with (folder / "params.yaml").open("a") as file:
        file.write(f"x: !!python/object/apply:os.system ['touch {proof}']\n")
    assert "params.yaml" in fails(folder, "subset")
    assert not proof.exists()
    assert results(folder) == undisturbed.results
