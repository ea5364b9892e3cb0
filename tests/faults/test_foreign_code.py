"""No foreign code runs: what the download refuses is refused again when a stage reads it."""

import json
import pickle
from pathlib import Path

import pytest

from tests.faults.pipeline import Harmful, Undisturbed, seal
from tests.stage_runs import fails


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
