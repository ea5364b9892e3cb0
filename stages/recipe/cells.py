"""The cells of the recipe study: which formats, starts and rates are compared, the same for both corpora."""

from dataclasses import dataclass
from typing import Any

from stages.params.methods import Dynamic, Embeddings, FineTune, Lora, MethodSettings, Soft, ZeroShot
from stages.params.schema import LearningRates
from stages.params.sources import CHAT_TEMPLATE, END_OF_TEXT, RowFormatText
from stages.params.validation import Strict

TURNS = "A: / B:"
FORMATS: dict[str, RowFormatText | str] = {
    TURNS: RowFormatText(prefix="A: ", separator="\nB: ", end="\n"),
    "line breaks": RowFormatText(separator="\n", end="\n"),
    "end-of-text": RowFormatText(separator=END_OF_TEXT, end=END_OF_TEXT),
    "chat, no system turn": RowFormatText(
        prefix="<|im_start|>user\n", separator="<|im_end|>\n<|im_start|>assistant\n", end="<|im_end|>"
    ),
    "chat template": CHAT_TEMPLATE,
}
OTHER_FORMATS = ("line breaks", "end-of-text")
PROMPT_TOKENS = 128


def rates(low: float, high: float, trials: int) -> LearningRates:
    """`trials` learning rates from low to high."""
    return LearningRates(low=low, high=high, trials=trials)


def dynamic(initial: Any) -> Dynamic:
    """A dynamic prompt that starts in one of the three ways."""
    return Dynamic(kind="dynamic", layers=2, initial=initial, train_embeddings=True)


def soft(initial: Any) -> Soft:
    """A soft prompt that starts in one of the two ways."""
    return Soft(kind="soft", prompt_tokens=PROMPT_TOKENS, initial=initial, train_embeddings=True)


@dataclass(frozen=True)
class Cell:
    """One training (or, without rates, one validation) of the study; its trials differ in their rate alone."""

    row_format: str
    method: MethodSettings
    rates: LearningRates | None = None
    embeddings_rate: float = 0.1
    schedule: str = "constant"
    batch_size: int = 8
    seed: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        own = vars(self).items()
        # None: what a cell says nothing about, such as keys that came after it was measured
        return {key: value.model_dump(exclude_none=True) if isinstance(value, Strict) else value for key, value in own}

    @property
    def name(self) -> str:
        """What the table calls it."""
        initial = getattr(self.method, "initial", None)
        return self.method.kind + (f", {initial}" if initial else "")


ZERO_SHOT = ZeroShot(kind="zero-shot")
FINE_TUNE = FineTune(kind="fine-tune")
EMBEDDINGS = Embeddings(kind="embeddings")
LORA = Lora(kind="lora", rank=8, alpha=16, dropout=0.05, target_modules="all-linear")
RANDOM, IDENTITY, VOCABULARY = dynamic("random"), dynamic("identity"), soft("vocabulary")
# Half decades around what each kind of method is known to need. A method that trains every weight needs lower rates.
FINE_TUNING, OTHERS = rates(1e-5, 1e-3, 5), rates(1e-4, 1e-2, 5)
# In the order in which they are run: what decides most comes first (`--first N` runs no more than that).
CELLS = (
    *(Cell(name, ZERO_SHOT) for name in FORMATS),
    Cell(TURNS, FINE_TUNE, FINE_TUNING),
    *(Cell(TURNS, each, OTHERS) for each in (LORA, EMBEDDINGS, RANDOM, IDENTITY, VOCABULARY, soft("random"))),
    # other row formats
    *(Cell(name, FINE_TUNE, FINE_TUNING) for name in OTHER_FORMATS),
    *(Cell(name, RANDOM, OTHERS) for name in OTHER_FORMATS),
    # one rate for the prompt and E; the model's own layers as the controller's
    *(Cell(TURNS, each, FINE_TUNING, embeddings_rate=1.0) for each in (IDENTITY, RANDOM)),
    Cell(TURNS, VOCABULARY, OTHERS, embeddings_rate=1.0),
    Cell(TURNS, dynamic("first-layers"), OTHERS),
    # a rate that falls to zero
    Cell(TURNS, FINE_TUNE, FINE_TUNING, schedule="linear"),
    *(Cell(TURNS, each, OTHERS, schedule="linear") for each in (LORA, EMBEDDINGS, RANDOM, IDENTITY, VOCABULARY)),
    # twice as many steps for the same work
    Cell(TURNS, FINE_TUNE, FINE_TUNING, batch_size=4),
    Cell(TURNS, EMBEDDINGS, FINE_TUNING, batch_size=4),
    *(Cell(TURNS, each, OTHERS, batch_size=4) for each in (LORA, RANDOM, IDENTITY, VOCABULARY)),
    Cell(TURNS, IDENTITY, FINE_TUNING, batch_size=4, embeddings_rate=1.0),
    # another seed
    Cell(TURNS, FINE_TUNE, FINE_TUNING, seed=1),
    Cell(TURNS, EMBEDDINGS, FINE_TUNING, seed=1),
    *(Cell(TURNS, each, OTHERS, seed=1) for each in (LORA, RANDOM, IDENTITY, VOCABULARY)),
    Cell(TURNS, IDENTITY, FINE_TUNING, embeddings_rate=1.0, seed=1),
)
