"""Strict models of params.yaml: they check every key, type and range before anything slow starts."""

import hashlib
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from stages.params.methods import MethodSettings, Soft, Trained
from stages.params.sources import Dataset, Model, Sha256
from stages.params.validation import (
    LARGEST,
    Count,
    Name,
    Positive,
    Refused,
    Share,
    Spacing,
    Strict,
    Text,
    allowed,
    explain,
    show,
)
from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml

PARAMS_FILE = Path("params.yaml")
MAX_TRIALS = 64
OF_SCIKIT_LEARN = "scikit-learn"  # its descriptions of data sets: English prose that every installation has
BLANK_LINE = re.compile(r"\n\s*\n")  # between paragraphs
SHORTEST = 2048  # characters of a text: more than the fewest tokens that are read have in any language

Precision = Literal["auto", "float32", "bfloat16"]


class Pairs(Strict):
    """How dialogues become pairs (Sec. 4)."""

    stride: Literal[1, 2]
    history: Positive
    joined_by: Spacing

    @model_validator(mode="after")
    def _stays_on_one_line(self) -> Self:
        if " ".join(f"x{self.joined_by}x".split()) != f"x{self.joined_by}x":
            remedy = "write a text on one line, with single spaces: queries have no others"
            raise Refused("joined_by", f"found {show(self.joined_by)}", remedy)
        return self


class Runtime(Strict):
    """How it runs. DVC does not track it: it changes only the speed and the last bits of sums."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=0, le=1024)]
    generation_batch_size: Count
    engine: Literal["local", "ray"]
    address: Text | None
    gpus_per_trial: Share
    checkpoints: Text | None

    @model_validator(mode="after")
    def _useful_and_a_folder(self) -> Self:
        if self.address is not None and self.engine == "local":
            raise Refused("address", f"{show(self.address)}, but engine is local", "set engine to ray, or this to null")
        if self.checkpoints and "://" in self.checkpoints:
            remedy = "name a folder that all machines see: mount the bucket (s3fs, gcsfuse --rename-dir-limit 100)"
            raise Refused("checkpoints", f"{show(self.checkpoints)} is no folder", remedy)
        return self


class Forgetting(Strict):
    """On what text to measure how much of its knowledge a model has lost."""

    text: Text  # OF_SCIKIT_LEARN, or a file
    tokens: Annotated[int, Field(ge=256, le=LARGEST)]  # two of the blocks that are read together
    sha256: Sha256 | None = None  # of the file

    @model_validator(mode="after")
    def _a_file_is_pinned(self) -> Self:
        if self.text == OF_SCIKIT_LEARN and self.sha256:
            raise Refused("sha256", "given without a file", f"leave it out, or name a file that is not {self.text}")
        if self.text != OF_SCIKIT_LEARN and not self.sha256:
            raise Refused("sha256", "missing", f"write what `sha256sum {self.text}` prints, so that the text is pinned")
        return self

    def read_file(self) -> str:
        """The text of the file; StageError if it is not there, another, not UTF-8, or too short."""
        key, path = f"{PARAMS_FILE}: forgetting", Path(os.path.expanduser(self.text))
        if not path.is_file():
            remedy = "name a text file; the grid's clones find it only by an absolute path, or from ~"
            raise StageError(f"{key}.text", f"no file {self.text}", remedy)
        content = path.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise StageError(f"{key}.sha256", f"{self.text} has {found}", "correct it, or restore the file")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise StageError(f"{key}.text", f"{self.text} is not UTF-8", "name a text file in UTF-8") from None
        if len(text) < SHORTEST or not BLANK_LINE.search(text.strip()):
            found = f"{len(text)} characters in {len(BLANK_LINE.split(text.strip()))} paragraphs"
            remedy = f"give at least {SHORTEST} in two paragraphs with a blank line between them"
            raise StageError(f"{key}.text", found, remedy)
        return text


class Relevance(Strict):
    """On how much of the test set to measure whether answers fit their queries."""

    queries: Positive
    others: Positive


class Data(Strict):
    """How much of a corpus a protocol uses; null: all of it."""

    train_dialogues: Positive | None
    validation_pairs: Positive | None
    test_pairs: Positive | None


class Lengths(Strict):
    """The longest query and response, in tokens, end-of-text included."""

    max_query_tokens: Annotated[int, Field(ge=2, le=LARGEST)]
    max_new_tokens: Annotated[int, Field(ge=2, le=LARGEST)]


class LearningRates(Strict):
    """`trials` learning rates, log-spaced, both ends included, none above 1: from low to high, or with a spread.

    `spread` is the highest rate over the lowest one; the middle is the method's own `learning_rate`.
    """

    low: Share | None = None
    high: Share | None = None
    spread: Annotated[float, Field(ge=1, le=1e6)] | None = None
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)]

    @model_validator(mode="after")
    def _one_of_both_and_ordered(self) -> Self:
        for key in ("low", "high"):
            if (getattr(self, key) is None) == (self.spread is None):
                found = "missing" if self.spread is None else "given beside spread"
                raise Refused(key, found, "give low and high, or spread")
        highest, lowest = self.spread or self.high or 1.0, self.low or 1.0  # of a spread: relative to the lowest
        if lowest > highest:
            raise Refused("low", f"{lowest} is above high ({highest})", "lower low or raise high")
        if self.trials > 1 and lowest == highest:
            found = f"{self.trials} of one and the same learning rate"
            raise Refused("trials", found, "set trials to 1, or widen them")
        return self

    def around(self, rate: float | None) -> "LearningRates":
        """The same with low and high, for a method whose own learning rate is `rate`."""
        if self.spread is None or rate is None:
            return self
        half = math.sqrt(self.spread)
        return LearningRates(low=rate / half, high=min(1.0, rate * half), trials=self.trials)

    def values(self) -> list[float]:
        """The learning rates in ascending order; a single trial gets the geometric mean of low and high."""
        assert self.low is not None and self.high is not None, "around() comes first"
        if self.trials == 1:
            return [math.sqrt(self.low * self.high)]
        ratio = math.log(self.high / self.low) / (self.trials - 1)
        inner = [self.low * math.exp(ratio * index) for index in range(1, self.trials - 1)]
        return [self.low, *inner, self.high]


class Training(Strict):
    """The training protocol (App. B)."""

    learning_rates: LearningRates
    batch_size: Positive
    num_train_epochs: Positive
    early_stopping_patience: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Count
    lr_scheduler_type: Literal["constant", "linear"]
    embeddings_rate: Share
    soft_init: Literal["random", "vocabulary"] | None = None  # in place of the method's own `init`
    metric_for_best_model: Literal["bleu4", "loss"]
    max_grad_norm: Annotated[float, Field(gt=0)] | None
    dropout: Annotated[float, Field(ge=0, lt=1)]
    dtype: Precision


class Protocol(Strict):
    """How much data to use, how long texts may be, how to train."""

    data: Data
    lengths: Lengths
    decoding_dtype: Precision
    training: Training


class Params(Strict):
    """The whole of params.yaml."""

    dataset: str
    model: str
    method: str
    regime: Annotated[float, Field(gt=0, le=100)]
    protocol: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    drop_overlap: bool
    pairs: Pairs
    forgetting: Forgetting
    relevance: Relevance
    runtime: Runtime
    datasets: dict[Name, Dataset]
    models: dict[Name, Model]
    methods: dict[Name, MethodSettings]
    protocols: dict[Name, Protocol]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for switch in ("dataset", "model", "method", "protocol"):
            chosen, table = getattr(self, switch), getattr(self, f"{switch}s")
            if chosen not in table:
                raise Refused(switch, f"{show(chosen)} is not an entry of {switch}s", allowed(chosen, table))
        method, protocol, key = self.chosen_method, self.protocols[self.protocol], f"protocols.{self.protocol}"
        longest, spread = protocol.lengths.max_query_tokens, protocol.training.learning_rates.spread
        if isinstance(method, Soft) and method.length == "query" and method.prompt_tokens < longest:
            found = f"{method.prompt_tokens}, below the {longest} of {key}.lengths.max_query_tokens"
            raise Refused(f"methods.{self.method}.prompt_tokens", found, "raise it or lower max_query_tokens")
        if isinstance(method, Trained) and method.learning_rate is None and spread is not None:
            found = f"missing, and {key}.training.learning_rates.spread needs it"
            raise Refused(f"methods.{self.method}.learning_rate", found, "add it, or give low and high there")
        return self

    @property
    def chosen_dataset(self) -> Dataset:
        """The entry that `dataset` names."""
        return self.datasets[self.dataset]

    @property
    def chosen_model(self) -> Model:
        """The entry that `model` names."""
        return self.models[self.model]

    @property
    def chosen_method(self) -> MethodSettings:
        """The entry that `method` names, with the start of a soft prompt that the protocol asks for."""
        method, start = self.methods[self.method], self.protocols[self.protocol].training.soft_init
        return method.model_copy(update={"init": start}) if isinstance(method, Soft) and start else method

    @property
    def chosen_protocol(self) -> Protocol:
        """The entry that `protocol` names, with the range of learning rates that it means for the chosen method."""
        protocol = self.protocols[self.protocol]
        rates = protocol.training.learning_rates.around(getattr(self.chosen_method, "learning_rate", None))
        training = protocol.training.model_copy(update={"learning_rates": rates})
        return protocol.model_copy(update={"training": training})


def parse_params(value: Any) -> Params:
    """Check what was read from params.yaml.

    Raises:
        StageError: a key or value is wrong; the first is named with the value found and what is allowed.
    """
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        key, found, remedy = explain(value, error)
        raise StageError(f"{PARAMS_FILE}: {key}" if key else PARAMS_FILE, found, remedy) from None


def load_params(path: Path = PARAMS_FILE, to_run: bool = True) -> Params:
    """Read params.yaml; to_run: `forgetting.text` too, so that it is refused now, not when the training is over.

    Raises:
        StageError: it is missing or not YAML, one of its values is not allowed, or `forgetting.text` cannot be read.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StageError(path, "missing", "run this from the top of the project") from None
    except UnicodeDecodeError as error:
        raise StageError(path, f"not UTF-8 ({error.reason} at byte {error.start})", "save it as UTF-8") from None
    params = parse_params(parse_yaml(content, path))
    if to_run and params.forgetting.text != OF_SCIKIT_LEARN:
        params.forgetting.read_file()
    return params
