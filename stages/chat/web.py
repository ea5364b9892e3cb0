"""The conversation as a page in a browser: several experiments answer next to each other, and beside them a lookup.

Nothing leaves this machine: no fonts or scripts of other servers, no usage statistics of Gradio, no look for a newer
version of it, no public link. Gradio's own `launch` is not used, because it requests its first page through whatever
proxy the environment names, and because it has its own way of ending.
"""

import socket
import sys
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import uvicorn  # Gradio's own server
from datasets import Dataset
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.middleware.base import RequestResponseEndpoint

from stages.chat.speakers import Speaker, load_speakers
from stages.plumbing.errors import StageError, one_line
from stages.records import Dialogue, Pair, single_line
from stages.report.results import WORKSPACE, experiments_of
from stages.score.variety import is_novel, known_turns
from stages.similarity.lookup import Lookup

Columns = dict[str, list[gr.MessageDict]]  # what was said to and by each speaker or lookup, as gr.Chatbot shows it
HOST, PORT = "127.0.0.1", 7860
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # the browser itself refuses other machines
SUBSET = "data/subset"
INTRODUCTION = (
    "# One query, several answers\n\nDoes an answer stand word for word in the training data? And what would a lookup "
    "say: the answer to the most similar training query?"
)


@dataclass(frozen=True)
class TrainingData:
    """What a method was trained on, as the stage score uses it."""

    identity: str  # the hash of data/subset
    turns: Set[str]  # what `is_novel` compares with
    lookup: Lookup  # the baseline behind the row `retrieval`


class WebChat:
    """The experiments that are loaded, and what the page does with them."""

    def __init__(self, root: Path, speakers: Sequence[Speaker]) -> None:
        self.root = root
        self.loaded: dict[str, tuple[Speaker, TrainingData]] = {}
        for speaker in speakers:
            self.add(speaker)

    def add(self, speaker: Speaker) -> None:
        """Let a speaker answer; those that were trained on the same share it.

        Raises:
            StageError: what it was trained on is not there.
        """
        identity = speaker.files.md5(SUBSET)
        data = next((data for _, data in self.loaded.values() if data.identity == identity), None)
        if data is None:
            pairs = speaker.files.records(f"{SUBSET}/train.jsonl", Pair)
            dialogues = speaker.files.records(f"{SUBSET}/turns.jsonl", Dialogue)
            if identity is None or not pairs or dialogues is None:
                remedy = "run `dvc repro subset`, for an experiment after `dvc exp apply`"
                raise StageError(f"{speaker.name}: {SUBSET}", "not there", remedy)
            turns = known_turns(turn for each in dialogues for turn in each.turns)
            data = TrainingData(identity, turns, Lookup(Dataset.from_list([vars(pair) for pair in pairs])))
        self.loaded[speaker.name] = speaker, data

    def choose(self, names: Sequence[str]) -> list[str]:
        """Load the experiments that were chosen; return those that can answer."""
        for name in names:
            if name not in self.loaded:
                try:
                    self.add(*load_speakers(self.root, [name], [speaker for speaker, _ in self.loaded.values()]))
                except StageError as error:
                    gr.Warning(one_line(str(error)))
        return [name for name in names if name in self.loaded]

    def headings(self, names: Sequence[str]) -> dict[str, str]:
        """The columns of the page from left to right: the speakers that were chosen, a lookup for all or several."""
        chosen = [self.loaded[name] for name in names if name in self.loaded]
        whose: dict[str, list[str]] = {}
        for speaker, data in chosen:
            whose.setdefault(data.identity, []).append(speaker.name)
        lookups = {key: "lookup" + (f" for {', '.join(of)}" if len(whose) > 1 else "") for key, of in whose.items()}
        return {each.name: f"{each.name}: {each.params.method} on {each.params.model}" for each, _ in chosen} | lookups

    def ask(
        self, said: str, names: Sequence[str], turns: list[str], columns: Columns
    ) -> Iterator[tuple[str, list[str], Columns]]:
        """Let the chosen ones answer, one after the other: the box, the conversation and the columns after each."""
        said, chosen = single_line(said), [self.loaded[name] for name in names if name in self.loaded]
        if not said or not chosen:
            yield said, turns, columns
            return
        columns = {**columns}

        def add(column: str, role: Literal["user", "assistant"], *texts: str) -> None:
            messages = [gr.MessageDict(role=role, content=escape(text, quote=False)) for text in texts]
            columns[column] = [*columns.get(column, []), *messages]

        for column in self.headings(names):
            add(column, "user", said)
        for speaker, data in {data.identity: (speaker, data) for speaker, data in chosen}.values():
            query, response, similarity = data.lookup.nearest([speaker.query(turns, said)])[0][0]
            found = response, f"to “{query}”, similarity {similarity:.2f}"
            add(data.identity, "assistant", *(found if similarity else ["(no training query has a word of this one)"]))
        answers = []
        for speaker, data in chosen:
            yield "", turns, {**columns}
            answer, wrong = speaker.answer(speaker.query(turns, said))
            novel = is_novel(answer, data.turns)
            mark = (" ".join(wrong) or "(new)") if novel else "(in the training data, word for word)"
            add(speaker.name, "assistant", answer or "(empty, which counts as new)", *([mark] if answer else []))
            answers.append(answer)
        yield "", [*turns, said, answers[0]], columns

    def page(self) -> gr.Blocks:
        """The page, and what happens on it."""
        loaded = list(self.loaded)
        choices = list(dict.fromkeys([*loaded, WORKSPACE, *sorted(name for name, *_ in experiments_of(self.root))]))
        quietly: dict[str, Any] = {"concurrency_id": "models", "show_progress": "hidden", "api_visibility": "private"}
        page: gr.Blocks
        with gr.Blocks(title="dialog-prompting", analytics_enabled=False, fill_width=True) as page:
            turns, columns = gr.State([]), gr.State({})
            gr.Markdown(INTRODUCTION)
            names = gr.Dropdown(
                choices, value=loaded, multiselect=True, label="Experiments", elem_id="experiments",
                info="Where an experiment reads more than one turn, the first one's answers are the conversation.",
            )  # fmt: skip

            @gr.render([names, columns], show_progress="hidden")  # type: ignore[untyped-decorator]
            def side_by_side(names: list[str], columns: Columns) -> None:
                with gr.Row():
                    for column, heading in self.headings(names).items():
                        shown: Any = columns.get(column, [])
                        gr.Chatbot(shown, label=heading, render_markdown=False, buttons=[], min_width=250)

            box = gr.Textbox(placeholder="Say something …", label="Your query", elem_id="query", submit_btn="Ask")
            anew = gr.Button("Begin anew", elem_id="anew")
            box.submit(self.ask, [box, names, turns, columns], [box, turns, columns], **quietly)
            names.input(self.choose, names, names, **quietly)
            anew.click(lambda: ("", [], {}), None, [box, turns, columns], **quietly)
        return page


def application(page: gr.Blocks, local: bool) -> FastAPI:
    """The page as a web application whose pages may load nothing from elsewhere, and that takes no files.

    With `local` it answers only who names this machine: the page of a stranger could otherwise give its own name this
    machine's address, and read the training data through a browser here.
    """
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def with_policy(request: Request, answer: RequestResponseEndpoint) -> Response:
        if local and not is_loopback(request.url.hostname or ""):
            return PlainTextResponse("not a name of this machine", 403)
        if request.url.path.endswith("/upload"):
            return PlainTextResponse("no uploads", 404)
        response = await answer(request)
        response.headers["content-security-policy"] = POLICY
        return response

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], run_history=False, ssr_mode=False, pwa=False, enable_monitoring=False,
        mcp_server=False, theme=theme,
    )  # fmt: skip
    return app


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(root: Path, speakers: Sequence[Speaker], host: str | None, port: int | None) -> None:
    """Show the page until Ctrl-C; on this machine alone unless a host is given.

    Raises:
        StageError: the address cannot be used.
    """
    host, port = host or HOST, PORT if port is None else port
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        found = (error.strerror or "no address").split(" (while")[0]
        raise StageError(f"{host}:{port}", found, "name another with --host or --port") from None
    if not is_loopback(host):
        warning = "anybody who reaches it may read the training data; for yourself alone, use `ssh -L` instead"
        print(f"WARNING chat: --host {host}: {warning}", file=sys.stderr)
    app = application(WebChat(root, speakers).page(), is_loopback(host))
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with suppress(KeyboardInterrupt):
        server.run([listener])
