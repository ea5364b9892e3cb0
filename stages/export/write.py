"""The folder of an export: language model, prompt, README."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from stages.export.card import card_of
from stages.export.forms import form_of
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, output_folder, read_manifest
from stages.report.results import Results

OWN = {MANIFEST, "README.md", "generation_config.json"}  # what every export has


def write_export(results: Results, target: Path) -> None:
    """Write the export of an experiment, whole or not at all; an earlier one at `target` is replaced.

    Raises:
        StageError: `target` has something that no export wrote, or the experiment has no scores.
    """
    known = set[str]()
    if (target / MANIFEST).exists():
        with suppress(StageError):  # of something else: somebody's web page has a manifest.json too
            known = {MANIFEST, *read_manifest(target)["files"]}
    found = (path for path in target.rglob("*") if not path.is_dir())  # one by one: `target` may be a whole disk
    own = known if known >= OWN else ()
    foreign = next((path for path in found if path.relative_to(target).as_posix() not in own), None)
    if foreign or (target.exists() and not target.is_dir()):
        raise StageError(foreign or target, "it is there, and of no export", "name a new folder")
    trained = load_trained(results.trained, results.model, results.params)
    form = form_of(trained.method.settings)
    with output_folder(target) as folder:
        write_language_model(trained, results.model, folder)
        form.write(trained, folder)
        card_of(results, trained, form).save(folder / "README.md")
        for file in folder.rglob("*.safetensors"):
            file.chmod(0o644)  # as the other files; safetensors makes them the owner's alone


def write_language_model(trained: TrainedMethod, model: Path, folder: Path) -> None:
    """Write the complete language model: configurations, weights (safetensors, float32) and tokenizer.

    What the base model, in the folder `model`, ties stays tied, because E is trained as both. Answers end where they
    did while the method was trained, and are at most as long; both stand in the generation configuration.
    """
    whole: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    own = trained.method.language_model(trained.weights)
    left = whole.load_state_dict({name: value.float().cpu() for name, value in own.items()}, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    whole.generation_config = GenerationConfig(
        eos_token_id=sorted(trained.ends), pad_token_id=trained.prompt_template.end, do_sample=False,
        max_new_tokens=trained.lengths.max_new_tokens,
    )  # fmt: skip
    whole.save_pretrained(folder)
    trained.tokenizer.save_pretrained(folder)
