"""An export, used without this package: the code in its README runs in a process that only has transformers."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from stages.export.forms import FORMS, form_of, server_lines, transformers_lines
from stages.export.write import write_language_model
from stages.methods.registry import METHODS
from stages.methods.trained_method import load_trained
from stages.plumbing.errors import StageError
from stages.records import Pair, write_records
from tests import tiny
from tests.models import SETTINGS
from tests.trained import FORMATS, QUERIES, write_method, write_model

MODELS = list(itertools.product(("gpt2", "llama"), (True, False)))
# Runs the code of each folder as a user would, in that folder, and records the tokens of `generate`.
READER = """
import io, contextlib, itertools, json, os, sys
folders, queries = json.load(sys.stdin)
found = {}
for folder in folders:
    os.chdir(folder)
    space = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(open("lines.py", encoding="utf-8").read(), folder + "/lines.py", "exec"), space)
    generate, given = space["model"].generate, []

    def recorded(**words):
        answer = generate(**words)
        given.append(answer[:, words["input_ids"].shape[1] :] if "input_ids" in words else answer)
        return answer

    space["model"].generate = recorded
    texts = [space["respond"](query) for query in queries]
    ends = space["END"], space["tokenizer"].eos_token_id
    tokens = [answer[0].tolist() for answer in given]
    found[folder] = [texts, [list(itertools.takewhile(lambda token: token not in ends, each)) for each in tokens]]
assert not [name for name in sys.modules if name.split(".")[0] == "stages"]
json.dump(found, sys.stdout)
"""


def read_alone(folders: list[Path], queries: list[str] = QUERIES) -> dict[str, Any]:
    """The texts and tokens that the code of each folder gives for queries; -I ignores this folder and PYTHONPATH."""
    asked = json.dumps([list(map(str, folders)), queries])
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER], input=asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def export(place: Path, model: Path, name: str, text: dict[str, str], moved: float = 0.02) -> tuple[Any, Path]:
    """A trained method of a kind, and the folder of its export, with the lines of its README as lines.py."""
    trained = load_trained(write_method(place / "trained", model, name, text, moved), model)
    form, folder = form_of(trained.method.settings), place / "export"
    folder.mkdir()
    write_language_model(trained, model, folder)
    form.write(trained, folder)
    (folder / "lines.py").write_text(transformers_lines(trained, form), encoding="utf-8")
    return trained, folder


def cases() -> list[tuple[str, str, bool, str]]:
    """Every method on two kinds of models, and on all four if it changes the output layer; templates alternate."""
    names = [name for name in SETTINGS if not name.startswith(("prefix-", "dynamic-f", "soft-v"))]  # no other form
    return [
        (name, family, tied, list(FORMATS)[(number + place) % 2])
        for place, name in enumerate(names)
        for number, (family, tied) in enumerate(MODELS)
        if name in ("fine-tune", "embeddings", "lora") or number in (0, 3)
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, bool, str], Any]:
    """For each case: our decoding of QUERIES, that of the README's code, and the folder."""
    root = tmp_path_factory.mktemp("export")
    models = {shape: write_model(root / "-".join(map(str, shape)), *shape) for shape in MODELS}
    ours, folders = {}, {}
    for case in cases():
        name, family, tied, text = case
        moved = 0.0 if name == "dynamic-identity" else 0.02  # also test the initial weights
        place = root / "-".join(map(str, case))
        trained, folders[case] = export(place, models[family, tied], name, FORMATS[text], moved)
        ours[case] = [trained.respond(QUERIES), trained.decode(trained.encode(QUERIES)[0])]
    theirs = read_alone(list(folders.values()))
    return {case: (ours[case], theirs[str(folder)], folder) for case, folder in folders.items()}


@pytest.mark.parametrize("case", cases(), ids=lambda case: "-".join(map(str, case)))
def test_the_lines_of_the_readme_answer_token_for_token_as_greedy_generate(case: Any, exported: Any) -> None:
    ours, theirs, _ = exported[case]
    assert theirs == ours
    assert len({tuple(answer) for answer in ours[1]}) > 1


@pytest.mark.parametrize("shape", MODELS, ids=lambda shape: "-".join(map(str, shape)))
def test_peft_loads_the_adapter_of_lora_on_the_untouched_base_model(shape: Any, exported: Any) -> None:
    ((ours, _, folder),) = (found for case, found in exported.items() if case[0] == "lora" and case[1:3] == shape)
    space: dict[str, Any] = {"FOLDER": str(folder)}
    lines = (folder / "lines.py").read_text(encoding="utf-8").replace('FOLDER = "."', f"FOLDER = {str(folder)!r}")
    exec(compile(lines, "lines.py", "exec"), space)
    base = AutoModelForCausalLM.from_pretrained(folder.parents[1] / "-".join(map(str, shape)), dtype=torch.float32)
    base.generation_config = space["model"].generation_config
    space["model"] = PeftModel.from_pretrained(base, str(folder / "adapter"))
    assert [space["respond"](query) for query in QUERIES] == ours[0]


def test_a_server_with_the_examples_as_text_answers_as_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "model")
    trained, folder = export(tmp_path, model, "few-shot", FORMATS["text"])
    lines = "".join(f"A: {query}\nB: {answer}\n" for query, answer in (("Are you sure ?", "No way !"), ("yes", "no")))
    trained.weights["context"] = torch.tensor(trained.tokenizer(lines)["input_ids"])
    FORMS["few-shot"].write(trained, folder)

    def complete(model: str, prompt: str, stop: str, temperature: float, max_tokens: int) -> Any:
        tokens = torch.tensor([trained.tokenizer(prompt)["input_ids"]])
        whole: Any = trained.method.base.model
        said = whole.generate(tokens, max_new_tokens=max_tokens, do_sample=temperature > 0, eos_token_id=None)
        text = trained.tokenizer.decode(said[0, tokens.shape[1] :]).partition(stop)[0]
        return SimpleNamespace(choices=[SimpleNamespace(text=text)])

    client = SimpleNamespace(completions=SimpleNamespace(create=complete))
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(OpenAI=lambda **where: client))
    monkeypatch.chdir(folder)
    space: dict[str, Any] = {}
    exec(compile(server_lines(trained), "server.py", "exec"), space)
    queries = ["my sister is really great", "that book was a surprise", "No way !"]
    assert [space["respond"](query) for query in queries] == trained.respond(queries)


def test_other_kinds_of_tokenizers_read_a_query_as_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control tokens that are not marked as special; a space that the tokenizer adds by itself."""
    ours, folders = {}, {}
    kinds: tuple[Any, ...] = ("byte-level", "prepend", "first", "unigram")
    for kind in kinds:
        tokenizer = tiny.tiny_tokenizer() if kind == "byte-level" else tiny.tiny_sentencepiece(kind)
        tokenizer.add_tokens(["Are you", "sister", "    "])
        monkeypatch.setattr(tiny, "tiny_tokenizer", lambda made=tokenizer: made)
        text = FORMATS["text"] | {"end": "</s>"} if kind == "unigram" else FORMATS["text"]  # it knows no line break
        trained, folder = export(tmp_path / kind, write_model(tmp_path / kind / "model"), "zero-shot", text)
        monkeypatch.undo()
        assert 'prompt = examples + "A: " + text' in server_lines(trained)
        queries = [*QUERIES, "so </s> is text", "<s>"]
        ours[str(folder)] = [trained.respond(queries), trained.decode(trained.encode(queries)[0])]
        folders[kind] = folder
    assert read_alone(list(folders.values()), queries) == ours
    lines = {kind: (folder / "lines.py").read_text(encoding="utf-8") for kind, folder in folders.items()}
    assert {kind for kind, text in lines.items() if "as letters" in text} == {"unigram"}


def test_examples_that_each_query_has_of_its_own_are_no_text(tmp_path: Path) -> None:
    write_records(tmp_path / "pairs", [Pair("d", 0, "Hello .", "Hi .")])
    model = write_model(tmp_path / "model")
    one = write_method(tmp_path / "trained", model, "few-shot", FORMATS["text"], nearest=tmp_path / "pairs")
    with pytest.raises(StageError, match=r"^few-shot: each query has its own examples, .*; set choose to random"):
        FORMS["few-shot"].write(load_trained(one, model), tmp_path)


def test_every_method_says_how_it_is_exported() -> None:
    assert FORMS.keys() == METHODS.keys()


def test_what_is_tied_stays_tied_and_everything_is_float32_safetensors(exported: Any) -> None:
    for (_, _, tied, _), (_, _, folder) in exported.items():
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            assert ("lm_head.weight" in weights.keys()) == (not tied)  # noqa: SIM118  # no dict
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118
        assert json.loads((folder / "config.json").read_bytes())["tie_word_embeddings"] == tied
        assert not list(folder.rglob("*.bin"))


def test_the_end_of_an_answer_stands_in_the_generation_configuration(exported: Any) -> None:
    for (_, _, _, text), (_, _, folder) in exported.items():
        found = json.loads((folder / "generation_config.json").read_bytes())
        lines = (folder / "lines.py").read_text(encoding="utf-8")
        (end,) = re.findall(r"^PREFIX, SEPARATOR, END = .*, (\d+)  #", lines, re.MULTILINE)
        assert int(end) in found["eos_token_id"]
        assert (int(end) == 0) == (text == "end-of-text")
        assert (found["max_new_tokens"], found["do_sample"]) == (10, False)
