"""The settings of the methods: each entry of `methods` in params.yaml is one of these; its `kind` says which.

They are here, not with the code of each method, so that reading params.yaml does not import PyTorch.
"""

from typing import Annotated, Literal

from pydantic import Field

from stages.params.validation import Positive, Share, Strict

Start = Literal["examples", "vocabulary", "random"]  # of a prompt: training pairs, drawn words, random numbers
Depth = Literal["input", "every-layer"]  # where a prompt acts


class Settings(Strict):
    """Of any method."""

    def slots(self, query: int) -> int:
        """How many prompt slots stand in front of a query of so many tokens."""
        return 0


class Trained(Settings):
    """What trains something: `learning_rate` is the middle of the search, in protocols with a spread of rates."""

    learning_rate: Share | None = None


class FineTune(Trained):
    """Everything is trained, or the word embeddings alone; there is no prompt."""

    kind: Literal["fine-tune", "embeddings"]


class Soft(Trained):
    """One shared prompt."""

    kind: Literal["soft"]
    length: Literal["query"] | Positive = "query"  # slots in front of a query: as many as it has tokens, or so many
    prompt_tokens: Positive = 128  # rows of Z, where the length is the query's
    init: Start
    train_embeddings: bool
    depth: Depth = "input"

    def slots(self, query: int) -> int:
        """As `length` says."""
        return self.length if isinstance(self.length, int) else query


class Dynamic(Trained):
    """A prompt generated from the query."""

    kind: Literal["dynamic"]
    layers: Positive
    init: Literal["identity", "random", "first-layers"]
    train_embeddings: bool
    depth: Depth = "input"
    rank: Positive = 32  # of what is added at every layer

    def slots(self, query: int) -> int:
        """One for each token."""
        return query


class Lora(Trained):
    """Low-rank updates of linear layers."""

    kind: Literal["lora"]
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)]


class Prefix(Trained):
    """Keys and values at every layer."""

    kind: Literal["prefix"]
    length: Positive  # P, in tokens
    init: Start


class FewShot(Settings):
    """Training pairs in the context; `examples` are the counts that are tried, and validation chooses."""

    kind: Literal["few-shot"]
    examples: Annotated[list[Positive], Field(min_length=1)]
    choose: Literal["random", "nearest"] = "random"  # the same for all, or each query's own


class ZeroShot(Settings):
    """Nothing is trained."""

    kind: Literal["zero-shot"]


MethodSettings = Annotated[FineTune | Lora | Soft | Dynamic | Prefix | FewShot | ZeroShot, Field(discriminator="kind")]
