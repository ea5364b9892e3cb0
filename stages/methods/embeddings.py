"""The word embeddings alone: what training E does without a prompt, the control for soft and dynamic prompts."""

from stages.methods.method import Method


class EmbeddingsMethod(Method):
    """E[query], E[response]; only E is trained. What soft and dynamic score above it is what their prompt adds."""

    trains_embeddings = True
