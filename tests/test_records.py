"""Records in files: read into memory or into Arrow's format beside it, and refused by their line."""

import json
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from tqdm import tqdm

from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, load_records, read_records, records_of, write_records

PAIRS = [Pair("a", 0, "one", "two"), Pair("a", 2, "caf\u00e9 \u2028 \U0001f600", ""), Pair("b", 0, "x" * 300, "y")]


def test_a_line_is_written_with_its_fields_in_order(tmp_path: Path) -> None:
    write_records(tmp_path / "x", [Dialogue("a", ["\u00e9", "b"]), Dialogue("b", [])])
    text = (tmp_path / "x").read_text(encoding="utf-8")
    assert text == '{"dialogue": "a", "turns": ["\u00e9", "b"]}\n{"dialogue": "b", "turns": []}\n'


@pytest.mark.parametrize("line", ['{"dialogue": "a"}', "[]", "{", '{"dialogue": 1, "position": 0}', "\udcff"])
def test_a_broken_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = json.dumps(vars(PAIRS[0]))
    path.write_bytes(f"{good}\n{line}\n{good}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(StageError, match=r"pairs\.jsonl:2: not a Pair"):
        load_records(path, Pair, tmp_path)


def test_records_are_loaded_with_files_in_the_cache_alone_and_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python waits for ever for a thread that finds no memory to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=AssertionError))
    cache = tmp_path / "cache"
    cache.mkdir()
    write_records(tmp_path / "pairs.jsonl", iter(PAIRS))
    assert read_records(tmp_path / "pairs.jsonl", Pair) == PAIRS
    found = load_records(Path("pairs.jsonl"), Pair, cache)
    assert list(records_of(found, Pair)) == PAIRS
    assert found[[2, 0]]["query"] == [PAIRS[2].query, PAIRS[0].query]
    dialogues = [Dialogue("a", ["one", "", "two"]), Dialogue("b", [])]
    write_records(tmp_path / "turns.jsonl", dialogues)
    assert list(records_of(load_records(Path("turns.jsonl"), Dialogue, cache), Dialogue)) == dialogues
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl", "turns.jsonl", "cache"}
    assert tqdm.monitor_interval == 0, "nor does a bar of the library start one"
