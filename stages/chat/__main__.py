"""A conversation with what was trained.

    python -m stages.chat                               with the results in the workspace
    python -m stages.chat --experiment NAME             with those of an experiment
    python -m stages.chat --compare NAME...             experiments answer beside it
    python -m stages.chat --once "How are you ?"        one answer
    python -m stages.chat < queries.txt > answers.txt   an answer a line

It reads as many turns of the conversation as it was trained with (pairs.history). Ctrl-C stops an answer; where there
is none, it ends the conversation, as Ctrl-D does.
"""

import argparse
import sys
from pathlib import Path

from stages.chat.conversation import Conversation
from stages.chat.scripted import answer_lines, print_answers
from stages.chat.speaker import load_speakers
from stages.plumbing.command import run_stage


def main(arguments: argparse.Namespace) -> None:
    """Load who speaks, then talk."""
    root, scripted = Path.cwd(), arguments.once is not None or not sys.stdin.isatty()
    speakers = load_speakers(root, [arguments.experiment, *arguments.compare])
    if scripted:
        for speaker in speakers:
            print(speaker.introduction(), file=sys.stderr, flush=True)
    if arguments.once is not None:
        print_answers(speakers, Conversation(), [arguments.once.strip()])
    elif scripted:
        answer_lines(speakers, sys.stdin.fileno())
    else:
        from stages.chat.terminal import TerminalChat  # rich, of the extra `chat`: scripts do without

        TerminalChat(root, speakers).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", metavar="NAME", help="an experiment's results; else those in the workspace")
    parser.add_argument("--compare", metavar="NAME", nargs="+", default=[], help="experiments that answer beside it")
    parser.add_argument("--once", metavar="TEXT", help="print the answer to this and end")
    run_stage("chat", parser, main, alone=False)
