"""What of the command line and the installation is wrong, before models are loaded."""

import argparse
import sys
from importlib.util import find_spec

from stages.plumbing.errors import StageError


def check_options(arguments: argparse.Namespace, scripted: bool) -> None:
    """Refuse before anything slow what no conversation can be held with.

    Raises:
        StageError: options that do not go together, no input, text that is no text, or a library that is missing.
    """
    if not arguments.web and (arguments.host is not None or arguments.port is not None):
        raise StageError("--host or --port", "given without --web", "add --web, or leave it out")
    if arguments.once is not None and any("\ud800" <= letter <= "\udfff" for letter in arguments.once):
        raise StageError("--once", "not UTF-8", "write the text in UTF-8")
    if scripted and arguments.once is None and sys.stdin is None:
        raise StageError("standard input", "closed", "pipe lines into it, or use --once")
    library, extra = ("gradio", "web") if arguments.web else ("rich", "chat")
    if not scripted and find_spec(library) is None:
        remedy = f"pip install -c constraints.txt -e '.[{extra}]'"
        raise StageError(library, f"not installed in {sys.prefix}", remedy)
