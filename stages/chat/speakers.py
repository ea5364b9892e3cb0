"""Who speaks, an experiment's trained method, and what it reads of a conversation.

A conversation is a list of turns: the person's and the first speaker's, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.records import composed, single_line
from stages.report.markdown import marks
from stages.report.results import WORKSPACE, Revision, open_results

HALF = "\ufffd"  # what decoding makes of a character of which only some bytes are there


@dataclass(frozen=True)
class Speaker:
    """An experiment (or the workspace) that answers."""

    name: str
    params: Params
    trained: TrainedMethod
    files: Revision  # of the experiment or the workspace

    def introduction(self) -> str:
        """Which experiment, method and base model speak, in one line."""
        params, history = self.params, self.params.pairs.history
        remembers = "this turn alone" if history == 1 else f"the last {history} turns"
        return f"{self.name}: {params.method} on {params.model}, {params.dataset}; it reads {remembers}"

    def query(self, turns: Sequence[str], text: str) -> str:
        """What it reads of a conversation that goes on with `text`: the last `history` turns, joined.

        Built as stages/pair_extract/pairs.py builds the queries of training.

        Raises:
            StageError: it has bytes that are not UTF-8, as Python has them in what a terminal gives.
        """
        if any("\ud800" <= each <= "\udfff" for each in text):
            raise StageError("what was said", "not UTF-8", "set the terminal to UTF-8")
        pairs = self.params.pairs
        return single_line(composed(pairs.joined_by.join(filter(None, [*turns, text][-pairs.history :]))))

    def answer(self, query: str, show: Callable[[str], None] = lambda piece: None) -> tuple[str, list[str]]:
        """The response to one query, and what is wrong with it: that it was cut, that it repeats itself.

        `show` gets it piece by piece as it comes, whole characters only.
        """
        tokens, shown = list[int](), ""

        def heard(row: int, token: int) -> None:
            nonlocal shown
            tokens.append(token)
            text = self.trained.texts([tokens])[0].rstrip(HALF)
            if text.startswith(shown):  # not so while it ends in white space, which `texts` takes away
                show(text[len(shown) :])
                shown = text

        made = self.trained.decode_and_score(self.trained.encode([query]), heard=heard)
        (answer,) = self.trained.texts(made.answers)
        show(answer[len(shown) :])
        return answer, marks(answer, not made.ended[0])


def load_speakers(root: Path, experiments: Sequence[str | None], known: Sequence[Speaker] = ()) -> list[Speaker]:
    """The speakers of some experiments, each once (None: the workspace, as is its name); those in `known` are there.

    Those on one base model share its frozen parameters.

    Raises:
        StageError: there is no such experiment, what it trained is not there, or params.yaml no longer says what it is.
    """
    speakers = {speaker.name: speaker for speaker in known}
    names = list(dict.fromkeys(name or WORKSPACE for name in experiments))
    for name in [each for each in names if each not in speakers]:
        with open_results(root, None if name == WORKSPACE else name) as results:
            results.check_params()
            params, beside = results.params, [speaker.trained for speaker in speakers.values()]
            trained = load_trained(results.trained, results.model, params, beside)
            speakers[name] = Speaker(name, params, trained, results.files)
    return [speakers[name] for name in names]
