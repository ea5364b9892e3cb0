"""Every path, command, parameter and name in the README, the tour and CONTRIBUTING exists in the code."""

import re
from typing import Any

import pytest

from stages.params.schema import parse_params
from stages.plumbing.yaml import parse_yaml
from tests.test_dvc_yaml import STAGES, paths_of
from tests.tiny import ROOT, read_yaml

DOCUMENTS = (
    "README.md", "stages/README.md", "stages/methods/README.md", "stages/grid/README.md", ".github/CONTRIBUTING.md",
)  # fmt: skip
TOUR = "stages/README.md"
FILE_NAMES = (".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".json", ".jsonl", ".html", ".csv", ".lock")
MADE_BY_TOOLS = (".venv", ".state", "dvc.lock", "exported", "chats.jsonl", "result.json")  # or a reader's own
documents = pytest.mark.parametrize("document", DOCUMENTS)


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[str]:
    """The code blocks, which are indented by four spaces."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", read(document), re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


def is_tree(block: str) -> bool:
    return block.startswith("params.yaml ")


def is_yaml(block: str) -> bool:
    return block.split("\n")[0].endswith(":")


def code(document: str) -> list[str]:
    """The texts between backticks, and the lines with commands."""
    spans = re.findall(r"`([^`\n]+)`", read(document))
    commands = [block for block in blocks(document) if not is_tree(block) and not is_yaml(block)]
    return spans + [line for block in commands for line in block.splitlines()]


def is_there(path: str) -> bool:
    """Whether a path is in the repository or made by a stage or tool; a bare name can be any module of a stage."""
    outputs = [out for name in STAGES for out in paths_of(name, "outs", "metrics", "plots")]
    made = any(f"{out}/".startswith(f"{path.rstrip('/')}/") or path.startswith(f"{out}/") for out in outputs)
    bare = "/" not in path and any(True for _ in (ROOT / "stages").rglob(path))
    return (ROOT / path).exists() or made or bare or path.split("/")[0] in MADE_BY_TOOLS


@documents
def test_every_path_that_is_named_exists(document: str) -> None:
    words = [word.strip("()'\"").rstrip(".,;:") for line in code(document) for word in line.split()]
    paths = [word for word in words if re.fullmatch(r"[\w.][\w./-]*", word)]
    paths = [path for path in paths if "/" in path or path.endswith(FILE_NAMES)]
    paths = [path for path in paths if not path.startswith("../")]  # beside the clone, where there may be something
    assert paths
    assert [path for path in paths if not is_there(path)] == []


@documents
def test_every_link_to_a_file_leads_to_one(document: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", read(document))
    targets = [target for target in targets if not target.startswith(("http", "../../actions"))]  # a page of GitHub's
    assert [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()] == []


@documents
def test_every_command_that_is_named_exists(document: str) -> None:
    makefile = read("Makefile")
    for line in code(document):
        for target in re.findall(r"\bmake ([a-z]+)", line.split(" #")[0]):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
        for stage, options in re.findall(r"python -m stages\.([a-z_]+)([^#]*)", line):
            main = ROOT / "stages" / stage / "__main__.py"
            assert main.is_file(), f"python -m stages.{stage}"
            for option in re.findall(r"(?<= )--?[a-zA-Z-]+", options):
                assert f'"{option}"' in main.read_text(encoding="utf-8"), f"python -m stages.{stage} {option}"


def examples() -> dict[str, Any]:
    """The entries of `datasets` and `models` in the pages, with values in place of placeholders."""
    found: dict[str, Any] = {}
    for block in (block for document in DOCUMENTS for block in filter(is_yaml, blocks(document))):
        text = re.sub(r"<64[^>]*>", "a" * 64, re.sub(r"<40-hex[^>]*>", "a" * 40, block))
        found |= parse_yaml(text.encode(), "README.md")
    return found


def with_examples() -> dict[str, Any]:
    params = read_yaml(ROOT / "params.yaml")
    return params | {table: params[table] | entries for table, entries in examples().items()}


def test_the_entries_that_the_pages_show_are_allowed() -> None:
    assert set(examples()) == {"datasets", "models"}
    parse_params(with_examples() | {name.removesuffix("s"): "mine" for name in examples()})


@documents
def test_every_value_of_a_switch_that_is_named_is_allowed(document: str) -> None:
    params = with_examples()
    found = [pair for line in code(document) for pair in re.findall(r"\b([a-z_]+)(?:=|: )([\w.-]+)", line)]
    switches = [(key, value) for key, value in found if key in params]
    assert switches or document != "README.md"
    for key, value in switches:
        parse_params(params | {key: parse_yaml(value.encode(), document)})


@documents
def test_every_parameter_that_is_named_exists(document: str) -> None:
    params = read_yaml(ROOT / "params.yaml")
    dotted = [span for span in code(document) if re.fullmatch(r"[a-z_]+(\.([\w-]+|<name>))+", span)]
    keys = [span for span in dotted if not span.endswith(FILE_NAMES)]
    for key in keys:
        place = params
        for part in key.split("."):
            place = place[next(iter(place)) if part == "<name>" else part]


def test_the_tree_and_the_tour_name_every_folder() -> None:
    (tree,) = filter(is_tree, blocks("README.md"))
    assert [name for name in (line.split()[0] for line in tree.splitlines()) if not is_there(name)] == []
    rooms = {path.name for path in (ROOT / "stages").iterdir()} - {"__init__.py", "__pycache__", "README.md"}
    assert {name for name in rooms if f"`{name}`" not in read(TOUR) and f"`stages/{name}`" not in read(TOUR)} == set()


def test_every_name_of_the_tour_is_in_the_module_that_it_gives() -> None:
    text = " ".join(read(TOUR).split())
    found = re.findall(r"((?:`[\w.]+`(?:, | and ))*`[\w.]+`) in `(stages/[\w/]+\.py)`", text)
    assert len(found) > 40
    for names, path in found:
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"^\s*((def|class) {name}\b|{name}\b.* = )", read(path), re.MULTILINE), f"{name}: {path}"


def test_the_tables_of_faults_name_tests_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", read("tests/faults/README.md"))
    assert len(named) > 80
    for file, test in named:
        assert f"\ndef {test}(" in read(file if "/" in file else f"tests/faults/{file}"), f"{file}::{test}"
