"""params.yaml: read as DVC reads it; wrong values are refused with the key, the value and what is allowed."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml

from stages.params.schema import LearningRates, load_params, parse_params
from stages.plumbing.errors import StageError
from tests.helpers_data import ROOT, shipped

Change = Callable[[dict[str, Any]], object]


def put(path: str, value: object) -> Change:
    """A function that changes one key, given as `a/b/c`."""

    def change(params: dict[str, Any]) -> None:
        *above, last = path.split("/")
        for key in above:
            params = params[key]
        params[last] = value

    return change


def drop(path: str) -> Change:
    def change(params: dict[str, Any]) -> None:
        *above, last = path.split("/")
        for key in above:
            params = params[key]
        del params[last]

    return change


def refusal(*changes: Change) -> str:
    params = shipped()
    for change in changes:
        change(params)
    with pytest.raises(StageError) as caught:
        parse_params(params)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("params.yaml: ") == 1
    return message.removeprefix("params.yaml: ")


def test_the_shipped_file_is_accepted_and_its_switches_choose() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.chosen_dataset is params.datasets["chitchat"]
    assert params.chosen_model is params.models["smollm2"]
    assert params.chosen_method is params.methods["dynamic"]
    assert params.chosen_protocol.data is params.protocols["quick"].data


PAPER = "protocols/paper/training"
GPT2 = "models/gpt2"
CHITCHAT = "datasets/chitchat"
REFERENCES = "datasets/dailydialog-files/references"
REFUSED: list[tuple[Change, str]] = [
    (put("modle", "x"), "modle: unknown key; did you mean 'model'? allowed: dataset, model, method, "),
    (put("methods/soft/promt", 1), "methods.soft.promt: unknown key; did you mean 'prompt_tokens'? allowed: "),
    (put(f"{PAPER}/bach_size", 8), "protocols.paper.training.bach_size: unknown key; did you mean 'batch_size'?"),
    (put("pairs/batch_size", 2), "pairs.batch_size: unknown key; allowed: stride"),  # no hint from another table
    (put(f"{CHITCHAT}/files/al", {}), "datasets.chitchat.files.al: unknown key; did you mean 'all'? allowed: train, "),
    (drop("seed"), "seed: missing; add it"),
    (drop("protocols/quick/lengths/max_query_tokens"), "protocols.quick.lengths.max_query_tokens: missing; add it"),
    (drop("methods/soft/kind"), "methods.soft.kind: missing"),
    (put("methods/soft/kind", "sfot"), "methods.soft.kind: found 'sfot'; did you mean 'soft'? allowed: fine-tune, "),
    (put("methods/soft", 3), "methods.soft: found 3; it must be a table of keys"),
    (put("method", "sof"), "method: 'sof' is not an entry of methods; did you mean 'soft'? allowed: fine-tune, soft, "),
    (put("dataset", []), "dataset: found an empty list; it must be text"),
    (put("pairs", []), "pairs: found an empty list; it must be a table of keys"),
    (put("pairs", None), "pairs: found nothing; it must be a table of keys"),
    (put("pairs/stride", 3), "pairs.stride: found 3; allowed: 1 or 2"),
    (put("pairs/stride", "2"), "pairs.stride: found '2'; allowed: 1 or 2"),
    (put("regime", "30"), "regime: found '30'; it must be a number"),
    (put("regime", 0), "regime: found 0; it must be greater than 0 and at most 100"),
    (put("regime", 100.5), "regime: found 100.5; it must be less than or equal to 100"),
    (put("regime", float("nan")), "regime: found nan; "),
    (put("seed", True), "seed: found True; it must be a whole number"),
    (put("seed", 2**32), "seed: found 4294967296; it must be less than 4294967296"),
    (put("seed", 1.0), "seed: found 1.0; it must be a whole number"),
    (put("drop_overlap", "yes"), "drop_overlap: found 'yes'; it must be true or false"),
    (put("runtime/device", "gpu"), "runtime.device: found 'gpu'; did you mean 'cpu'? allowed: auto, cpu, cuda, mps"),
    (put(f"{PAPER}/learning_rates/trials", 65), "protocols.paper.training.learning_rates.trials: found 65; it must"),
    (put(f"{PAPER}/learning_rates/low", 0.5), "protocols.paper.training.learning_rates.low: 0.5 is above high (0.009)"),
    (put(f"{PAPER}/learning_rates/low", 0), "protocols.paper.training.learning_rates.low: found 0; it must be greater"),
    (
        put(f"{PAPER}/learning_rates", {"low": 0.1, "high": 0.1, "trials": 2}),
        "protocols.paper.training.learning_rates.trials: 2 of one and the same learning rate; set trials to 1",
    ),
    (
        put(f"{PAPER}/learning_rates", {"spread": 1, "trials": 3}),
        "protocols.paper.training.learning_rates.trials: 3 of one and the same learning rate",
    ),
    (put("methods/lora/dropout", float("nan")), "methods.lora.dropout: found nan; "),
    (drop(f"{PAPER}/learning_rates/low"), "protocols.paper.training.learning_rates.low: missing; give low and high"),
    (put(f"{PAPER}/learning_rates/spread", 10), "protocols.paper.training.learning_rates.low: given beside spread; "),
    (drop("methods/dynamic/learning_rate"), "methods.dynamic.learning_rate: missing, and protocols.quick.training.le"),
    (put("methods/soft/learning_rate", 2), "methods.soft.learning_rate: found 2; it must be less than or equal to 1"),
    (put(f"{PAPER}/max_grad_norm", "off"), "protocols.paper.training.max_grad_norm: found 'off'; it must be a number"),
    (put("models/1", {}), "models.1.format: missing; add it (params.yaml as published shows every key) (and 3 more)"),
    (drop(f"{CHITCHAT}/messages"), "datasets.chitchat.messages: missing; set it to one or joined"),
    (put("datasets/dailydialog/messages", "one"), "datasets.dailydialog.messages: not used with format eou; remove it"),
    (drop(f"{CHITCHAT}/split"), "datasets.chitchat.split: missing; files has only `all`"),
    (put("forgetting/text", "x.txt"), "forgetting.sha256: missing; write what `sha256sum x.txt` prints"),
    (put("forgetting/sha256", "0" * 64), "forgetting.sha256: given without a file; leave it out"),
    (
        put("models/smollm2/prompt_template", "chat-templat"),
        "models.smollm2.prompt_template: found 'chat-templat'; did you mean ",
    ),
    (
        put("models/smollm2/prompt_template", {"separatr": " ", "end": "x"}),
        "models.smollm2.prompt_template.separatr: unknown key; did you mean 'separator'? allowed: prefix, separator,",
    ),
    (put("models/smollm2/prompt_template", {"separator": " "}), "models.smollm2.prompt_template.end: missing; add it"),
    (
        put("models/smollm2/prompt_template", []),
        "models.smollm2.prompt_template: found an empty list; it must be a table",
    ),
    (put("methods/lora/target_modules", 7), "methods.lora.target_modules: found 7; allowed: all-linear"),
    (put("methods/lora/target_modules", []), "methods.lora.target_modules: found an empty list; "),
    # sources
    (put(f"{GPT2}/source", "gpt2"), "models.gpt2.source: found 'gpt2'; it must be one of pypi:NAME==VERSION"),
    (put(f"{GPT2}/source", "hub:gpt2@main"), "models.gpt2.source: found 'hub:gpt2@main'; it must be hub:OWNER/NAME@"),
    (put(f"{GPT2}/source", "hub:a/b"), "models.gpt2.source: found 'hub:a/b'; it must be hub:OWNER/NAME@REVISION"),
    (put(f"{GPT2}/source", "hub:a/..@main"), "models.gpt2.source: found"),
    (put(f"{GPT2}/source", "hub:a/b@../../c"), "models.gpt2.source: found"),
    (
        put(f"{GPT2}/source", "url:ftp://host/x"),
        "models.gpt2.source: found 'url:ftp://host/x'; it must be url:https://",
    ),
    (put(f"{GPT2}/source", "file:"), "models.gpt2.source: found 'file:'; it must be file:FOLDER"),
    (put(f"{CHITCHAT}/source", "pypi:a>=1"), "datasets.chitchat.source: found 'pypi:a>=1'; it must be pypi:"),
    (put(f"{CHITCHAT}/source", "pypi:a==1.*"), "datasets.chitchat.source: found 'pypi:a==1.*'; it must be pypi:"),
    (put(f"{CHITCHAT}/source", "pypi:--index-url==1"), "datasets.chitchat.source: found"),
    # not pinned
    (
        put(f"{GPT2}/source", "hub:a/b@main"),
        "models.gpt2.files.config.json.sha256: missing, and revision 'main' can",
    ),
    (put(f"{GPT2}/source", f"hub:a/b@{'a' * 39}"), "models.gpt2.files.config.json.sha256: missing, and revision"),
    (put(f"{GPT2}/source", "file:~/x"), "models.gpt2.files.config.json.sha256: missing; add it: `sha256sum ~/x/config"),
    (
        put(f"{GPT2}/source", "url:https://h/x"),
        "models.gpt2.files.config.json.sha256: missing; add it, so that it is",
    ),
    (drop(f"{CHITCHAT}/files/all/sha256"), "datasets.chitchat.files.all.sha256: missing; add it, so that it is pinned"),
    (put(f"{CHITCHAT}/files/all/sha256", "A" * 64), "datasets.chitchat.files.all.sha256: found 'AAAA"),
    (
        drop(f"{CHITCHAT}/files/all/member"),
        "datasets.chitchat.files.all.member: missing; name the file inside the",
    ),
    (put(f"{CHITCHAT}/files/all/path", "x"), "datasets.chitchat.files.all.path: a wheel has no path"),
    (drop("datasets/dailydialog/files/test/path"), "datasets.dailydialog.files.test.path: missing; name the file"),
    (drop("datasets/dailydialog/files/test/member"), "datasets.dailydialog.files.test.member_sha256: there is no"),
    (drop("datasets/dailydialog/files/test"), "datasets.dailydialog.files: found train, validation; it must be train"),
    (put("datasets/dailydialog/split", {"validation": 1, "test": 1, "seed": 0}), "datasets.dailydialog.split: the"),
    # further references
    (put(REFERENCES, {"path": "r.jsonl"}), "datasets.dailydialog-files.references.sha256: missing; add it: `sha256sum"),
    (put(REFERENCES, {"sha256": "0" * 64}), "datasets.dailydialog-files.references.path: missing; name the file"),
    (
        put(REFERENCES, {"source": "hub:a/b@main", "path": "r.jsonl"}),
        "datasets.dailydialog-files.references.sha256: missing, and revision 'main' can change",
    ),
    (
        put(REFERENCES, {"source": "ftp:x", "sha256": "0" * 64}),
        "datasets.dailydialog-files.references.source: found 'ftp:x'; it must be one of",
    ),
    (put(REFERENCES, {"file": "x"}), "datasets.dailydialog-files.references.file: unknown key; "),
    (put(REFERENCES, []), "datasets.dailydialog-files.references: found an empty list; it must be a table"),
    # paths
    (
        put(f"{CHITCHAT}/files/all/member", "../x"),
        "datasets.chitchat.files.all.member: found '../x'; use a path",
    ),
    (put(f"{CHITCHAT}/files/all/member", "/x"), "datasets.chitchat.files.all.member: found '/x'"),
    (put(f"{CHITCHAT}/files/all/member", ""), "datasets.chitchat.files.all.member: found ''"),
    (put(f"{CHITCHAT}/files/all/member", "a//b"), "datasets.chitchat.files.all.member: found 'a//b'"),
    (put(f"{CHITCHAT}/files/all/member", "a\\b"), "datasets.chitchat.files.all.member: found"),
    # no foreign code
    (
        put(f"{GPT2}/files/pytorch_model.bin", {}),
        "models.gpt2.files.pytorch_model.bin: 'pytorch_model.bin' can hold a",
    ),
    (put(f"{GPT2}/files/model.PT", {}), "models.gpt2.files.model.PT: 'model.PT' can hold a pickle"),
    (put(f"{GPT2}/files/model.safetensors", {"path": "a/x.pkl"}), "models.gpt2.files.model.safetensors: 'a/x.pkl' can"),
    (
        put(f"{GPT2}/files/modeling.py", {}),
        "models.gpt2.files.modeling.py: 'modeling.py' does not fit",
    ),
    (
        put(f"{GPT2}/files/adapter_config.json", {}),
        "models.gpt2.files.adapter_config.json: 'adapter_config.json' is no",
    ),
    (put(f"{GPT2}/files/manifest.json", {}), "models.gpt2.files.manifest.json: 'manifest.json' is not a name"),
    (drop(f"{GPT2}/files/config.json"), "models.gpt2.files.config.json: missing; a safetensors model needs it"),
    (drop(f"{GPT2}/files/model.safetensors"), "models.gpt2.files.model.safetensors: missing; a safetensors model"),
    (
        put(f"{GPT2}/files", {"config.json": {}, "model.safetensors": {}, "tokenizer_config.json": {}}),
        "models.gpt2.files: no file of the tokenizer; add tokenizer.json",
    ),
    (put("models/smollm2/format", "safetensors"), "models.smollm2.files.model.gguf: 'model.gguf' does not fit"),
]


@pytest.mark.parametrize(("change", "expected"), REFUSED)
def test_a_value_is_refused_with_its_key_what_was_found_and_what_is_allowed(change: Change, expected: str) -> None:
    assert refusal(change).startswith(expected)


def test_a_text_that_is_not_there_is_refused_when_params_yaml_is_read(tmp_path: Path) -> None:
    params = shipped()
    params["forgetting"] = {"text": str(tmp_path / "absent.txt"), "tokens": 512, "sha256": "0" * 64}
    (tmp_path / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    with pytest.raises(StageError, match=r"^params.yaml: forgetting.text: no file .*absent.txt; name a text file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "absent.txt").write_text("x")
    load_params(tmp_path / "params.yaml")


def test_further_references_come_from_the_corpuss_source_or_from_one_of_their_own() -> None:
    params = shipped()
    entry = {"path": "r.jsonl", "sha256": "0" * 64}
    for more in ({}, {"source": None}, {"source": f"hub:a/b@{'a' * 40}"}):
        put(REFERENCES, entry | more)(params)
        references = parse_params(params).datasets["dailydialog-files"].references
        assert references is not None
        assert references.source == more.get("source")


@pytest.mark.parametrize("name", ["../config.json", "a/config.json", "/config.json", "", ".."])
def test_a_name_of_a_models_file_cannot_leave_its_folder(name: str) -> None:
    assert refusal(lambda params: params["models"]["gpt2"]["files"].update({name: {}})).startswith("models.gpt2.files.")


def test_a_prompt_shorter_than_the_query_is_refused_where_it_is_used() -> None:
    short = put("methods/soft/prompt_tokens", 32)
    expected = "methods.soft.prompt_tokens: 32, below the 64 of protocols.quick.lengths.max_query_tokens; "
    assert refusal(short, put("method", "soft")).startswith(expected)
    params = shipped()
    short(params)
    parse_params(params)  # the method is not chosen


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_file_that_is_no_table_is_refused(value: object) -> None:
    with pytest.raises(StageError, match=r"^params\.yaml: found .*; it must be a table of keys"):
        parse_params(value)


def test_what_may_be_a_secret_is_not_repeated() -> None:
    assert refusal(put("hf_token", "hf_abcdefghijklmn")) == refusal(put("hf_token", "x"))
    assert "secret" not in refusal(put(f"{GPT2}/source", "url:https://me:secret@host/x"))
    assert "hf_abcdefghijklmn" not in refusal(put(f"{GPT2}/source", "hf_abcdefghijklmn"))
    assert "secret" not in refusal(put(f"{GPT2}/source", "https://host/x?key=secret"))
    assert "secret" not in refusal(put("runtime/device", "https://me:secret@host/x"))


def test_a_long_value_is_shortened() -> None:
    message = refusal(put("runtime/device", "x" * 10_000))
    assert len(message) < 200
    assert "(10002 characters)" in message


@pytest.mark.parametrize(
    ("right", "misspelt", "table"),
    [
        ("regime", "regmie", ""),
        ("batch_size", "batchsize", f"{PAPER}/"),
        ("max_query_tokens", "query_token", "protocols/quick/lengths/"),
    ],
)
def test_a_misspelt_key_is_named_as_itself_with_the_right_one(right: str, misspelt: str, table: str) -> None:
    message = refusal(drop(f"{table}{right}"), put(f"{table}{misspelt}", 8))
    assert message.startswith(f"{table}{misspelt}: unknown key; did you mean {right!r}? ".replace("/", "."))
    assert "more)" not in message, "that the right one is missing is the same mistake"


def test_a_missing_key_elsewhere_is_counted_beside_a_misspelt_one() -> None:
    message = refusal(drop(f"{PAPER}/batch_size"), put("regmie", 8))
    assert message.startswith("regmie: unknown key; ")
    assert message.endswith("(and 1 more)")


def test_more_errors_are_counted() -> None:
    assert refusal(put("sed", 1), put("regim", 2)).endswith("(and 1 more)")


@pytest.mark.parametrize(
    "text", ["1e-5", "1.0e-5", "1E5", "yes", "on", "017", "0o17", "1_000", ".inf", "~", "null", "'8'", "1:30", "0x1f"]
)
def test_scalars_are_read_as_dvc_reads_them(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"key: {text}\n")
    published = load_params(ROOT / "params.yaml")
    read: list[Any] = []

    def parse(value: Any) -> Any:
        read.append(value)
        return published

    monkeypatch.setattr("stages.params.schema.parse_params", parse)
    load_params(path)
    expected = parse_yaml(path.read_text(), str(path))
    assert read == [expected]
    assert type(read[0]["key"]) is type(expected["key"])


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "low: 3.0e-6" in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("low: 3.0e-6", "low: 3e-6"), encoding="utf-8")
    assert load_params(path).protocols["paper"].training.learning_rates.low == 3e-6


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nseed: 0\nseed: 5\n", ':3: found duplicate key "seed"; fix the YAML'),
        ("a: [1,\n", "expected the node content"),
        ("a: b: c\n", ":1: mapping values are not allowed here"),
        ("a: !!python/object/apply:os.system [id]\n", ":1: could not determine a constructor"),
        ("a: *b\n", ":1: found undefined alias 'b'"),
    ],
)
def test_what_dvc_refuses_is_refused_with_its_line(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(YAMLFileCorruptedError):
        parse_yaml(text, str(path))
    with pytest.raises(StageError) as caught:
        load_params(path)
    assert found in str(caught.value)


def test_a_file_that_is_missing_or_no_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"params\.yaml: missing; run this from the top of the project"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(StageError, match=r"not UTF-8 .*at byte 6"):
        load_params(tmp_path / "params.yaml")


def test_learning_rates_are_log_spaced_with_both_ends() -> None:
    values = LearningRates(low=3e-6, high=9e-3, trials=12).values()
    assert (values[0], values[-1], len(values)) == (3e-6, 9e-3, 12)
    ratios = [after / before for before, after in pairwise(values)]
    assert max(ratios) == pytest.approx(min(ratios))
    assert LearningRates(low=1e-4, high=1e-2, trials=1).values() == [pytest.approx(1e-3)]


@pytest.mark.parametrize("method", ["soft", "dynamic-frozen", "fine-tune", "lora", "embeddings"])
def test_a_spread_is_a_range_around_the_rate_of_the_chosen_method(method: str) -> None:
    params = shipped()
    put("method", method)(params)
    own = params["methods"][method]["learning_rate"]
    rates = parse_params(params).chosen_protocol.training.learning_rates.values()
    assert rates == pytest.approx([own / 10**0.5, own, own * 10**0.5])
    put("protocol", "paper")(params)
    assert parse_params(params).chosen_protocol.training.learning_rates.values()[::11] == [3e-6, 9e-3]


def test_no_rate_of_a_spread_is_above_one_and_a_single_one_is_the_method_s_own() -> None:
    around = LearningRates(spread=100, trials=3).around(0.5)
    assert around.values() == pytest.approx([0.05, 0.05**0.5, 1.0])
    assert around.high == 1.0
    assert LearningRates(spread=10, trials=1).around(3e-4).values() == [pytest.approx(3e-4)]


@pytest.mark.parametrize("address", ["s3://me:hunter2@store/x", "s3://:hunter2@store"])
def test_a_password_is_refused_in_an_address(address: str) -> None:
    assert refusal(put("runtime/checkpoints", address)).startswith("runtime.checkpoints: an address with a password")


@pytest.mark.parametrize(
    "address", ["abfs://container@account.dfs.core.windows.net/ck", "abfss://c@a.dfs.core.windows.net", "/mnt/a:b@c"]
)
def test_a_name_alone_is_no_password(address: str) -> None:
    params = shipped()
    put("runtime/checkpoints", address)(params)
    assert parse_params(params).runtime.checkpoints == address


def test_a_folder_of_checkpoints_is_read_as_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for written, whole in (
        ("~/ck", f"{tmp_path}/ck"),
        ("ck", f"{tmp_path}/ck"),
        ("/ck", "/ck"),
        ("s3://b/c", "s3://b/c"),
    ):
        params = shipped()
        put("runtime/checkpoints", written)(params)
        assert parse_params(params).runtime.checkpoints_address == whole
