"""We and DVC read YAML the same way: same values, same types, same refusals."""

from pathlib import Path
from typing import Any

import pytest
from dvc.fs import localfs
from dvc.utils.serialize import load_path

from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml
from tests.tiny import ROOT, read_yaml

SCALARS = "8 012 0o17 0x1f 1_000 1e-5 3.0e-5 .5 1e400 .inf .nan on no true null ~ '8' 12:30 20200102 a:b a==1.0"
TABLES = "a: &x {b: 1, c: 2}\nd:\n  c: 3\n  <<: *x\n2: on\r\nb: 'c\r\n  d'\r\n"


def as_dvc_reads(text: str, folder: Path) -> Any:
    """How DVC reads a params.yaml: `dvc repro`, `-S` and `dvc exp show` all use `load_path`."""
    path = folder / "params.yaml"
    path.write_bytes(text.encode())
    return load_path(str(path), localfs)


def test_a_text_is_what_dvc_makes_of_it(tmp_path: Path) -> None:
    for text in (f"a: [{', '.join(SCALARS.split())}]", TABLES, "\ufeff%YAML 1.2\n---\na: on\n...\n"):
        assert repr(parse_yaml(text, "params.yaml")) == repr(as_dvc_reads(text, tmp_path)), text
    assert parse_yaml("[1e-5, on, 012, 1.0]", "params.yaml") == [1e-5, "on", 12, 1.0]
    for name in ("params.yaml", "dvc.yaml"):
        assert repr(read_yaml(ROOT / name)) == repr(load_path(str(ROOT / name), localfs)), name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", ':3: found duplicate key "a"; fix'),
        ("a: 1\n---\nb: 2\n", ":2: but found another document"),
        ("a: !!python/object/apply:os.system [id]\n", ":1: could not determine a constructor for the tag"),
        ("a: *b\n", ":1: found undefined alias 'b'"),
        ("a: [1, 2\nb: 3\n", ":2: expected ',' or ']', but got ':'"),
        ("a: \x07\n", ": unacceptable character #x0007: special characters are not allowed in "),
    ],
)
def test_what_dvc_refuses_is_refused_with_its_line(text: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="YAML file structure is corrupted"):
        as_dvc_reads(text, tmp_path)
    with pytest.raises(StageError) as caught:
        parse_yaml(text, "params.yaml")
    assert str(caught.value).startswith(f"params.yaml{found}")


@pytest.mark.parametrize("text", ["!!int x", "!!float", "!!bool maybe", "1" * 5000, "[" * 2000, "{? [{b: 1}] : 2}"])
def test_what_no_number_or_date_can_be_is_refused(text: str) -> None:
    with pytest.raises(StageError, match=r"^params\.yaml: nested too deeply, or an impossible key, number or date; "):
        parse_yaml(f"a: {text}", "params.yaml")
