"""No foreign code runs: what the download refuses is refused again when a stage reads it."""

import json
import pickle
from pathlib import Path

import pytest

from stages.plumbing.files import check_folder, files_hash
from tests.faults.pipeline import Harmful, Undisturbed, results, seal
from tests.stage_runs import fails


@pytest.mark.parametrize(
    ("stage", "name", "found"),
    [
        ("train", "data/download/model/model.safetensors", "data/download/model"),
        ("greedy-generate", "data/download/model/model.safetensors", "data/download/model"),
        ("greedy-generate", "data/train/weights.safetensors", "data/train: not a trained method ("),
    ],
)
def test_a_pickle_in_place_of_weights_is_not_loaded(
    stage: str, name: str, found: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder, proof = undisturbed.copy(tmp_path / "pickled"), tmp_path / "proof"
    (folder / name).write_bytes(pickle.dumps(Harmful(proof)))
    seal((folder / name).parent)
    # Make the description say that it was trained on this model.
    path = folder / "data/train/method.json"
    base_model = files_hash(check_folder(folder / "data/download/model"))
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "base_model": base_model}))
    seal(folder / "data/train")
    assert found in fails(folder, stage)
    assert not proof.exists()


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
    assert "data/download/model/config.json: no causal" in fails(folder, "train")
    assert not proof.exists()


def test_params_yaml_makes_no_objects(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder, proof = undisturbed.copy(tmp_path / "object"), tmp_path / "proof"
    with (folder / "params.yaml").open("a") as file:
        file.write(f"x: !!python/object/apply:os.system ['touch {proof}']\n")
    last = fails(folder, "subset")
    assert last.startswith("ERROR subset: params.yaml") and last.endswith("; fix the YAML")
    assert not proof.exists()
    assert results(folder) == undisturbed.results
