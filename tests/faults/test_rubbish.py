"""Bad input to the real commands: broken or unusual corpora, and parameters that contradict each other."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.language_model.encoding import encode_pairs
from stages.language_model.loading import load_tokenizer
from stages.records import Pair
from tests.faults.pipeline import STAGES, Undisturbed, results
from tests.models import LONG, end_of_text_format
from tests.stage_runs import fails, finish
from tests.tiny import END_OF_TEXT, change_params

Corpus = Callable[..., Path]
TURNS = "one __eou__ two __eou__\n"


@pytest.fixture
def corpus(undisturbed: Undisturbed, project: Path, tmp_path: Path) -> Corpus:
    """A function that makes a workspace with all results, but with another training file as its source."""

    def make(content: bytes, kind: str = "eou") -> Path:
        sources = tmp_path / "sources"
        shutil.copytree(project.with_name(f"{project.name}-sources") / "dialogues", sources)
        name = f"file.{'txt' if kind == 'eou' else 'json' if kind == 'chitchat' else kind}"
        (sources / name).write_bytes(content)
        folder = undisturbed.copy(tmp_path / "workspace")
        file = {"path": name, "sha256": hashlib.sha256(content).hexdigest()}
        changes: dict[str, Any] = {"datasets.tiny.source": f"file:{sources}", "datasets.tiny.files.train": file}
        if kind != "eou":
            split = {"validation": 1, "test": 1, "seed": 0}
            entry = {"format": kind, "source": f"file:{sources}", "files": {"all": file}, "split": split}
            messages = {"messages": "one"} if kind == "chitchat" else {}
            changes = {"datasets.tiny": {**entry, **messages}}
        change_params(folder, changes)
        return folder

    return make


@pytest.mark.parametrize(
    ("kind", "content", "found"),
    [
        ("eou", b"only __eou__\n", "train.txt: none of 1 dialogues has two turns with text; "),
        ("eou", f"{TURNS}a\xff __eou__ b __eou__\n".encode("latin-1"), "train.txt:2: not UTF-8 (byte 0xff at column 2"),
        ("jsonl", b"[" * 100_000, "all.jsonl:1: not JSON (maximum recursion depth"),
        ("chitchat", b"[]", "all.json: not a JSON object of conversations; "),
        ("parquet", b"PAR1", "all.parquet: not a Parquet file ("),
    ],
)
def test_a_corpus_that_is_none_is_named_with_its_line_and_nothing_is_touched(
    kind: str, content: bytes, found: str, corpus: Corpus
) -> None:
    folder = corpus(content, kind)
    finish(folder, "download")
    before = results(folder)
    last = fails(folder, "pair-extract")
    assert last.startswith("ERROR pair-extract: data/download/dialogues")
    assert found in last
    assert results(folder) == before


def test_whatever_people_write_comes_through_and_what_is_cut_or_skipped_is_counted(
    corpus: Corpus, project: Path
) -> None:
    plain = (project.with_name(f"{project.name}-sources") / "dialogues/train.txt").read_bytes()
    strange = [
        "\ufeffa\0b __eou__ c\u2028d\x85e __eou__ 😀 שלום \u202e __eou__ yes __eou__\r",
        "alone __eou__",
        "one __eou__  \u00a0 __eou__ three __eou__ four __eou__",
        "",
        f"{'word ' * 2_000}__eou__ {'x' * 1_000_000} __eou__",
        f"{END_OF_TEXT} hello __eou__ {END_OF_TEXT} __eou__",
    ]
    folder = corpus("".join(f"{line}\n" for line in strange).encode() + plain)
    for stage in STAGES:
        finish(folder, stage)
    counted = json.loads((folder / "metrics/pairs.json").read_bytes())
    assert counted["train"]["pairs_skipped_for_empty_turn"] == 1
    expected = {"removed_characters": 1, "empty_turns": 1, "unusable_dialogues": 1}
    assert {name: counted["files"]["train"][name] for name in expected} == expected
    trained = json.loads((folder / "metrics/train.json").read_bytes())
    assert trained["cut_train_queries"] >= 1
    assert trained["cut_train_responses"] >= 1
    assert {"cut_validation_queries", "cut_validation_responses"} <= trained.keys()
    assert json.loads((folder / "metrics/scores.json").read_bytes())["generation"]["cut_queries"] >= 0


def test_a_special_token_that_somebody_wrote_is_text(undisturbed: Undisturbed) -> None:
    tokenizer = load_tokenizer(undisturbed.folder / "data/download/model")
    pair = Pair("a", 0, f"{END_OF_TEXT} hello", f"so {END_OF_TEXT} it ends")
    (encoded,), _ = encode_pairs([pair], tokenizer, end_of_text_format(tokenizer), LONG)
    for tokens, text in ((encoded["query"], pair.query), (encoded["response"], pair.response)):
        assert tokens.index(tokenizer.eos_token_id) == len(tokens) - 1
        assert tokenizer.decode(tokens[:-1]) == text


@pytest.mark.parametrize(
    ("stage", "changes", "found"),
    [
        (
            "train",
            {"protocols.tiny.lengths.max_query_tokens": 300},
            "tokens, the model takes 512; lower max_query_tokens or",
        ),
        (
            "train",
            {"methods.dynamic.init": "first-layers", "methods.dynamic.layers": 3},
            "methods.dynamic.layers: 3 first layers of a model that has 2; lower it or set init to random",
        ),
        (
            "greedy-generate",
            {"protocols.tiny.lengths.max_query_tokens": 25},
            "protocols.tiny.lengths.max_query_tokens: 25, but data/train was trained with 24; run `dvc repro train`",
        ),
        (
            "subset",
            {"method": "soft", "methods.soft.prompt_tokens": 23},
            "methods.soft.prompt_tokens: 23, below the 24 of protocols.tiny.lengths.max_query_tokens; ",
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_and_nothing_is_touched(
    stage: str, changes: dict[str, Any], found: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path / "contradiction")
    change_params(folder, changes)
    last = fails(folder, stage)
    assert last.startswith(f"ERROR {stage}: params.yaml: ")
    assert found in last
    assert results(folder) == undisturbed.results


def test_peoples_own_chats_come_in_as_they_are_and_what_is_no_turn_is_counted(corpus: Corpus) -> None:
    start = [{"role": "System", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    tools = [call, {"role": "tool", "content": None}]
    lines = [
        {"turns": 2, "messages": [*start, *tools, {"role": "assistant", "content": f"hello {number}"}]}
        for number in range(9)
    ]
    folder = corpus("".join(f"{json.dumps(line)}\n" for line in lines).encode(), "jsonl")
    finish(folder, "download")
    said = finish(folder, "pair-extract")
    counted = json.loads((folder / "metrics/pairs.json").read_bytes())
    for name in ("system_turns", "tool_turns", "tool_calls"):
        assert f"9 {name.replace('_', ' ')} left out" in said
        assert counted["files"]["all"][name] == 9
    assert counted["train"]["pairs"] == 7
