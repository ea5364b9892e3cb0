"""The stages of the pipeline, one module each; what they share is in `stages.core`."""

import sys
from importlib.util import find_spec

if find_spec("torch") is None:
    sys.exit(
        f"ERROR stages: {sys.executable}: without the packages of this project; "
        "source .venv/bin/activate, or pip install -c constraints.txt -e ."
    )
