"""Download the dialogues and the base model from the pinned sources in params.yaml.

Writes each file of the corpus under its name in `files`, with its suffix at the source, and the base model as a folder
that transformers loads: config.json, safetensors, tokenizer. Replaces the two outputs only when both downloads worked.
"""

import argparse
from pathlib import Path

from stages.download.fetch import fetch_dialogues, fetch_model
from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import output_folder


def main(arguments: argparse.Namespace) -> None:
    """Fetch both, then replace both."""
    params = load_params()
    with output_folder(arguments.dialogues) as dialogues, output_folder(arguments.model) as model:
        fetch_dialogues(params, dialogues)
        fetch_model(params, model)
    print(f"{params.dataset} in {arguments.dialogues}, {params.model} in {arguments.model}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=Path, required=True, help="folder to write the corpus to")
    parser.add_argument("--model", type=Path, required=True, help="folder to write the base model to")
    run_stage("download", parser, main)
