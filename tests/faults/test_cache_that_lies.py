"""A stage checks its input against what the stage before wrote; errors name the damaged file and how to repair it."""

import json
from pathlib import Path

import pytest

from stages.plumbing.files import MANIFEST
from tests.faults.pipeline import STAGES, Undisturbed, each_stage, flip, results
from tests.stage_runs import COMMANDS, fails, finish


def inputs(stage: str) -> list[str]:
    """The folders that a stage reads: those of its arguments that an earlier stage writes."""
    words, earlier = COMMANDS[stage], STAGES[: STAGES.index(stage)]
    return [word for word in words if any(word in COMMANDS[other] for other in earlier) and word.startswith("data/")]


READS = [(stage, name) for stage in STAGES for name in inputs(stage)]


def test_every_stage_but_the_first_reads_what_an_earlier_one_wrote() -> None:
    assert [stage for stage, _ in READS] == [
        "pair-extract",
        "subset",
        *["train"] * 2,
        *["greedy-generate"] * 3,
        *["score"] * 2,
    ]


@pytest.mark.parametrize(("stage", "name"), READS)
def test_a_flipped_bit_in_any_file_is_found_named_and_nothing_is_touched(
    stage: str, name: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path / "flipped")
    for path in sorted((folder / name).iterdir()):
        content = path.read_bytes()
        flip(path)
        before = results(folder)
        last = fails(folder, stage)
        assert last.startswith(f"ERROR {stage}: {path.relative_to(folder)}: ")
        assert f"produce it again: rm -rf {name}; find " in last
        assert last.endswith("; dvc repro")
        assert results(folder) == before
        path.write_bytes(content)
    finish(folder, stage)
    assert results(folder) == undisturbed.results


@pytest.mark.parametrize(("stage", "name"), READS)
def test_a_file_that_is_missing_truncated_empty_or_too_many_is_found(
    stage: str, name: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path / "damaged")
    path = max((folder / name).iterdir(), key=lambda each: each.stat().st_size)
    content, shown = path.read_bytes(), path.relative_to(folder)
    path.write_bytes(content[:-1])
    assert f"{shown}: {len(content) - 1} bytes, but the manifest has {len(content)}; " in fails(folder, stage)
    path.write_bytes(b"")
    assert f"{shown}: 0 bytes, but the manifest has " in fails(folder, stage)
    path.unlink()
    assert f"{shown}: missing, though the manifest names it; " in fails(folder, stage)
    path.write_bytes(content)
    (folder / name / "adapter_config.json").write_text("{}")
    assert f"{name}/adapter_config.json: not written by the stage; remove it" in fails(folder, stage)
    (folder / name / "adapter_config.json").unlink()
    (folder / name / MANIFEST).unlink()
    assert f"{name}/{MANIFEST}: missing; run `dvc repro`, which makes it" in fails(folder, stage)


@each_stage
def test_a_folder_that_is_not_there_is_named(stage: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "gone")
    for name in inputs(stage):
        (folder / name).rename(folder / "elsewhere")
        assert fails(folder, stage).startswith(f"ERROR {stage}: {name}/{MANIFEST}: missing; ")
        (folder / "elsewhere").rename(folder / name)


def test_a_changed_fact_in_a_manifest_never_becomes_a_score(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "changed")
    path = folder / "data/greedy_generate" / MANIFEST
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps({**manifest, "unended_responses": manifest["unended_responses"] - 1}))
    assert "manifest.json: its sha256 differs from the one recorded in it; " in fails(folder, "score")
    assert results(folder)["metrics/scores.json"] == undisturbed.results["metrics/scores.json"]
