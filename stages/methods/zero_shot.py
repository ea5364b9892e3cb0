"""Zero-shot: the base model as it is."""

from stages.methods.method import Method


class ZeroShotMethod(Method):
    """The base model as it is: E[query], E[response]; nothing is trained."""

    trains = False
