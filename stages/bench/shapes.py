"""What the command line of the benchmark offers: shapes of models, precisions. It imports nothing slow."""

from typing import Any

PRECISIONS = ("auto", "float32", "bfloat16")
GROW_SHAPES = ("smollm2", "llama-350m")  # of row e
_LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"},
    "gpt2-medium": {"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16},
    "smollm2": {
        **_LLAMA, "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "llama-350m": {
        **_LLAMA, "num_hidden_layers": 32, "hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
}  # fmt: skip
