"""An export: its files and card, and its README's code in a process that only has transformers."""

import argparse
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from stages.export.__main__ import main
from stages.export.card import license_of, opening, score_of
from stages.export.forms import FORMS, form_of, server_lines, transformers_lines
from stages.export.write import write_export, write_language_model
from stages.methods.registry import METHODS
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import Params, parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, check_folder
from stages.plumbing.yaml import parse_yaml
from stages.records import Pair, composed, single_line, write_records
from stages.report.markdown import fence, value
from stages.report.results import Revision, open_results
from tests import tiny
from tests.models import SETTINGS
from tests.stage_runs import contents
from tests.tiny import shipped_params
from tests.trained import FORMATS, QUERIES, trained_copy, write_method, write_model

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


def answered(trained: TrainedMethod, queries: list[str]) -> list[Any]:
    asked = trained.encode([single_line(composed(query)) for query in queries])
    found = trained.decode_and_score(asked).answers
    return [trained.texts(found), found]


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
        ours[case] = answered(trained, QUERIES)
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
    assert (folder / "server.py").read_text(encoding="utf-8") == server_lines(trained)

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
        ours[str(folder)] = answered(trained, queries)
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


def test_ties_float32_and_the_end_of_an_answer_stand_in_the_files(exported: Any) -> None:
    for (_, _, tied, text), (_, _, folder) in exported.items():
        assert ("lm_head.weight" in load_file(folder / "model.safetensors")) == (not tied)
        found = {value.dtype for path in folder.rglob("*.safetensors") for value in load_file(path).values()}
        assert found - {torch.int64} == {torch.float32}  # examples are token ids
        assert json.loads((folder / "config.json").read_bytes())["tie_word_embeddings"] == tied
        assert not list(folder.rglob("*.bin"))
        generation = json.loads((folder / "generation_config.json").read_bytes())
        lines = (folder / "lines.py").read_text(encoding="utf-8")
        (end,) = re.findall(r"^PREFIX, SEPARATOR, END = .*, (\d+)  #", lines, re.MULTILINE)
        assert int(end) in generation["eos_token_id"]
        assert (int(end) == 0) == (text == "end-of-text")
        assert (generation["max_new_tokens"], generation["do_sample"]) == (10, False)


SHIPPED = parse_params(shipped_params())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy(tmp_path_factory)


@pytest.fixture(scope="module")
def exports(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    with contextlib.chdir(project):
        for name in ("workspace", "softly"):
            main(argparse.Namespace(to=folder / name, experiment=None if name == "workspace" else name))
    return {name: folder / name for name in ("workspace", "softly")}


def test_the_folder_holds_the_parts_of_its_method_and_its_readme_the_lines(
    project: Path, exports: dict[str, Path]
) -> None:
    language_model = {"config.json", "generation_config.json", "model.safetensors"}
    language_model |= {"tokenizer.json", "tokenizer_config.json", "README.md", "manifest.json"}
    found = {name: {p.relative_to(e).as_posix() for p in e.rglob("*") if p.is_file()} for name, e in exports.items()}
    assert found["workspace"] == language_model | {"controller/config.json", "controller/model.safetensors"}
    assert found["softly"] == language_model | {"prompt.safetensors"}
    for name, folder in exports.items():
        check_folder(folder)
        assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1  # all or none for others
        with open_results(project, None if name == "workspace" else name) as results:
            trained = load_trained(results.trained, results.model)
        lines = transformers_lines(trained, form_of(trained.method.settings))
        assert f"```python\n{lines.strip()}\n```" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_scores_with_baselines_leakage_and_license(project: Path, exports: dict[str, Path]) -> None:
    card = ModelCard.load(exports["workspace"] / "README.md")
    scores = json.loads((project / "metrics/scores.json").read_bytes())
    measured = {each.metric_name: each.metric_value for each in card.data.eval_results or []}
    assert measured["BLEU-4"] == scores["bleu4"] and scores["matches"][3]
    assert set(measured) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "novelty", "diversity"}
    assert score_of({"matches": [9, 1, 0, 0], "bleu2": 0.5, "bleu3": 0.1}, "bleu2") == 0.5
    assert score_of({"matches": [9, 1, 0, 0], "bleu2": 0.5, "bleu3": 0.1}, "bleu3") is None
    assert (card.data.license, card.data.base_model) == ("cc-by-nc-sa-4.0", "openai-community/gpt2")
    assert card.data.datasets == ["roskoN/dailydialog"]
    low, high = scores["bleu4_interval"]
    assert f"| this model, all | {scores['bleu4']:.4f} | {low:.4f} to {high:.4f} |" in card.text
    assert f"| people, unseen | {scores['human']['unseen']['bleu4']:.4f} |" in card.text
    assert "| retrieval, unseen | - | - |" in card.text and not scores["retrieval"]["unseen"]["matches"][3]
    assert f"{100 * scores['leakage']['exact']['pairs']:.1f} % of the pairs" in card.text
    assert "may not be used commercially" in card.text
    assert 'the last 3 turns of the conversation, joined by `" "`' in card.text
    assert f"signature `{scores['signature']}`" in card.text
    used = parse_yaml(card.text.split("```yaml\n")[1].split("```")[0], "README.md")
    params = parse_yaml((project / "params.yaml").read_bytes(), "params.yaml")
    assert used["methods"] == {"dynamic": params["methods"]["dynamic"]} and used["pairs"] == params["pairs"]


@pytest.mark.parametrize("foreign", ["thesis.txt", "controller/thesis.txt", "data/train/manifest.json"])
def test_what_is_no_export_is_kept(project: Path, exports: dict[str, Path], tmp_path: Path, foreign: str) -> None:
    """In an export, in a folder of it, or in the folder of a stage, whose manifest names everything."""
    if foreign.startswith("data"):
        target = Path(shutil.copytree(project / "data/train", tmp_path / "target", symlinks=True))
    else:
        target = Path(shutil.copytree(exports["workspace"], tmp_path / "target"))
        (target / foreign).write_text("years of work")
    before = contents(target)
    with open_results(project) as results, pytest.raises(StageError, match="it is there, and of no export; name a new"):
        write_export(results, target)
    with open_results(project) as results, pytest.raises(StageError, match="it is there, and of no export"):
        write_export(results, Path("/"))  # at its first file: it does not walk through the disk
    assert contents(target) == before
    (target / MANIFEST).write_text('{"name": "a web page"}')
    with open_results(project) as results, pytest.raises(StageError, match="it is there, and of no export"):
        write_export(results, target)


def test_the_card_shows_no_folder_of_this_machine_and_no_signed_address() -> None:
    data = SHIPPED.chosen_dataset.model_copy(update={"source": "file:/home/jane/patients"})
    model = SHIPPED.chosen_model.model_copy(update={"source": "url:https://store/model?Signature=abc"})
    params = SHIPPED.model_copy(update={"datasets": {SHIPPED.dataset: data}, "models": {SHIPPED.model: model}})
    trained = SimpleNamespace(description={"learning_rate": 0, "epoch": 1})
    text = opening(params, trained, FORMS["soft"])  # type: ignore[arg-type]
    for shown in (text, value(data.source), value(model.source)):  # as the card has it, and the report
        assert "jane" not in shown and "abc" not in shown


def test_a_fence_is_longer_than_any_run_of_backticks_in_it() -> None:
    for text in ("plain", "a ``` b", "````\n# not a heading\n````"):
        (token,) = MarkdownIt().parse(fence("yaml", text))
        assert (token.type, token.info, token.content) == ("fence", "yaml", f"{text}\n")


def test_an_experiment_whose_weights_dvc_has_not_kept_or_of_another_version_says_so(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(project, tmp_path / "copied", symlinks=True))
    shutil.rmtree(copied / ".dvc/cache")
    said = r"experiment softly: its data/train is not in DVC's cache"
    with pytest.raises(StageError, match=said), open_results(copied, "softly"):
        pass
    earlier = StageError("models.gpt2.row_format", "an old name", "write prompt_template")
    monkeypatch.setattr("stages.report.results.parse_params", Mock(side_effect=earlier))
    with pytest.raises(StageError, match=r"softly: made by another version \(models"), open_results(project, "softly"):
        pass
    monkeypatch.setattr(Revision, "system", property(lambda self: __import__("dvc_s3_is_not_installed")))
    assert Revision(project, None).read("data/x") is None


@pytest.mark.parametrize(
    ("model", "data", "method", "license", "commercial"),
    [
        ("Apache-2.0", "MIT", "soft", "apache-2.0", True),
        ("MIT", "CC-BY-NC-SA-4.0", "soft", "cc-by-nc-sa-4.0", False),
        ("MIT", "CC-BY-NC-SA-4.0", "zero-shot", "mit", True),
        ("MIT", None, "soft", "other", True),
        (None, "CC-BY-NC-SA-4.0", "soft", "other", False),
        ("GPL-3.0", "CC-BY-NC-SA-4.0", "soft", "other", False),
        ("MIT", "CC-BY-4.0", "soft", "cc-by-4.0", True),
        ("MIT", "CC0-1.0", "soft", "mit", True),
    ],
)
def test_the_license_is_no_guess(
    model: str | None, data: str | None, method: str, license: str, commercial: bool
) -> None:
    changed = SHIPPED.model_dump() | {"dataset": "chitchat", "model": "smollm2", "method": method}
    changed["models"]["smollm2"]["license"] = model
    changed["datasets"]["chitchat"]["license"] = data
    found, text = license_of(Params.model_validate(changed))
    assert found == license
    assert ("may not be used commercially" in text) != commercial
    assert ("must be passed on under its own license" in text) == (data == "CC-BY-NC-SA-4.0" and method == "soft")
