"""We and DVC read YAML the same way: same values, same types, but for dates and rare numbers, which are text here."""

import math
from pathlib import Path
from typing import Any

import pytest
from dvc.fs import localfs
from dvc.utils.serialize import dumps_yaml, load_path

from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml
from tests.tiny import ROOT, read_yaml, write_yaml


def as_dvc_reads(text: str, folder: Path) -> Any:
    """How DVC reads a params.yaml: `dvc repro`, `-S` and `dvc exp show` all use `load_path`."""
    path = folder / "params.yaml"
    path.write_bytes(text.encode())
    return load_path(str(path), localfs)


def with_types(value: Any) -> Any:
    """A value to compare, in which 1, 1.0 and True differ, NaN equals itself, and the order of keys matters."""
    if isinstance(value, dict):
        return [(with_types(key), with_types(each)) for key, each in value.items()]
    if isinstance(value, list):
        return ["list", *map(with_types, value)]
    return type(value).__name__, repr(value)


def scalars(listed: str) -> list[str]:
    """The words between spaces and line breaks; `␣` becomes a space."""
    return [text.replace("␣", " ") for text in listed.split()]


NUMBERS = scalars("""
0 7 -7 +7 007 012 -012 089 0o18 0O17 0X1F 0xg 0b12 _1 12:30 190:20:30
1.5 -1.5 +1.5 1. .5 -.5 +.5 . .. 1.5. 1..5 1.e5 1.5e5 1.5e+5 1.5e-5 1.5E5 1e5 1E5 1e+5 1e-5 3e-6 3.0e-5
-1e-5 +1e5 01e5 1e 1e- e5 1e5.0 1e1_0 .5e3 .5e+3 .5e-3 1.5e5e5 20:30.15 1,000 1e400 123456789012345678901234567890
.inf -.inf +.inf .Inf .INF .iNf inf .nan .NaN .NAN -.nan nan
""")
RARE = scalars("0o17 0x1f 0b11 1_000 0_1 1_ 1_0.5 0.1_5")
IMPOSSIBLE = scalars("!!int␣x !!int !!float␣x !!float !!bool␣maybe !!timestamp␣now")
WORDS = scalars(r"""
y Y n N yes Yes YES no No NO on On ON off Off OFF true True TRUE tRUE false False FALSE t f
~ null Null NULL nULL none None ~~ '' "" '8' "8" '~' "true" 'a''b' "\u00e9\t\x41" a#b a:b a=b == <<< - -- --- ? ?a :a
!!str !!str␣x !!int␣'8' !!float␣1 !!float␣1e5 !!str␣8 !!null␣x !!bool␣True !␣8 !!seq␣[1] !!binary␣aGk=
1.2.3 v1 1e5x file:~/x hub:a/b@main pypi:a==1.0 a, a] a} [] {} [a,b] [1,2.0,x,] {a:1} {a} {"a":1} {a,b} 🙂 é 20200102
""")
DOCUMENTS = [
    "a: {b: 1, c: [x, 2.0]} # d\ne:\n- f: g\n  h: |\n    i\n    j\n- k\n- >-\n  l\n  m\n",
    "a: &x {b: 1, c: 2}\nd:\n  c: 3\n  <<: *x\ne: [*x, *x]\nf:\n  <<: [*x, {g: 5}]\n  b: 5\n",
    "2: a\n1.5: b\ntrue: c\nnull: d\n",
    "%YAML 1.2\n---\na: on\n...\n",
    "\ufeffa: 1\r\nb: 'c\r\n  d'\r\n",
]


@pytest.mark.parametrize("text", [*(f"key: {text}\n" for text in [*NUMBERS, *IMPOSSIBLE, *WORDS]), *DOCUMENTS])
def test_a_text_is_what_dvc_makes_of_it(text: str, tmp_path: Path) -> None:
    try:
        expected = as_dvc_reads(text, tmp_path)
    except Exception as error:  # DVC's reader raises many kinds of errors
        with pytest.raises(StageError):
            print(f"where DVC says {error}:", parse_yaml(text, "params.yaml"))
    else:
        assert with_types(parse_yaml(text, "params.yaml")) == with_types(expected)


def test_a_number_in_a_rare_form_is_text_which_no_key_takes_for_a_number() -> None:
    assert parse_yaml(f"[{', '.join(RARE)}]", "params.yaml") == RARE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", ':3: found duplicate key "a"'),
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


def test_the_files_of_the_project_are_what_dvc_makes_of_them() -> None:
    for name in ("params.yaml", "dvc.yaml"):
        assert with_types(read_yaml(ROOT / name)) == with_types(load_path(str(ROOT / name), localfs)), name


def test_what_dvc_writes_is_read_back_and_dvc_reads_what_our_tests_write(tmp_path: Path) -> None:
    """`dvc exp run -S` writes params.yaml with `dumps_yaml`, and every run writes dvc.lock with it."""
    numbers: list[Any] = [1e-5, 3e-6, 1e22, math.inf, math.nan, 8, True, None]
    others: list[Any] = [[], {}, [1, [2.0]], "", " a ", "a: b", "a\nb", "x" * 300]
    params = {"a": dict(enumerate([*numbers, *others, *NUMBERS, *IMPOSSIBLE, *WORDS]))}
    assert with_types(parse_yaml(dumps_yaml(params), "params.yaml")) == with_types(params)
    write_yaml(tmp_path / "params.yaml", params)
    assert with_types(load_path(str(tmp_path / "params.yaml"), localfs)) == with_types(params)
