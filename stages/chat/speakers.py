"""Who speaks, an experiment's trained method, and what it reads of a conversation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import Pairs, Params
from stages.records import composed, single_line
from stages.report.markdown import marks
from stages.report.results import WORKSPACE, Revision, open_results

HALF = "\ufffd"  # what decoding makes of a character of which only some bytes are there


@dataclass
class Conversation:
    """The turns so far, the person's and the model's in turn."""

    turns: list[str] = field(default_factory=list)

    def query(self, text: str, settings: Pairs) -> str:
        """What stands before the next response: the last `history` turns, `text` the last of them, joined.

        Built as stages/pair_extract/pairs.py builds the queries of training.
        """
        before = [*self.turns, text][-settings.history :]
        return single_line(composed(settings.joined_by.join(turn for turn in before if turn)))

    def add(self, text: str, answer: str) -> None:
        """A turn of the person and the answer to it."""
        self.turns += [single_line(text), answer]


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

    def query(self, conversation: Conversation, text: str) -> str:
        """What it reads of a conversation that goes on with `text`."""
        return conversation.query(text, self.params.pairs)

    def answer(self, query: str, show: Callable[[str], None] = lambda piece: None) -> str:
        """The response to one query; `show` gets it piece by piece as it comes, whole characters only."""
        return self.reply(query, show)[0]

    def reply(self, query: str, show: Callable[[str], None] = lambda piece: None) -> tuple[str, list[str]]:
        """The same, and what is wrong with it: that it was cut, that it repeats itself."""
        tokens: list[int] = []
        shown = ""

        def show_rest(text: str) -> None:
            nonlocal shown
            if text.startswith(shown):  # not so while it ends in white space, which `texts` takes away
                show(text[len(shown) :])
                shown = text

        def heard(row: int, token: int) -> None:
            tokens.append(token)
            show_rest(self.trained.texts([tokens])[0].rstrip(HALF))

        queries, _ = self.trained.encode([query])
        made = self.trained.decode_and_score(queries, heard=heard)
        (answer,) = self.trained.texts(made.answers)
        show_rest(answer)
        return answer, marks(answer, not made.ended[0])


def load_speakers(root: Path, experiments: Sequence[str | None], known: Sequence[Speaker] = ()) -> list[Speaker]:
    """The speakers of some experiments, each once (None: the workspace, as is its name).

    Those on one base model share its frozen parameters.

    Raises:
        StageError: there is no such experiment, what it trained is not there, or params.yaml no longer says what it is.
    """
    loaded: list[Speaker] = []
    for experiment in dict.fromkeys(None if name == WORKSPACE else name for name in experiments):
        with open_results(root, experiment) as results:
            results.check_params()
            params = results.params
            beside = [speaker.trained for speaker in (*known, *loaded)]
            dtype = params.chosen_protocol.decoding_dtype
            trained = load_trained(results.trained, results.model, params.runtime, dtype, beside=beside)
            loaded.append(Speaker(results.name, params, trained, results.files))
    return loaded
