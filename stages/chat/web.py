"""The conversation as a page in a browser: several experiments answer next to each other.

Nothing leaves this machine: no fonts or scripts of other servers, no usage statistics of Gradio, no look for a newer
version of it, no public link. Gradio's own `launch` is not used, because it requests its first page through whatever
proxy the environment names, and because it has its own way of ending.
"""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import gradio as gr
import uvicorn  # Gradio's own server
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.chat.conversation import Conversation
from stages.chat.page import CSS, HEADER, Answer, Nearest, Round, rounds_html
from stages.chat.speaker import Speaker, load_speakers
from stages.chat.training_data import TrainingData, read_training_data
from stages.plumbing.errors import StageError, one_line
from stages.records import single_line
from stages.report.results import WORKSPACE, experiment_names
from stages.score.variety import is_novel

HOST, PORT = "127.0.0.1", 7860
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # the browser itself refuses other machines


@dataclass
class Session:
    """What one visitor of the page has asked."""

    conversation: Conversation = field(default_factory=Conversation)
    rounds: list[Round] = field(default_factory=list)


class WebChat:
    """The experiments that are loaded, and what the page does with them."""

    def __init__(self, root: Path, speakers: Sequence[Speaker]) -> None:
        self.root = root
        self.loaded: dict[str, tuple[Speaker, TrainingData]] = {}
        for speaker in speakers:
            self.add(speaker)

    def add(self, speaker: Speaker) -> None:
        """Let a speaker answer, with what it was trained on."""
        data = read_training_data(speaker, [known for _, known in self.loaded.values()])
        self.loaded[speaker.name] = speaker, data

    def choose(self, names: Sequence[str]) -> list[str]:
        """Load the experiments that were chosen; return those that can answer."""
        for name in names:
            if name not in self.loaded:
                try:
                    beside = [speaker for speaker, _ in self.loaded.values()]
                    (speaker,) = load_speakers(self.root, [name], beside)
                    self.add(speaker)
                except StageError as error:
                    gr.Warning(one_line(str(error)))
        return [name for name in names if name in self.loaded]

    def ask(self, said: str, names: Sequence[str], session: Session) -> Iterator[tuple[str, Session, str]]:
        """Let the chosen ones answer, one after the other: what then stands in the box, the session, the page."""
        said, chosen = single_line(said), [self.loaded[name] for name in names if name in self.loaded]
        if not said or not chosen:
            yield said, session, rounds_html(session.rounds)
            return
        queries = [speaker.query(session.conversation, said) for speaker, _ in chosen]
        now = Round(said, [Answer(speaker) for speaker, _ in chosen], self.nearest(chosen, queries))
        for number, (speaker, data) in enumerate(chosen):
            yield "", session, rounds_html([*session.rounds, now])
            text = speaker.answer(queries[number])
            now.answers[number] = Answer(speaker, text, is_novel(text, data.turns))
        session.rounds.append(now)  # only now: what fails on the way is as if it had not been asked
        session.conversation.add(said, now.answers[0].text or "")
        yield "", session, rounds_html(session.rounds)

    @staticmethod
    def nearest(chosen: Sequence[tuple[Speaker, TrainingData]], queries: Sequence[str]) -> list[Nearest]:
        """What a lookup says, once for all that were trained on the same data and read the same."""
        whose: dict[tuple[str, str], list[str]] = {}
        data = {each.identity: each for _, each in chosen}
        for (speaker, each), query in zip(chosen, queries, strict=True):
            whose.setdefault((each.identity, query), []).append(speaker.name)
        return [
            Nearest(names if len(whose) > 1 else [], *data[identity].lookup.nearest([query])[0])
            for (identity, query), names in whose.items()
        ]

    def page(self) -> gr.Blocks:
        """The page, and what happens on it."""
        loaded = list(self.loaded)
        choices = list(dict.fromkeys([*loaded, WORKSPACE, *experiment_names(self.root)]))
        page: gr.Blocks
        with gr.Blocks(title="dialog-prompting", analytics_enabled=False, fill_width=True) as page:
            session = gr.State(Session())
            gr.HTML(HEADER, elem_classes="header")
            names = gr.Dropdown(
                choices, value=loaded, multiselect=True, label="Experiments", elem_id="experiments",
                info="Where an experiment reads more than one turn, the first one's answers are the conversation.",
            )  # fmt: skip
            with gr.Row(equal_height=True):
                box = gr.Textbox(
                    placeholder="Say something …", label="Your query", show_label=False, container=False, scale=5,
                    min_width=270, elem_id="query",
                )  # fmt: skip
                send = gr.Button("Ask", variant="primary", min_width=120, elem_id="ask")
                anew = gr.Button("Begin anew", min_width=120, elem_id="anew")
            rounds = gr.HTML(rounds_html([]))
            gr.on(
                [box.submit, send.click], self.ask, [box, names, session], [box, session, rounds],
                concurrency_id="models", show_progress="hidden", api_visibility="private",
            )  # fmt: skip
            names.input(self.choose, names, names, concurrency_id="models", api_visibility="private")
            anew.click(
                lambda: ("", Session(), rounds_html([])), None, [box, session, rounds],
                concurrency_id="models", api_visibility="private",  # after an answer that is on its way
            )  # fmt: skip
        return page


def application(page: gr.Blocks) -> ASGIApp:
    """The page as a web application whose pages may load nothing from elsewhere."""
    theme = gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="lg",
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    ).set(  # more contrast than by default
        body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
    )  # fmt: skip
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, "/", footer_links=[], run_history=False, ssr_mode=False, pwa=False,
        enable_monitoring=False, mcp_server=False, theme=theme, css=CSS,
    )  # fmt: skip

    async def with_policy(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, send_policy)

    return with_policy


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
        print(
            f"WARNING chat: --host {host}: whoever can reach it can use the page; it has no password", file=sys.stderr
        )
    app = application(WebChat(root, speakers).page())
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with suppress(KeyboardInterrupt):
        server.run([listener])
