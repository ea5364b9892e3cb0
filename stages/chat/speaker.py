"""Who speaks: an experiment's method, loaded and ready to answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.chat.conversation import Conversation
from stages.methods.trained_method import TrainedMethod, load_trained
from stages.params.schema import Params
from stages.report.results import WORKSPACE, open_results
from stages.report.revision import Revision

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

    def label(self) -> str:
        """The same, short enough to stand above a column."""
        return f"{self.name} ({self.params.method}, {self.params.model})"

    def query(self, conversation: Conversation, text: str) -> str:
        """What it reads of a conversation that goes on with `text`."""
        return conversation.query(text, self.params.pairs)

    def answer(self, query: str, show: Callable[[str], None] = lambda piece: None) -> str:
        """The response to one query; `show` gets it piece by piece as it comes, whole characters only."""
        tokens: list[int] = []
        shown = ""

        def heard(row: int, token: int) -> None:
            nonlocal shown
            tokens.append(token)
            shown = _show_rest(self.trained.texts([tokens])[0].rstrip(HALF), shown, show)

        queries, _ = self.trained.encode([query])
        (answer,) = self.trained.texts(self.trained.decode(queries, heard=heard))
        _show_rest(answer, shown, show)
        return answer


def _show_rest(text: str, shown: str, show: Callable[[str], None]) -> str:
    """Show what of `text` was not shown yet; what is shown then."""
    if not text.startswith(shown):  # white space at its end that single_line has taken away
        return shown
    show(text[len(shown) :])
    return text


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
            trained = load_trained(
                results.trained, results.model, params.runtime, params.chosen_protocol.decoding_dtype,
                beside=beside,
            )  # fmt: skip
            loaded.append(Speaker(results.name, params, trained, results.files))
    return loaded
