"""A conversation with what was trained.

    python -m stages.chat                               with the results in the workspace
    python -m stages.chat --experiment NAME             with those of an experiment
    python -m stages.chat --compare NAME...             experiments answer beside it
    python -m stages.chat --once "How are you ?"        one answer
    python -m stages.chat < queries.txt > answers.txt   an answer a line
    python -m stages.chat --web                         a page in the browser, answers next to each other

It reads as many turns of the conversation as it was trained with (pairs.history). Ctrl-C stops an answer; where there
is none, it ends the conversation, as Ctrl-D does. On the page too, the first one's answers are the conversation.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.errors import StageError


def main(arguments: argparse.Namespace) -> None:
    """Load who speaks, then talk."""
    if not arguments.web and (arguments.host is not None or arguments.port is not None):
        raise StageError("--host or --port", "given without --web", "add --web, or leave it out")
    if arguments.web and find_spec("gradio") is None:
        raise StageError("gradio", f"not installed in {sys.prefix}", "pip install -c constraints.txt -e '.[web]'")
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong option waits.
    from stages.language_model.device import load_transformers

    load_transformers()
    from stages.chat.speakers import load_speakers
    from stages.chat.terminal import TerminalChat, answer_lines, line_groups

    root = Path.cwd()
    speakers = load_speakers(root, [arguments.experiment, *arguments.compare])
    if arguments.web:
        from stages.chat.web import serve  # gradio, of the extra `web`

        serve(root, speakers, arguments.host, arguments.port)
    elif arguments.once is None and sys.stdin.isatty():
        TerminalChat(root, speakers).run()
    else:
        for speaker in speakers:
            print(speaker.introduction(), file=sys.stderr, flush=True)
        given = line_groups(sys.stdin.fileno()) if arguments.once is None else [[arguments.once.strip()]]
        answer_lines(speakers, given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", metavar="NAME", help="an experiment's results; else those in the workspace")
    parser.add_argument("--compare", metavar="NAME", nargs="+", default=[], help="experiments that answer beside it")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--once", metavar="TEXT", help="print the answer to this and end")
    way.add_argument("--web", action="store_true", help="show a page in the browser instead")
    parser.add_argument("--host", metavar="ADDRESS", help="let the page be reached from elsewhere; default: 127.0.0.1")
    parser.add_argument("--port", type=whole_number(0, 65535), help="of the page; 0: any that is free; default: 7860")
    if sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # letters that a terminal lacks
    over = "the conversation has ended; start it again for a new one"
    run_stage("chat", parser, main, alone=False, after_stop=over)
