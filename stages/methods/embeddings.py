"""The word embeddings alone: what training E does without a prompt, the control for soft and dynamic prompts."""

from stages.language_model.base_model import BaseModel
from stages.methods.method import Method
from stages.params.methods import Embeddings


class EmbeddingsMethod(Method):
    """E[query], E[response]; only E is trained. What soft and dynamic score above it is what their prompt adds."""

    def __init__(self, base: BaseModel, settings: Embeddings) -> None:
        super().__init__(base, settings)
        self.trains_embeddings = True
