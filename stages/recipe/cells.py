"""The cells of the recipe study: which formats, starts and rates are compared, the same for both corpora."""

from dataclasses import dataclass
from typing import Any

from stages.params.methods import Dynamic, Embeddings, FineTune, MethodSettings, Soft, ZeroShot
from stages.params.schema import LearningRates
from stages.params.sources import CHAT_TEMPLATE, END_OF_TEXT, RowFormatText

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
    seed: int = 0

    @property
    def name(self) -> str:
        """What the table calls it."""
        initial = getattr(self.method, "initial", None)
        return self.method.kind + (f", {initial}" if initial else "")


ZERO_SHOT = ZeroShot(kind="zero-shot")
FINE_TUNE = FineTune(kind="fine-tune")
EMBEDDINGS = Embeddings(kind="embeddings")
# In the order in which they are run: what decides most comes first (`--first N` runs no more than that).
CELLS = (
    *(Cell(name, ZERO_SHOT) for name in FORMATS),
    Cell(TURNS, dynamic("identity"), rates(1e-3, 1e-3, 1)),
    Cell(TURNS, FINE_TUNE, rates(3e-5, 3e-5, 1)),
    Cell(TURNS, dynamic("random"), rates(1e-3, 1e-3, 1)),
    Cell(TURNS, soft("vocabulary"), rates(3e-3, 3e-3, 1)),
    Cell(TURNS, EMBEDDINGS, rates(3e-4, 3e-4, 1)),
    Cell(TURNS, soft("random"), rates(3e-3, 3e-3, 1)),
    # other rates, one rate for the prompt and E, another format
    Cell(TURNS, dynamic("identity"), rates(3e-4, 3e-4, 1)),
    Cell(TURNS, dynamic("identity"), rates(3e-4, 3e-4, 1), embeddings_rate=1.0),
    Cell("end-of-text", dynamic("identity"), rates(1e-3, 1e-3, 1)),
    Cell(TURNS, dynamic("identity"), rates(3e-3, 3e-3, 1)),
    Cell(TURNS, dynamic("identity"), rates(1e-3, 1e-3, 1), embeddings_rate=1.0),
    Cell(TURNS, soft("vocabulary"), rates(1e-2, 1e-2, 1)),
    Cell("end-of-text", FINE_TUNE, rates(3e-5, 3e-5, 1)),
    Cell(TURNS, FINE_TUNE, rates(1e-4, 1e-4, 1)),
    Cell(TURNS, soft("vocabulary"), rates(1e-3, 1e-3, 1)),
    Cell(TURNS, EMBEDDINGS, rates(1e-3, 1e-3, 1)),
    # a falling rate, the model's own layers, another seed
    Cell(TURNS, dynamic("random"), rates(1e-3, 1e-3, 1), schedule="linear"),
    Cell(TURNS, dynamic("first-layers"), rates(1e-3, 1e-3, 1)),
    Cell(TURNS, soft("vocabulary"), rates(3e-3, 3e-3, 1), embeddings_rate=1.0),
    Cell(TURNS, dynamic("identity"), rates(1e-3, 1e-3, 1), seed=1),
    Cell(TURNS, soft("vocabulary"), rates(3e-3, 3e-3, 1), seed=1),
    Cell(TURNS, FINE_TUNE, rates(3e-5, 3e-5, 1), seed=1),
)
