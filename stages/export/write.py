"""The folder of an export: language model, prompt, README."""

from pathlib import Path

from stages.export.card import card_of
from stages.export.forms import FORMS
from stages.export.language_model import write_language_model
from stages.methods.trained_method import load_trained
from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, output_folder
from stages.report.results import Results

OWN = (MANIFEST, "README.md", "generation_config.json")  # what every export has


def write_export(results: Results, target: Path) -> None:
    """Write the export of an experiment, whole or not at all; an earlier one at `target` is replaced.

    Raises:
        StageError: `target` holds something else, or the experiment has no scores.
    """
    check_target(target)
    params = results.params
    trained = load_trained(results.trained, results.model, params.runtime, params.chosen_protocol.decoding_dtype)
    form = FORMS[trained.method.settings.kind]
    with output_folder(target) as folder:
        write_language_model(trained, results.model, folder)
        form.write(trained, folder)
        card_of(results, trained, form).save(folder / "README.md")
        for file in folder.rglob("*.safetensors"):
            file.chmod(0o644)  # as the other files; safetensors makes them the owner's alone


def check_target(target: Path) -> None:
    """Refuse to replace what is no export.

    Raises:
        StageError: there is a file, or a folder that no export has written.
    """
    if target.is_dir() and (not any(target.iterdir()) or all((target / name).is_file() for name in OWN)):
        return
    if target.exists():
        raise StageError(target, "it is there, and no export", "name a new folder")
