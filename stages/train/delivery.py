"""What a unit is told and what comes back from it, on whatever machine it is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.language_model.device import Share
from stages.language_model.prompt_template import PromptTemplate
from stages.params.schema import Params
from stages.train.memory import Numbered


@dataclass(frozen=True)
class Order:
    """A unit to be trained. Everything it depends on is in it; files come by the hash of their folder."""

    params: Params
    trials: list[Numbered]  # none for a method that trains nothing
    fingerprint: str
    data_hash: str
    base_hash: str
    prompt_template: PromptTemplate
    code: str
    versions: dict[str, Any]  # of libraries: another one would give other bytes without a word
    share: Share


@dataclass(frozen=True)
class Trained:
    """A unit that was trained."""

    trials: list[dict[str, Any]]  # the records
    weights: Any  # bytes of the best trial's file, as an array that travels without a copy; None if there is none
    unit: dict[str, Any]  # its trials, environments, node, GPUs, and when it began and ended
    parameters: int
    cuts: dict[str, int]


@dataclass(frozen=True)
class Split:
    """A unit that did not fit into the memory: to be trained in these parts."""

    parts: list[list[Numbered]]


def name_of(trials: Sequence[Numbered]) -> str:
    """What a unit is called in logs."""
    numbers = [index for index, _ in trials] or [0]
    return f"unit of trials {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"unit of trial {numbers[0]}"
