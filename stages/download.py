"""Dialogues and the base model, from the pinned sources in params.yaml; both are there before either output changes.

Writes the corpus as {all} or {train,validation,test} with the suffix of its format, and the base model as a folder
that transformers loads: config.json, safetensors, tokenizer.
"""

import argparse
import shutil
from pathlib import Path

from stages.core.base_model_files import check_model_folder, convert_gguf
from stages.core.corpora import file_name
from stages.core.errors import run_stage
from stages.core.files import output_folder
from stages.core.params import Params, load_params
from stages.core.source_params import parse_source
from stages.core.sources import Fetcher


def fetch_dialogues(params: Params, folder: Path, scratch: Path) -> None:
    """Bring the files of the chosen corpus into `folder`."""
    dataset = params.chosen_dataset
    fetcher = Fetcher(f"datasets.{params.dataset}", dataset.source, scratch)
    for split, file in sorted(dataset.files.items()):
        fetcher.fetch(split, file, file.path, folder / file_name(dataset, split))


def fetch_model(params: Params, folder: Path, scratch: Path) -> None:
    """Bring the chosen base model into `folder`, as safetensors."""
    model = params.chosen_model
    fetcher = Fetcher(f"models.{params.model}", model.source, scratch)
    named = parse_source(model.source).kind in ("hub", "file")  # their files lie under the names that they get here
    arrived = folder if model.format == "safetensors" else scratch
    for name, file in sorted(model.files.items()):
        fetcher.fetch(name, file, file.path or (name if named else None), arrived / name)
        if model.format == "gguf":
            convert_gguf(f"models.{params.model}.files.{name}", arrived / name, folder)
    check_model_folder(f"models.{params.model}.files", folder)


def main(arguments: argparse.Namespace) -> None:
    """Fetch both, then replace both."""
    params = load_params()
    with output_folder(arguments.dialogues) as dialogues, output_folder(arguments.model) as model:
        for fetch, folder in ((fetch_dialogues, dialogues), (fetch_model, model)):
            scratch = folder / ".scratch"  # in the temporary folder: it goes with it, whatever happens
            scratch.mkdir()
            fetch(params, folder, scratch)
            shutil.rmtree(scratch)
    print(f"{params.dataset} in {arguments.dialogues}, {params.model} in {arguments.model}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=Path, required=True, help="folder to write the corpus to")
    parser.add_argument("--model", type=Path, required=True, help="folder to write the base model to")
    run_stage("download", parser, main)
