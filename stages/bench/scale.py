"""Row g of the benchmark: what the stages that handle pairs take on synthetic corpora of growing size."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.bench.synthetic import write_corpus
from stages.plumbing.errors import StageError
from stages.plumbing.files import output_folder, scratch_folder
from stages.plumbing.yaml import parse_yaml
from stages.records import Pair, Response, read_records, write_records

SCALE = "g"
SIZES = (10_000, 100_000, 1_000_000)  # by default; what takes half an hour has to be asked for
HELD_OUT = 3_700  # pairs of validation, and of test; DailyDialog has 3,851 and 3,700
PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
STAGES: dict[str, tuple[str, ...]] = {  # name -> module and arguments
    "pair-extract": ("stages.pair_extract", "--dialogues", "dialogues", "--pairs", "pairs", "--report", "pairs.json"),
    "subset": ("stages.subset", "--pairs", "pairs", "--subset", "subset", "--report", "subset.json"),
    "batching": ("stages.bench.batching", "subset"),
    "score": (
        "stages.score", "--subset", "subset", "--responses", "responses", "--scores", "scores.json", "--rows", "rows",
    ),
}  # fmt: skip


def write_params(folder: Path) -> None:
    """The parameters of the project, for the corpus in `folder`; JSON is YAML too."""
    params: dict[str, Any] = parse_yaml(PARAMS.read_text(encoding="utf-8"), PARAMS)
    files = {split: {"path": f"{split}.jsonl", "sha256": "0" * 64} for split in ("train", "validation", "test")}
    params["datasets"]["synthetic"] = {"format": "jsonl", "source": f"file:{folder}", "files": files}
    params |= {"dataset": "synthetic", "protocol": "paper", "regime": 100, "drop_overlap": True}
    (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")


def write_responses(folder: Path) -> None:
    """Answers to the test pairs: each gets the reference of the pair before it."""
    test = read_records(folder / "subset/test.jsonl", Pair)
    with output_folder(folder / "responses") as temporary:
        answers = (
            Response(pair.dialogue, pair.position, pair.query, pair.response, before.response, False)
            for pair, before in zip(test, [test[-1], *test[:-1]], strict=True)
        )
        write_records(temporary / "responses.jsonl", answers)


def run_alone(folder: Path, name: str) -> dict[str, float]:
    """Seconds and peak memory of a stage in `folder`, in a process of its own.

    Raises:
        StageError: it failed.
    """
    out = folder / f"{name}.measured"
    command = [sys.executable, "-m", "stages.bench.alone", str(out), sys.executable, "-m", *STAGES[name]]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StageError(f"row g: {name}", f"exit code {done.returncode}: {said}", "run that stage by itself")
    found: dict[str, float] = json.loads(out.read_bytes())
    return found


def measure_size(pairs: int, held_out: int) -> dict[str, Any]:
    """The line of the table for a corpus of so many training pairs; its files are removed.

    Raises:
        StageError: a stage failed, or subset did not drop all planted copies.
    """
    with scratch_folder() as scratch:
        folder = scratch.absolute()
        corpus = write_corpus(folder / "dialogues", pairs, held_out)
        write_params(folder)
        stages = {}
        for stage in STAGES:
            if stage == "score":
                write_responses(folder)
            stages[stage] = run_alone(folder, stage)
            print(f"growth, {pairs:,} pairs: {stage}: {stages[stage]['seconds']:.1f} s", file=sys.stderr, flush=True)
        dropped = json.loads((folder / "subset.json").read_bytes())["train"]["pairs_dropped_for_overlap"]
    if dropped < corpus.planted:
        raise StageError("row g: subset", f"{dropped} of {corpus.planted} planted copies found", "report it")
    return {"pairs": pairs, "held_out": held_out, "planted": corpus.planted, "dropped": dropped, "stages": stages}


def joined(earlier: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of all sizes, the new ones in place of earlier ones: the largest size is measured by itself."""
    by_size = {line["pairs"]: line for line in (*earlier, *new)}
    return [by_size[size] for size in sorted(by_size)]


def scale_rows(sizes: Sequence[int], held_out: int = HELD_OUT) -> list[dict[str, Any]]:
    """Row g: a line for each size. The corpora are written to the state folder: about 1.2 KB a pair."""
    return [measure_size(pairs, held_out) for pairs in sorted(sizes)]
