"""params.yaml: read as DVC reads it; wrong values are refused with the key, the value and what is allowed."""

import hashlib
import json
from contextlib import nullcontext
from functools import reduce
from itertools import pairwise
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from stages.params.methods import Soft
from stages.params.schema import LearningRates, load_params, parse_params
from stages.params.validation import redact, show
from stages.plumbing.errors import StageError
from tests.tiny import ROOT, SWITCHES, read_yaml, shipped_params

absent = object()


def test_every_plain_value_is_a_switch_that_tests_set_themselves_whatever_a_user_has_set() -> None:
    params = read_yaml(ROOT / "params.yaml")
    assert {key for key, value in params.items() if not isinstance(value, dict)} == SWITCHES.keys()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """params.yaml with some keys, given as `a/b/c`, set or removed."""
    params = shipped_params()
    for path, value in changes.items():
        *above, last = path.split("/")
        place = reduce(getitem, above, params)
        place[last] = value
        if value is absent:
            del place[last]
    return params


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(StageError) as caught:
        parse_params(changed(changes))
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("params.yaml: ") == 1
    return message.removeprefix("params.yaml: ")


@pytest.mark.parametrize("method", list(shipped_params()["methods"]))
@pytest.mark.parametrize("protocol", list(shipped_params()["protocols"]))
def test_every_method_goes_with_every_protocol_and_with_the_paper_s_soft_starts_at_random(
    method: str, protocol: str
) -> None:
    params = parse_params(shipped_params() | {"method": method, "protocol": protocol})
    chosen = params.chosen_method
    assert protocol != "paper" or not isinstance(chosen, Soft) or chosen.init == "random"


PAPER = "protocols/paper/training"
RATES = f"{PAPER}/learning_rates"
TEMPLATE = "models/smollm2/prompt_template"
GPT2 = "models/gpt2"
WITHOUT_PATHS = {**shipped_params()["models"]["gpt2"], "source": "url:https://h/x"}
WITHOUT_PATHS["files"] = {name: {"sha256": "0" * 64} for name in ("config.json", "model.safetensors")}
CHITCHAT = "datasets/chitchat"
REFERENCES = "datasets/dailydialog-files/files/references"
# The key, the value to put there (`absent`: none), and how the message goes on after the key.
REFUSED: list[tuple[str, Any, str]] = [
    ("modle", "x", ": unknown key; did you mean 'model'? allowed: dataset, model, method, "),
    (f"{PAPER}/bach_size", 8, ": unknown key; did you mean 'batch_size'?"),
    (f"{PAPER}/patience", 3, ": an old name; write early_stopping_patience"),
    ("seed", absent, ": missing; add it"),
    ("methods/soft/kind", "sfot", ": found 'sfot'; did you mean 'soft'? allowed: fine-tune, "),
    ("methods/soft", 3, ": found 3; it must be a table of keys"),
    ("method", "sof", ": 'sof' is not an entry of methods; did you mean 'soft'? allowed: fine-tune, soft, "),
    ("pairs/stride", "2", ": found '2'; allowed: 1 or 2"),
    ("regime", 0, ": found 0; it must be greater than 0"),
    ("regime", 100.5, ": found 100.5; it must be less than or equal to 100"),
    ("drop_overlap", "yes", ": found 'yes'; it must be true or false"),
    ("regime", float("nan"), ": found nan; it must be a finite number"),
    ("seed", True, ": found True; it must be a whole number"),
    ("dataset", [], ": found an empty list; it must be text"),
    ("runtime/device", "x" * 10_000, f": found '{'x' * 58}… (10002 characters); "),
    (f"{RATES}/low", 0.5, ": 0.5 is above high (0.009)"),
    (RATES, {"low": 0.1, "high": 0.1, "trials": 2}, ".trials: 2 of one and the same learning rate; set "),
    (f"{RATES}/spread", 10, "~.low: given beside spread; "),
    ("methods/dynamic/learning_rate", absent, ": missing, and protocols.quick.training.learning_rates.spread needs it"),
    (f"{CHITCHAT}/messages", absent, ": missing; set it to one or joined"),
    ("datasets/dailydialog/messages", "one", ": not used with format eou; remove it"),
    (f"{CHITCHAT}/split", absent, ": missing; files has only `all`"),
    ("forgetting/text", "x.txt", "~.sha256: missing; write what `sha256sum x.txt` prints"),
    ("forgetting/tokens", 255, ": found 255; it must be greater than or equal to 256"),
    ("forgetting/sha256", "0" * 64, ": given without a file; leave it out"),
    (TEMPLATE, "chat-templat", ": found 'chat-templat'; did you mean 'chat-template'?"),
    (TEMPLATE, {"separator": "\\nB: ", "end": "x"}, ".separator: '\\nB: ' has \\n as two characters, where a line "),
    ("models/x[1.7b]", {}, ": DVC finds no name with a dot or a bracket in it; name it x-1-7b"),
    ("methods/lora/target_modules", [], ": found an empty list; it must have at least 1 item"),
    (f"{GPT2}/source", "gpt2", ": found 'gpt2'; it must be pypi:NAME==VERSION"),
    (f"{GPT2}/source", "hub:gpt2@main", ": found 'hub:gpt2@main'; it must be hub:OWNER/NAME@REVISION"),
    (f"{GPT2}/source", "hub:a/b@../../c", ": found"),
    (f"{GPT2}/source", "url:https://host/x#token=secret", ": found 'url:https://host/x#***'; it must be url:https://"),
    (REFERENCES, {"source": "url-with-query:https://h/x?a", "path": "r", "sha256": "0" * 64}, ".path: given beside an"),
    (f"{GPT2}/source", "url:ftp://host/x", ": found 'url:ftp://host/x'; it must be url:https://"),
    (f"{CHITCHAT}/source", "pypi:a==1.*", ": found 'pypi:a==1.*'; it must be pypi:NAME==VERSION"),
    (f"{CHITCHAT}/source", "pypi:--index-url==1", ": found"),
    (f"{GPT2}/source", "hub:a/b@main", "~.files.config.json.sha256: missing; add it (or member_sha256), or name "),
    (f"{GPT2}/source", "file:~/x", "~.files.config.json.sha256: missing; add it: `sha256sum ~/x/config.json` "),
    ("pairs/joined_by", "\t", ": found '\\t'; write a text on one line, with single spaces: queries have no"),
    (GPT2, WITHOUT_PATHS, ".files.config.json.path: missing; name the file below the address"),
    (f"{GPT2}/source", "url:https://h/x", "~.files.config.json.sha256: missing; add it, so that it is pinned"),
    (f"{CHITCHAT}/files/all/sha256", "A" * 64, ": found 'AAAA"),
    (f"{CHITCHAT}/files/all/member", absent, ": missing; name the file inside the wheel"),
    (f"{CHITCHAT}/files/all/path", "x", ": a wheel has no path"),
    ("datasets/dailydialog/files/test/path", absent, ": missing; name the file"),
    ("datasets/dailydialog/files/test/member", absent, "_sha256: there is no member"),
    ("datasets/dailydialog/files/test", absent, "~: found train, validation; it must be train"),
    ("datasets/dailydialog/split", {"validation": 1, "test": 1, "seed": 0}, ": the files are already split"),
    (REFERENCES, {"path": "r.jsonl"}, ".sha256: missing; add it: `sha256sum"),
    (REFERENCES, {"source": "ftp:x", "sha256": "0" * 64}, ".source: found 'ftp:x'; it must be pypi:"),
    (f"{CHITCHAT}/files/all/member", "../x", ": found '../x'; use a path"),
    (f"{CHITCHAT}/files/all/member", "a\\b", ": found"),
    (f"{GPT2}/files/pytorch_model.bin", {}, ": 'pytorch_model.bin' does not fit format safetensors: others "),
    (f"{GPT2}/files/model.safetensors", {"path": "a/x.PKL"}, ": 'a/x.PKL' does not fit format safetensors"),
    (f"{GPT2}/files/modeling.py", {}, ": 'modeling.py' does not fit format safetensors"),
    (f"{GPT2}/files/adapter_config.json", {}, ": 'adapter_config.json' is not a name"),
    (f"{GPT2}/files", {"../config.json": {}}, ".../config.json: '../config.json' is not a name"),
    (f"{GPT2}/files/config.json", absent, ": missing; a safetensors model needs it"),
    (f"{GPT2}/files", {"config.json": {}, "model.safetensors": {}}, ": no file of the tokenizer; add tokenizer.json"),
    ("models/smollm2/format", "safetensors", "~.files.model.gguf: 'model.gguf' does not fit"),
    ("runtime/checkpoints", "s3://me:hunter2@store/x", ": 's3://***@store/x' is no folder; name a folder that "),
]


@pytest.mark.parametrize(("key", "value", "said"), REFUSED)
def test_a_value_is_refused_with_its_key_what_was_found_and_what_is_allowed(key: str, value: Any, said: str) -> None:
    """`~`: the message is about the table around this key."""
    place = key.rpartition("/")[0] if said.startswith("~") else key
    assert refusal({key: value}).startswith(place.replace("/", ".") + said.lstrip("~"))


def test_a_text_that_cannot_be_read_or_is_too_short_is_refused_when_params_yaml_is_read(tmp_path: Path) -> None:
    text = tmp_path / "text"
    for content, said in (
        (b"", r"text: no file .*text; name a text file"),
        (b"caf\xe9", r"text: .*text is not UTF-8; name a text"),
        (b"Hello.\n\nBye.", r"text: 12 characters in 2 paragraphs; give at least 2048 in two"),
        (b"Hello there. " * 200, r"text: 2600 characters in 1 paragraphs; .* with a blank line"),
        (b"changed", r"sha256: .*text has [0-9a-f]{64}; correct it"),
        (b"Hello.\r\n\r\n" * 300, ""),
    ):
        if content:
            text.write_bytes(content)
        pin = hashlib.sha256(content.removeprefix(b"changed")).hexdigest()
        params = changed({"forgetting/text": str(text), "forgetting/sha256": pin})
        (tmp_path / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
        with pytest.raises(StageError, match=rf"^params.yaml: forgetting\.{said}") if said else nullcontext():
            load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("path", "name"), [("a/talks.jsonl", "test.jsonl"), ("talks.jsonl.gz", "test.jsonl.gz"), ("v1.2/talks", "test")]
)
def test_a_file_keeps_its_suffix_whatever_the_format(path: str, name: str) -> None:
    params = changed({"datasets/dailydialog-files/files/test/path": path})
    assert parse_params(params).datasets["dailydialog-files"].file_name("test") == name


def test_further_references_come_from_the_corpuss_source_or_from_one_of_their_own() -> None:
    entry = {"path": "r.jsonl", "sha256": "0" * 64}
    for more in ({}, {"source": None}, {"source": f"hub:a/b@{'a' * 40}"}):
        dataset = parse_params(changed({REFERENCES: entry | more})).datasets["dailydialog-files"]
        assert dataset.files["references"].source == more.get("source")
        assert dataset.file_name("references") == "references.jsonl"


def test_a_prompt_shorter_than_the_query_is_refused_where_it_is_used() -> None:
    short = {"methods/soft/prompt_tokens": 32}
    expected = "methods.soft.prompt_tokens: 32, below the 64 of protocols.quick.lengths.max_query_tokens; "
    assert refusal(short | {"method": "soft"}).startswith(expected)
    parse_params(changed(short))  # the method is not chosen
    parse_params(changed(short | {"method": "prompt-tuning"}))  # a prompt of a length of its own


def test_what_may_be_a_secret_is_not_repeated() -> None:
    assert refusal({"hf_token": "hf_secret"}) == refusal({"hf_token": "x"})
    for source in ("url:https://me:secret@host/x", "https://host/x?key=secret", "hf_secretabcdefgh"):
        assert "secret" not in refusal({f"{GPT2}/source": source})
    assert "secret" not in refusal({"runtime/device": "https://me:secret@host/x"})
    signed = refusal({f"{GPT2}/source": "url:https://host/x?Signature=secret"})
    assert "secret" not in signed
    assert signed.endswith(" or url-with-query:https://HOST/PATH?QUERY (if all may use it)")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("url-with-query:https://me@host/x.zip?Signature=secret", "url-with-query:https://***@host/x.zip?***"),
        ("file:/home/me/my corpora/chats", "file:***/chats"),
        ("file:~/chats", "file:***/chats"),
        ("file:chats", "file:chats"),
        ("hub:datasets/a/b@main", "hub:datasets/a/b@main"),
    ],
)
def test_a_source_is_shown_without_queries_users_and_folders(source: str, shown: str) -> None:
    assert redact(source) == shown
    assert show(source) == repr(shown)


def test_a_misspelt_key_is_one_mistake_and_further_ones_are_counted() -> None:
    message = refusal({"regime": absent, "regmie": 8})
    assert message.startswith("regmie: unknown key; did you mean 'regime'? ")
    assert "more)" not in message, "that the right one is missing is the same mistake"
    assert refusal({"seed": -1, "regime": 0}).endswith("(and 1 more)")


def test_dvc_writes_params_yaml_as_it_is_but_for_the_lines_that_change(tmp_path: Path) -> None:
    """So `dvc exp run -S` leaves a difference that a person can read, and the comments."""
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(before, encoding="utf-8")
    changes = ["seed=77", "runtime.address=head:6379", f"{PAPER.replace('/', '.')}.batch_size=77"]
    apply_overrides(tmp_path / "params.yaml", changes)
    after = (tmp_path / "params.yaml").read_text(encoding="utf-8").splitlines()
    assert len([pair for pair in zip(before.splitlines(), after, strict=True) if pair[0] != pair[1]]) == 3


def test_a_file_that_is_missing_no_utf8_or_no_table_is_named(tmp_path: Path) -> None:
    for content, said in (
        (b"", "missing; run this from the top of the project"),
        (b"seed: \xff", r"not UTF-8 \(invalid start byte at byte 6\); save it"),
        (b"text", "found 'text'; it must be a table of keys"),
    ):
        if content:
            (tmp_path / "params.yaml").write_bytes(content)
        with pytest.raises(StageError, match=rf"params\.yaml: {said}"):
            load_params(tmp_path / "params.yaml")


def test_learning_rates_are_log_spaced_with_both_ends_and_none_is_above_one() -> None:
    values = LearningRates(low=3e-6, high=9e-3, trials=12).values()
    assert (values[0], values[-1], len(values)) == (3e-6, 9e-3, 12)
    ratios = [after / before for before, after in pairwise(values)]
    assert max(ratios) == pytest.approx(min(ratios))
    assert LearningRates(low=1e-4, high=1e-2, trials=1).values() == [pytest.approx(1e-3)]
    assert LearningRates(spread=100, trials=3).around(0.5).values() == pytest.approx([0.05, 0.05**0.5, 1.0])


BEST_RATES = {  # lowest and highest of both corpora and all seeds (metrics/recipe.md, metrics/earlier/report.md)
    "fine-tune": (3e-5, 1e-4), "soft": (1e-3, 1e-3), "dynamic": (1e-4, 3.2e-4), "lora": (3.2e-4, 1e-3),
    "prefix": (3e-3, 1e-2), "embeddings": (1e-4, 3.2e-4), "soft-frozen": (3.2e-3, 1.9e-2),
    "dynamic-frozen": (4.7e-5, 3e-4),
}  # fmt: skip


@pytest.mark.parametrize("method", BEST_RATES)
def test_the_best_rates_that_were_measured_lie_inside_the_three_of_quick(method: str) -> None:
    params = parse_params(shipped_params() | {"method": method, "protocol": "quick"})
    low, _, high = params.chosen_protocol.training.learning_rates.values()
    assert low < BEST_RATES[method][0] <= BEST_RATES[method][1] < high
