"""The methods by the `kind` of their entry in params.yaml."""

from stages.language_model.base_model import BaseModel
from stages.methods.dynamic import DynamicMethod
from stages.methods.embeddings import EmbeddingsMethod
from stages.methods.few_shot import FewShotMethod
from stages.methods.fine_tune import FineTuneMethod
from stages.methods.lora import LoraMethod
from stages.methods.method import Method
from stages.methods.prefix import PrefixMethod
from stages.methods.soft import SoftMethod
from stages.methods.zero_shot import ZeroShotMethod
from stages.params.methods import MethodSettings

METHODS: dict[str, type[Method]] = {
    "zero-shot": ZeroShotMethod,
    "fine-tune": FineTuneMethod,
    "lora": LoraMethod,
    "embeddings": EmbeddingsMethod,
    "soft": SoftMethod,
    "dynamic": DynamicMethod,
    "prefix": PrefixMethod,
    "few-shot": FewShotMethod,
}


def build_method(base: BaseModel, settings: MethodSettings) -> Method:
    """The method that an entry of `methods` in params.yaml describes, on a base model."""
    return METHODS[settings.kind](base, settings)
