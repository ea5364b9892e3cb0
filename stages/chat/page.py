"""What the page shows, as HTML: a query, the answers to it, and beside them the nearest training pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stages.chat.speaker import Speaker
from stages.score.diagnostics import empty

HEADER = """
<h1>One query, several answers</h1>
<p>Does an answer stand word for word in the training data? And what would a lookup say: the answer to the most similar
training query?</p>
"""
# The colours without a name of their own are Gradio's, which has them for a light and a dark screen.
CSS = """
.gradio-container { --new: #15803d; --old: #b45309;
  width: 100%; max-width: 68rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
.gradio-container button { white-space: nowrap; }
.dark .gradio-container, .gradio-container.dark { --new: #4ade80; --old: #fbbf24; }
.header h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .3rem; letter-spacing: -.02em; }
.header p { color: var(--body-text-color-subdued); max-width: 46rem; margin: 0; }
.rounds { display: flex; flex-direction: column; gap: 1.6rem; margin-top: .6rem; }
.rounds .said { align-self: flex-end; max-width: 85%; padding: .6rem 1rem; font-size: 1.05rem;
  color: var(--button-primary-text-color); background: var(--button-primary-background-fill);
  border-radius: 1.1rem 1.1rem .25rem 1.1rem; overflow-wrap: anywhere; }
.rounds .round { display: flex; flex-direction: column; gap: .8rem; }
.rounds .round + .round { border-top: 1px solid var(--border-color-primary); padding-top: 1.6rem; }
.rounds .cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
.rounds .card { display: flex; flex-direction: column; gap: .5rem; padding: .9rem 1rem; border-radius: .8rem;
  background: var(--block-background-fill); border: 1px solid var(--border-color-primary); min-width: 0; }
.rounds .card header { font-weight: 650; overflow-wrap: anywhere; }
.rounds .card small { display: block; font-weight: 400; font-size: .8rem; color: var(--body-text-color-subdued); }
.rounds .card p { margin: 0; font-size: 1.1rem; line-height: 1.45; flex-grow: 1; overflow-wrap: anywhere; }
.rounds .mark { font-size: .8rem; font-weight: 600; color: var(--body-text-color-subdued); }
.rounds .new .mark { color: var(--new); }
.rounds .old .mark { color: var(--old); }
.rounds .old { border-color: var(--old); }
.rounds .lookup { background: none; border-style: dashed; }
.rounds .lookup q { display: block; padding-left: .7rem; border-left: 3px solid var(--border-color-primary);
  color: var(--body-text-color-subdued); overflow-wrap: anywhere; quotes: none; }
.rounds .waiting p { color: var(--body-text-color-subdued); animation: waiting 1.2s ease-in-out infinite alternate; }
.rounds .nothing { color: var(--body-text-color-subdued); text-align: center; padding: 3rem 1rem; }
@keyframes waiting { from { opacity: .3; } to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .rounds .waiting p { animation: none; } }
"""


@dataclass(frozen=True)
class Answer:
    """What a speaker says to a query, and whether that is new; None until it is known."""

    speaker: Speaker
    text: str | None = None
    novel: bool | None = None

    def card(self) -> str:
        """It as HTML."""
        params, history = self.speaker.params, self.speaker.params.pairs.history
        of = f"{params.method} · {params.model} · {params.dataset}" + (f" · reads {history} turns" * (history > 1))
        if self.text is None:
            return _card("waiting", self.speaker.name, of, "<p>…</p>")
        kind, mark = ("new", "✓ new") if self.novel else ("old", "= in the training data, word for word")
        if self.novel and empty([self.text]):
            kind, mark = "empty", "empty, which counts as new"
        return _card(kind, self.speaker.name, of, f'<p dir="auto">{escape(self.text) or "(empty)"}</p>', mark)


@dataclass(frozen=True)
class Nearest:
    """What a lookup in training data says to a query."""

    whose: Sequence[str]  # those of whom it is so; none where it is so of all
    query: str
    response: str
    similarity: float  # of its query and the one that was asked, from 0 to 1

    def card(self) -> str:
        """It as HTML."""
        of = "nearest training query, and its answer" + (f" · for {', '.join(self.whose)}" if self.whose else "")
        if not self.similarity:
            return _card("lookup", "lookup", of, "<p>(no training query has a word of this one)</p>")
        pair = f'<q dir="auto">{escape(self.query)}</q><p dir="auto">{escape(self.response)}</p>'
        return _card("lookup", "lookup", of, pair, f"similarity {self.similarity:.2f}")


@dataclass
class Round:
    """A query and what is said to it."""

    said: str
    answers: list[Answer]
    nearest: list[Nearest]

    def html(self) -> str:
        """It as a section."""
        cards = "".join([*(each.card() for each in self.answers), *(each.card() for each in self.nearest)])
        said = f'<div class="said" dir="auto">{escape(self.said)}</div>'
        return f'<section class="round">{said}<div class="cards">{cards}</div></section>'


def rounds_html(rounds: Sequence[Round]) -> str:
    """All rounds, the last one on top, where the person types."""
    shown = (
        "".join(each.html() for each in reversed(rounds)) or '<div class="nothing">Nothing has been asked yet.</div>'
    )
    return f'<div class="rounds" aria-live="polite">{shown}</div>'


def _card(kind: str, title: str, of: str, body: str, mark: str = "") -> str:
    head = f"<header>{escape(title)}<small>{escape(of)}</small></header>"
    return f'<article class="card {kind}">{head}{body}<span class="mark">{escape(mark)}</span></article>'
