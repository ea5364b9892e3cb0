"""Tiny models, corpora and projects: the real formats, small enough for tests."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from ruamel.yaml import YAML
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from stages.plumbing.yaml import parse_yaml
from tests.scratch import new_folder

ROOT = Path(__file__).resolve().parents[1]
END_OF_TEXT = "<|endoftext|>"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
POSITIONS = 512
SWITCHES: dict[str, Any] = {
    "dataset": "chitchat", "model": "smollm2", "method": "dynamic", "regime": 100, "protocol": "quick", "seed": 0,
    "drop_overlap": False,
}  # fmt: skip
COPIED = (
    "stages", "dvc.yaml", ".dvcignore", ".gitignore", "data/.gitignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots",
)  # fmt: skip
SUBJECTS = ("my sister", "the weather", "this film", "your new job", "the old dog", "our neighbour", "that book")
OPINIONS = ("is really great", "makes me tired", "was a surprise", "is not for me", "can wait", "sounds like fun")
REPLIES = ("I agree", "Are you sure ?", "Tell me more .", "Oh , why ?", "That is good to hear", "No way !")


def tiny_dialogues(count: int, seed: int = 0) -> list[list[str]]:
    """`count` conversations of 2 to 7 short English turns; each depends only on `seed` and its index."""
    dialogues = []
    for index in range(count):
        chance = random.Random(seed * 1_000_003 + index)
        dialogues.append([_tiny_turn(chance, reply=turn % 2 == 1) for turn in range(chance.randint(2, 7))])
    return dialogues


def _tiny_turn(chance: random.Random, reply: bool) -> str:
    remark = f"{chance.choice(SUBJECTS)} {chance.choice(OPINIONS)}"
    return chance.choice(REPLIES) + chance.choice(("", f" , {remark}")) if reply else remark


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most 300 tokens (256 bytes, end-of-text, merges), trained on `tiny_dialogues`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((turn for turns in tiny_dialogues(50) for turn in turns), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def tiny_sentencepiece(kind: Literal["prepend", "always", "first", "unigram"]) -> PreTrainedTokenizerFast:
    """A tokenizer of the SentencePiece kind, trained on `tiny_dialogues`; each puts a space before a text.

    prepend: as Llama 2's, a normaliser that puts it before every stretch between control tokens; always and first:
    Metaspace's own ways; unigram: without bytes, and a line break is a space to it.
    """
    marks = ["<unk>", "<s>", "</s>"]
    letters = sorted({*"▁¶<>/|_", *map(chr, range(33, 127))})
    turns = [turn for turns in tiny_dialogues(50) for turn in turns]
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Replace("\n", " ")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=marks, unk_token="<unk>", initial_alphabet=letters, show_progress=False
        )
        tokenizer.train_from_iterator([*turns, " ".join(letters)], trainer)
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=marks, initial_alphabet=letters, show_progress=False,
        )  # fmt: skip
        tokenizer.train_from_iterator(turns, trainer)
        written = json.loads(tokenizer.to_str())
        vocabulary = written["model"]["vocab"]
        vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
        tokenizer = Tokenizer.from_str(json.dumps(written))
        if kind == "prepend":
            tokenizer.pre_tokenizer = None
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tiny_model(folder: Path, family: str = "gpt2", tied: bool = True) -> Path:
    """Save a random GPT-2 or Llama as a Hugging Face folder (`MODEL_FILES`, float32) and return the folder.

    Two layers of width 32, two heads, `POSITIONS` positions, no dropout. The initial weights are larger than usual
    (0.3), so that the untrained model's answers depend on the query.
    """
    return shutil.copytree(_tiny_model(family, tied, tiny_tokenizer), folder, dirs_exist_ok=True)


@cache
def _tiny_model(family: str, tied: bool, made: Callable[[], PreTrainedTokenizerFast]) -> Path:
    folder, tokenizer = new_folder("tiny-"), made()
    end = tokenizer.eos_token_id
    settings: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}
    settings |= {"tie_word_embeddings": tied, "initializer_range": 0.3}
    if family == "gpt2":
        settings |= {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": POSITIONS}
        settings |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0}  # as a float or not
    else:
        settings |= {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
        settings |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": POSITIONS}
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_jsonl(path: Path, dialogues: Sequence[Sequence[str]]) -> Path:
    """Write dialogues as JSON lines, each a list of turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(list(turns), ensure_ascii=False) + "\n" for turns in dialogues), "utf-8")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = parse_yaml(path.read_bytes(), path)
    return value


def shipped_params() -> dict[str, Any]:
    """The repository's params.yaml with the switches as they are shipped, whatever a user has set them to."""
    return deepcopy(_params())


@cache
def _params() -> dict[str, Any]:
    return read_yaml(ROOT / "params.yaml") | SWITCHES


def write_yaml(path: Path, value: object) -> None:
    YAML().dump(value, path)


def tiny_protocol(**training: Any) -> dict[str, Any]:
    """The paper's protocol with short texts and two epochs, in float32; `training`: what else differs."""
    papers = shipped_params()["protocols"]["paper"]
    few = {"learning_rates": {"low": 0.001, "high": 0.01, "trials": 2}, "num_train_epochs": 2, "dtype": "float32"}
    own = {"lengths": {"max_query_tokens": 24, "max_new_tokens": 12}, "decoding_dtype": "float32"}
    return {**papers, **own, "training": {**papers["training"], **few, **training}}


def _pinned(path: Path) -> dict[str, str]:
    """An entry of `files` in params.yaml."""
    return {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _tiny_params(params: dict[str, Any], sources: Path, kept: Sequence[str]) -> dict[str, Any]:
    """params.yaml with tiny sources and a tiny protocol, which the switches choose."""
    for table in ("datasets", "models", "protocols"):
        params[table] = {name: entry for name, entry in params[table].items() if name in kept}
    params["methods"] = {name: params["methods"][name] for name in ("fine-tune", "soft", "dynamic")}
    texts = {split: _pinned(sources / "dialogues" / f"{split}.txt") for split in ("train", "validation", "test")}
    params["datasets"]["tiny"] = {"format": "eou", "source": f"file:{sources / 'dialogues'}", "files": texts}
    params["models"]["tiny-gpt2"] = {
        "format": "safetensors",
        "source": f"file:{sources / 'gpt2'}",
        "files": {name: _pinned(sources / "gpt2" / name) for name in MODEL_FILES},
        "prompt_template": {"separator": "<end-of-text>", "end": "<end-of-text>"},
    }
    params["protocols"]["tiny"] = tiny_protocol()
    switches = {"dataset": "tiny", "model": "tiny-gpt2", "method": "dynamic", "regime": 100, "protocol": "tiny"}
    return {**params, **switches, "runtime": {**params["runtime"], "device": "cpu", "threads": 1}}


def command(project: Path, *words: str, fails: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command at the top of a project, with this Python's environment first in PATH, and check its exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=project,
        env={**os.environ, "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def tiny_project(folder: Path, dialogues: int = 12, kept: Sequence[str] = ()) -> Path:
    """Make a Git repository with the whole pipeline, committed, and a folder of tiny sources (`<folder>-sources`).

    `dialogues` conversations for training, six for validation and six for test; a random model.
    Nothing has run yet. kept: the real data sets, models and protocols that params.yaml keeps beside the tiny ones.
    Each command of DVC reads it again and again: with none, and three methods, it takes half the time.
    """
    sources = folder.with_name(f"{folder.name}-sources")
    (sources / "dialogues").mkdir(parents=True)
    for seed, (split, count) in enumerate((("train", dialogues), ("validation", 6), ("test", 6))):
        lines = [f"{' __eou__ '.join(turns)} __eou__\n" for turns in tiny_dialogues(count, seed)]
        (sources / "dialogues" / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    tiny_model(sources / "gpt2", "gpt2")
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    write_yaml(folder / "params.yaml", _tiny_params(shipped_params(), sources, kept))
    for words in ("init -q -b main", "config user.name tests", "config user.email tests@example.org"):
        command(folder, "git", *words.split())
    commit_all(folder)
    return folder


def commit_all(project: Path) -> None:
    """Commit everything that Git does not ignore."""
    command(project, "git", "add", "-A")
    command(project, "git", "commit", "-q", "-m", "state of a test")


def change_params(folder: Path, changes: dict[str, Any]) -> None:
    """Set keys of params.yaml, given as dotted names."""
    params = read_yaml(folder / "params.yaml")
    for key, value in changes.items():
        place = params
        *parents, last = key.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
    write_yaml(folder / "params.yaml", params)
