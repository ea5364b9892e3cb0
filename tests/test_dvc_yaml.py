"""dvc.yaml agrees with the source: DVC watches what a stage imports."""

import ast
import hashlib
import re
import subprocess
from functools import cache
from typing import Any

import pytest

from stages.plumbing.yaml import parse_yaml
from tests.tiny import ROOT, read_yaml

TABLES = {"datasets", "models", "methods", "protocols", "pairs", "runtime"}
STAGES: dict[str, dict[str, Any]] = read_yaml(ROOT / "dvc.yaml")["stages"]
stages = pytest.mark.parametrize("name", STAGES)


def module_file(module: str) -> str | None:
    """The file of a module: `stages/params/schema.py` for `stages.params.schema`; None if there is no such file."""
    path = f"{module.replace('.', '/')}.py"
    return path if (ROOT / path).is_file() else None


@cache
def local_imports(path: str) -> set[str]:
    """The local modules that a source file imports, also inside functions and under `if TYPE_CHECKING`."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module_file(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import in full"
            found |= {module_file(f"{node.module}.{alias.name}") for alias in node.names}
            found.add(module_file(node.module or ""))
    return {file for file in found if file}


def modules_of(name: str) -> set[str]:
    """The local modules that a stage imports, directly or through another."""
    reached, waiting = set(), {f"{stage_folder(name)}/__main__.py"}
    while waiting:
        reached.add(current := waiting.pop())
        waiting |= local_imports(current) - reached
    return reached


def stage_folder(name: str) -> str:
    return f"stages/{name.replace('-', '_')}"


def rooms(paths: set[str]) -> set[str]:
    """The first path components below `stages/`: folders and single shared files."""
    return {"/".join(path.split("/")[:2]) for path in paths}


def entry_name(entry: Any) -> str:
    """The path of an entry: `metrics/a.json`, also when written as `{metrics/a.json: {cache: false}}`."""
    return str(next(iter(entry)) if isinstance(entry, dict) else entry)


def paths_of(name: str, *kinds: str) -> list[str]:
    return [entry_name(entry) for kind in kinds for entry in STAGES[name].get(kind, [])]


@stages
def test_the_deps_of_a_stage_are_all_the_rooms_that_it_imports_from(name: str) -> None:
    code = {path for path in paths_of(name, "deps") if path.startswith("stages/")}
    expected = rooms(modules_of(name))
    assert code == expected, f"{name}: deps: [{', '.join(sorted(expected))}]"
    assert len(paths_of(name, "deps")) == len(set(paths_of(name, "deps")))
    assert len(code) <= 7


def test_what_every_import_runs_first_is_empty() -> None:
    """DVC does not watch `stages/__init__.py`, and in the others nobody would look for code."""
    for path in (ROOT / "stages").rglob("__init__.py"):
        assert path.read_bytes() == b"", path


def test_no_module_is_imported_by_a_computed_name() -> None:
    """These tests would not see such an import, and DVC would not watch it. What looks for packages imports nothing."""
    computed = re.compile(r"\bimportlib\b(?!\.metadata\b|\.util import find_spec$)|__import__|\brunpy\b", re.MULTILINE)
    for path in (ROOT / "stages").rglob("*.py"):
        assert not computed.search(path.read_text(encoding="utf-8")), path


@stages
def test_the_paths_of_a_stage_are_its_arguments(name: str) -> None:
    arguments = [word for word in STAGES[name]["cmd"].split()[3:] if not word.startswith("--")]
    data = [path for path in paths_of(name, "deps") if not path.startswith("stages/")]
    outputs = paths_of(name, "outs", "metrics", "plots")
    assert all(path.startswith((f"data/{name.replace('-', '_')}", "metrics/")) for path in outputs)
    for path in data:
        assert any(path == word or path.startswith(f"{word}/") for word in arguments), f"{path}: in no argument"
    for path in arguments:
        known = [*data, *outputs]
        assert any(each == path or each.startswith(f"{path}/") for each in known), f"{path}: unknown"
    for out in outputs:
        assert any(out == path or out.startswith(f"{path}/") for path in arguments), f"{out}: no argument writes it"


@stages
def test_a_stage_depends_on_whole_outputs_of_others(name: str) -> None:
    """Of a file inside such a folder, `dvc exp run` looks up the folder that the committed dvc.lock names.

    In a fresh clone DVC's cache lacks that one, and an experiment that was killed behind `train` failed when it was
    given again: "failed to load directory".
    """
    outputs = {path for other in STAGES for path in paths_of(other, "outs", "metrics", "plots")}
    assert {path for path in paths_of(name, "deps") if not path.startswith("stages/")} <= outputs


@stages
def test_a_stage_watches_the_parameters_it_uses_and_no_whole_table(name: str) -> None:
    params = read_yaml(ROOT / "params.yaml")
    for key in STAGES[name].get("params", []):
        assert key not in TABLES, f"{name}: {key}: adding an entry would rerun the stage; name the entry"
        value: Any = params
        for part in re.sub(r"\$\{(\w+)\}", lambda match: str(params[match[1]]), key).split("."):
            assert part in value, f"{name}: {key}: not in params.yaml"
            value = value[part]


@stages
def test_a_stage_reads_no_parameter_that_it_does_not_watch(name: str) -> None:
    """`params.seed` in the source needs `seed` in dvc.yaml, `params.chosen_model` needs `models.${model}`, and so on.

    `runtime` is exempt: it changes how a result is made, not what it is. So is the name of an entry that is watched, as
    a whole or in part: it is only used in messages.
    """
    watched = STAGES[name].get("params", [])
    for path in modules_of(name) - {"stages/params/schema.py"}:
        source = (ROOT / path).read_text(encoding="utf-8")
        for key in re.findall(r"(?<!stages\.)\bparams\.([a-z]\w*)", source):
            if key in ("runtime", "yaml", "chosen_protocol", "model_copy", "model_dump"):
                continue
            table = key.removeprefix("chosen_")
            entry = f"{table}s.${{{table}}}"
            of_a_part = any(each.split(".")[0] == key or each.startswith(f"{entry}.") for each in watched)
            assert entry in watched or of_a_part, f"{path}: params.{key}"
        for field in re.findall(r"\bchosen_model\.(\w+)", source):
            assert f"models.${{model}}.{field}" in watched, f"{path}: chosen_model.{field}"
        for key in re.findall(r"\bprotocol\.(data|lengths|training|decoding_dtype)\b", source):
            assert f"protocols.${{protocol}}.{key}" in watched, f"{path}: protocol.{key}"


def test_git_keeps_what_dvc_shows_and_nothing_else() -> None:
    """A stage with another out that is not in the cache is left out of DVC's run cache (Stage.run in DVC)."""
    assert read_yaml(ROOT / "dvc.yaml")["artifacts"]["trained-method"]["path"] in paths_of("train", "outs")
    for stage in STAGES.values():
        entries = [(kind, entry) for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
        in_git = [isinstance(entry, dict) and entry[entry_name(entry)].get("cache") is False for _, entry in entries]
        assert in_git == [kind != "outs" for kind, _ in entries]


def committed(path: str) -> bytes | None:
    """A file in the last commit; None if it is not there, or if this is no Git repository."""
    done = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def test_the_metrics_that_are_committed_are_those_of_the_lock_that_is_committed() -> None:
    lock = parse_yaml(committed("dvc.lock") or b"stages: {}", "dvc.lock")
    recorded = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    for path in (path for name in STAGES for path in paths_of(name, "metrics", "plots")):
        content = committed(path)
        md5 = None if content is None else hashlib.md5(content).hexdigest()
        assert recorded.get(path) == md5, f"{path}: commit it together with dvc.lock"
