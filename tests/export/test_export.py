"""An export, used without this package: the code in its README runs in a process that only has transformers."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from stages.export.forms import FORMS, transformers_lines
from stages.export.write import write_language_model
from stages.methods.registry import METHODS
from stages.methods.trained_method import load_trained
from tests import tiny
from tests.models import SETTINGS
from tests.trained import FORMATS, QUERIES, write_method, write_model

KINDS: tuple[Any, ...] = ("byte-level", "prepend", "first", "unigram")  # of tokenizers
QUERIES_WITH_MARKS = [*QUERIES, "so </s> is text", "<s>"]
MODELS = list(itertools.product(("gpt2", "llama"), (True, False)))
# Runs the code of each folder as a user would, in that folder, and records the tokens of `generate`.
READER = """
import io, contextlib, json, os, sys
folders, queries = json.load(sys.stdin)
found = {}
for folder in folders:
    os.chdir(folder)
    space = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(open("lines.py", encoding="utf-8").read(), folder + "/lines.py", "exec"), space)
    generate, given = space["model"].generate, []
    space["model"].generate = lambda **words: given.append(generate(**words)) or given[-1]
    texts = [space["respond"](query) for query in queries]
    end = space["END"]
    tokens = [answer[0].tolist() for answer in given]
    found[folder] = [texts, [each[: each.index(end)] if end in each else each for each in tokens]]
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


def cases() -> list[tuple[str, str, bool, str]]:
    """Every method on every kind of model; both prompt templates if there is a prompt, otherwise alternating."""
    made = []
    for number, (name, (family, tied)) in enumerate(itertools.product(SETTINGS, MODELS)):
        formats = FORMATS if SETTINGS[name].kind == "dynamic" else [list(FORMATS)[number % 3 % 2]]
        made += [(name, family, tied, text) for text in formats]
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, bool, str], Any]:
    """For each case: our decoding of QUERIES, that of the README's code, and the folder."""
    root = tmp_path_factory.mktemp("export")
    models = {shape: write_model(root / "-".join(map(str, shape)), *shape) for shape in MODELS}
    ours, folders = {}, {}
    for case in cases():
        name, family, tied, text = case
        place = root / "-".join(map(str, case))
        moved = 0.0 if name == "dynamic-identity" else 0.02  # also test the initial weights
        model = models[family, tied]
        trained = load_trained(write_method(place / "trained", model, name, FORMATS[text], moved), model)
        form = FORMS[trained.method.settings.kind]
        folder = place / "export"
        folder.mkdir()
        write_language_model(trained, model, folder)
        form.write(trained, folder)
        (folder / "lines.py").write_text(transformers_lines(trained, form), encoding="utf-8")
        ours[case] = [trained.respond(QUERIES), trained.decode(trained.encode(QUERIES)[0])]
        folders[case] = folder
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


@pytest.fixture(scope="module")
def other_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each kind: our decoding of QUERIES_WITH_MARKS, that of the README's code, and that code."""
    ours, folders = {}, {}
    for kind in KINDS:
        place = tmp_path_factory.mktemp(kind)
        tokenizer = tiny.tiny_tokenizer() if kind == "byte-level" else tiny.tiny_sentencepiece(kind)
        tokenizer.add_tokens(["Are you", "sister", "    "])
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(tiny, "tiny_tokenizer", lambda vocab, made=tokenizer: made)
            model = write_model(place / "model")
        text = FORMATS["text"] | {"end": "</s>"} if kind == "unigram" else FORMATS["text"]  # it knows no line break
        trained = load_trained(write_method(place / "trained", model, "zero-shot", text), model)
        folder = place / "export"
        folder.mkdir()
        write_language_model(trained, model, folder)
        lines = transformers_lines(trained, FORMS["zero-shot"])
        (folder / "lines.py").write_text(lines, encoding="utf-8")
        answers = trained.respond(QUERIES_WITH_MARKS), trained.decode(trained.encode(QUERIES_WITH_MARKS)[0])
        ours[kind], folders[kind] = list(answers), folder
    theirs = read_alone(list(folders.values()), QUERIES_WITH_MARKS)
    return {
        kind: (ours[kind], theirs[str(folder)], (folder / "lines.py").read_text(encoding="utf-8"))
        for kind, folder in folders.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_tokenizers_read_a_query_as_here(kind: str, other_tokenizers: dict[str, Any]) -> None:
    """Control tokens that are not marked as special; a space that the tokenizer adds by itself."""
    ours, theirs, lines = other_tokenizers[kind]
    assert theirs == ours
    behind = {"byte-level": '" " + text', "unigram": '"\\u00b6 " + text'}.get(kind, '"\\n " + text')
    assert f"tokens = typed({behind}," in lines and ("as letters" in lines) == (kind == "unigram")


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
        assert found["eos_token_id"] == int(end)
        assert (int(end) == 0) == (text == "end-of-text")
        assert (found["max_new_tokens"], found["do_sample"]) == (10, False)
