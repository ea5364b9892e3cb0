"""What a method was trained on, for judging an answer as it comes: is it new, and what would a lookup say?"""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from stages.chat.speaker import Speaker
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair
from stages.score.retrieval import Lookup
from stages.score.variety import known_turns

SUBSET = "data/subset"


@dataclass(frozen=True)
class TrainingData:
    """The data of one training regime, as the stage score uses it."""

    identity: str  # the hash of data/subset
    turns: Set[str]  # what `is_novel` compares with
    lookup: Lookup  # the baseline behind the row `retrieval`


def read_training_data(speaker: Speaker, known: Iterable[TrainingData]) -> TrainingData:
    """The training data of a speaker: one of those that are known, if it is the same.

    Raises:
        StageError: it is not there.
    """
    identity = speaker.files.md5(SUBSET)
    for data in known:
        if data.identity == identity:
            return data
    pairs = speaker.files.records(f"{SUBSET}/train.jsonl", Pair)
    dialogues = speaker.files.records(f"{SUBSET}/turns.jsonl", Dialogue)
    if identity is None or not pairs or dialogues is None:
        remedy = "run `dvc repro subset`, for an experiment after `dvc exp apply`"
        raise StageError(f"{speaker.name}: {SUBSET}", "not there", remedy)
    turns = known_turns(turn for dialogue in dialogues for turn in dialogue.turns)
    return TrainingData(identity, turns, Lookup(pairs))
