"""We and DVC read YAML the same way: same values, same types; every difference is listed here."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from dvc.fs import localfs
from dvc.utils.serialize import dumps_yaml, load_path, parse_yaml_for_update

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
    return type(value).__name__, value.isoformat() if isinstance(value, date) else repr(value)


def scalars(listed: str) -> list[str]:
    """The words between spaces and line breaks; `␣` becomes a space."""
    return [text.replace("␣", " ") for text in listed.split()]


NUMBERS = scalars("""
0 7 -7 +7 007 012 -012 089 0o17 0o18 0O17 0x1f 0X1F 0xg 0b11 0b12 1_000 1__0 _1 -_1 0_1 1_ 0x_f 12:30 190:20:30
1.5 -1.5 +1.5 1. .5 -.5 +.5 . .. 1.5. 1..5 1_0.5 0.1_5 ._5 1.e5 1.5e5 1.5e+5 1.5e-5 1.5E5 1e5 1E5 1e+5 1e-5 3e-6 3.0e-5
-1e-5 +1e5 01e5 1e 1e- e5 1e5.0 1e1_0 .5e3 .5e+3 .5e-3 1.5e5e5 20:30.15 1,000 1e400 123456789012345678901234567890
.inf -.inf +.inf .Inf .INF .iNf inf .nan .NaN .NAN -.nan nan
""")
NO_NUMBERS = scalars("-_ 0b_ 0o_ 0x_ ._ !!int␣x !!int !!float␣x !!float !!bool␣maybe !!timestamp␣now")
WORDS = scalars(r"""
y Y n N yes Yes YES no No NO on On ON off Off OFF true True TRUE tRUE false False FALSE t f
~ null Null NULL nULL none None ~~ '' "" '8' "8" '~' "true" 'a''b' "\u00e9\t\x41" a#b a:b a=b == <<< - -- --- ? ?a :a
!!str !!str␣x !!int␣'8' !!int␣0o17 !!float␣1 !!float␣1e5 !!str␣8 !!null␣x !!bool␣True !␣8 !!seq␣[1] !!binary␣aGk=
1.2.3 v1 1e5x file:~/x hub:a/b@main pypi:a==1.0 a, a] a} [] {} [a,b] [1,2.0,x,] {a:1} {a} {"a":1} {a,b} 🙂 é
2020-01-02 2020-1-2 2020-01-02T03:04:05 2020-01-02T03:04:05.678 2020-01-02T03:04:05Z 2020-01-02T3:04:05+01:00
2020-01-02t03:04:05-5 2020-01-02␣03:04:05 20200102 2020-01 2020 2020-13-01
""")


@pytest.mark.parametrize("text", [*NUMBERS, *NO_NUMBERS, *WORDS])
def test_a_scalar_is_what_dvc_makes_of_it(text: str, tmp_path: Path) -> None:
    text = f"key: {text}\n"
    try:
        expected = as_dvc_reads(text, tmp_path)
    except Exception as error:  # DVC's reader raises many kinds of errors
        with pytest.raises(StageError):
            print(f"where DVC says {error}:", parse_yaml(text, "params.yaml"))
    else:
        assert with_types(parse_yaml(text, "params.yaml")) == with_types(expected)


DOCUMENTS = {
    "tables, lists and comments": "a: {b: 1, c: [x, 2.0]} # d\ne:\n- f: g\n  h: |\n    i\n    j\n- k\n- >-\n  l\n  m\n",
    "an alias": "a: &x {b: 1}\nc: *x\nd: [*x, *x]\n",
    "an anchor given anew": "a: &x 1\nb: *x\nc: &x 2\nd: *x\n",
    "a merge": "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3, e: 4}\n",
    "a merge below its keys": "a: &x {b: 1, c: 2}\nd:\n  c: 3\n  <<: *x\n",
    "a merge of two, the first wins": "a: &x {b: 1, c: 2}\nd: &y {c: 3, e: 4}\nf:\n  <<: [*x, *y]\n  b: 5\n",
    "a merge of a merge": "a: &x {b: 1}\nc: &y {<<: *x, b: 2, d: 3}\ne: {<<: *y, d: 4}\nf: {<<: *y}\n",
    "a quoted << is a key": "a: &x {b: 1}\nc: {'<<': *x}\n",
    "keys of other types": "2: a\n1.5: b\ntrue: c\nnull: d\n2020-01-02: e\n0x10: f\n",
    "=, as a key": "=: 1\n",
    "one document with its marks": "%YAML 1.2\n---\na: on\n...\n",
    "a byte order mark and carriage returns": "\ufeffa: 1\r\nb: 'c\r\n  d'\r\n",
    "a long and a deep one": "a: " + "[" * 40 + "]" * 40 + "\nb: " + "x" * 2000 + "\n",
}


@pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_what_dvc_makes_of_it(name: str, tmp_path: Path) -> None:
    expected = as_dvc_reads(DOCUMENTS[name], tmp_path)
    assert with_types(parse_yaml(DOCUMENTS[name], "params.yaml")) == with_types(expected)


REFUSED = {
    "a key given twice": ("a: 1\nb: 2\na: 3\n", ':3: found duplicate key "a"'),
    "in a table inside": ("a:\n  b: {c: 1, c: 2}\n", ':2: found duplicate key "c"'),
    "in a list": ("- a: 1\n- a: 1\n  a: 2\n", ':3: found duplicate key "a"'),
    "as another text of the same number": ("16: a\n0x10: b\n", ':2: found duplicate key "16"'),
    "two merges": ("a: &x {b: 1}\nc: &y {d: 1}\ne:\n  <<: *x\n  <<: *y\n", ':5: found duplicate key "<<"'),
    "a merge of no table": ("a: &x 1\nb: {<<: *x}\n", ":1: expected a mapping or list of mappings for merging, but"),
    "two documents": ("a: 1\n---\nb: 2\n", ":2: but found another document"),
    "an object": ("a: !!python/name:os.system\n", ":1: could not determine a constructor for the tag 'tag:yaml.org"),
    "no table, no list": ("a: [1, 2\nb: 3\n", ":2: expected ',' or ']', but got ':'"),
    "a tab for an indent": ("a:\n\tb: 1\n", ":2: found character '\\t' that cannot start any token"),
    "a control character": ("a: \x07\n", ": unacceptable character #x0007: special characters are not allowed in "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_dvc_refuses_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, found = REFUSED[name]
    with pytest.raises(Exception, match="YAML file structure is corrupted"):
        as_dvc_reads(text, tmp_path)
    with pytest.raises(StageError) as caught:
        parse_yaml(text, "params.yaml")
    assert str(caught.value).startswith(f"params.yaml{found}")


# All known differences; they are on purpose. None of these can be in a params.yaml that we accept.
REFUSED_BY_US: dict[str, tuple[str, Any, str]] = {  # text, what DVC reads, our message
    "a key given twice beside a merge": (
        "a: &x {b: 1}\nc: {<<: *x, d: 1, d: 2}\n",
        {"a": {"b": 1}, "c": {"b": 1, "d": 2}},
        ':2: found duplicate key "d"',
    ),
    "two merges, of which one is empty": (
        "a:\n  <<: {}\n  <<: {b: 1}\n",
        {"a": {"b": 1}},
        ':3: found duplicate key "<<"',
    ),
    "a list as a key": ("? [1, 2]\n: a\n", {(1, 2): "a"}, ":1: found unhashable key"),
    "no key": (": a\n", {None: "a"}, ":1: expected <block end>, but found ':'"),
    "a tab between braces": ("a: {\t\n}\n", {"a": {}}, ":1: found character '\\t' that cannot start any token"),
    "YAML 1.1": ("%YAML 1.1\n---\na: on\n", {"a": True}, ":1: found %YAML 1.1, but only 1.2 can be read"),
    "a line break of YAML 1.1": ("a: b\u2028c\n", {"a": "b\u2028c"}, ": unacceptable character #x2028"),
    "an anchor with marks in its name": ("a: &x! 1\n", {"a": 1}, ":1: expected alphabetic or numeric character, but"),
}
READ_OTHERWISE: dict[str, tuple[str, Any, Any]] = {  # text, what DVC reads (None: an error), what we read
    "an anchor with a colon in its name": ("a: &x:y b\n", {"a": "b"}, {"a": ":y b"}),
    "a lone =": ("a: =\n", None, {"a": "="}),
    "an ordered table": ("a: !!omap [b: 1]\n", {"a": {"b": 1}}, {"a": [("b", 1)]}),
}


@pytest.mark.parametrize("name", REFUSED_BY_US)
def test_what_dvc_reads_and_we_refuse(name: str, tmp_path: Path) -> None:
    text, dvcs, found = REFUSED_BY_US[name]
    assert with_types(as_dvc_reads(text, tmp_path)) == with_types(dvcs)
    with pytest.raises(StageError) as caught:
        parse_yaml(text, "params.yaml")
    assert str(caught.value).startswith(f"params.yaml{found}")


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_what_dvc_reads_as_something_else(name: str, tmp_path: Path) -> None:
    text, dvcs, ours = READ_OTHERWISE[name]
    if dvcs is None:
        with pytest.raises(Exception, match="YAML file structure is corrupted"):
            as_dvc_reads(text, tmp_path)
    else:
        assert as_dvc_reads(text, tmp_path) == dvcs
    assert parse_yaml(text, "params.yaml") == ours


def test_the_files_of_the_project_are_what_dvc_makes_of_them() -> None:
    for name in ("params.yaml", "dvc.yaml"):
        assert with_types(read_yaml(ROOT / name)) == with_types(load_path(str(ROOT / name), localfs)), name


VALUES: list[Any] = [1e-5, 3e-6, 0.0001, 1e16, 1e22, -0.5, math.inf, -math.inf, math.nan, 8, 0, True, None, [], {}]
VALUES += [[1, [2.0]], "", " a ", "a: b", "a #b", "a\nb", "x" * 300, *NUMBERS, *NO_NUMBERS, *WORDS]


def test_what_dvc_writes_is_read_back() -> None:
    """`dvc exp run -S` writes params.yaml with `dumps_yaml`, and every run writes dvc.lock with it."""
    params = {"a": {str(number): value for number, value in enumerate(VALUES)}}
    assert with_types(parse_yaml(dumps_yaml(params), "params.yaml")) == with_types(params)
    kept = dumps_yaml(parse_yaml_for_update(dumps_yaml(params), "params.yaml"))
    assert with_types(parse_yaml(kept, "params.yaml")) == with_types(params)


def test_what_our_tests_write_is_read_back_by_dvc(tmp_path: Path) -> None:
    params = {"a": {str(number): value for number, value in enumerate(VALUES)}}
    write_yaml(tmp_path / "params.yaml", params)
    assert with_types(load_path(str(tmp_path / "params.yaml"), localfs)) == with_types(params)
