"""Loads transformers without two libraries that it imports for what nobody here uses."""

import sys
from contextlib import suppress

UNUSED = ("sklearn", "scipy")  # for assisted decoding; for the losses of object detection


def load_transformers() -> None:
    """Import the part of transformers that all models need, a second or two faster than it would load itself.

    It looks whether a library is there before it imports it. None in `sys.modules` is Python's way to say that one is
    not, and transformers remembers that. A library that is loaded already stays, and others can load it afterwards.
    """
    absent = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        with suppress(ImportError):  # of a transformers that does not look: then it loads them, as it would anyway
            import transformers.generation.candidate_generator
            import transformers.modeling_utils  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]
