"""The model card: README.md of an export, with the metadata that the hub reads."""

import json
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.export.forms import Form
from stages.export.licenses import license_of, license_text
from stages.export.push import TAG
from stages.export.usage import transformers_lines, vllm_lines
from stages.methods.trained_method import TrainedMethod
from stages.params.sources import Source, parse_source
from stages.plumbing.errors import StageError
from stages.report.markdown import items, number, plain, table, value
from stages.report.results import Results

Scores = dict[str, Any]
PAPER = "https://arxiv.org/abs/2209.11068"
METRICS = {"bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "novelty": "novelty",
           "diversity": "diversity"}  # fmt: skip
CITATION = """\
@misc{valvoda2022prompting,
  title = {Prompting for a conversation: How to control a dialog model?},
  author = {Valvoda, Josef and Fang, Yimai and Vandyke, David},
  year = {2022},
  eprint = {2209.11068},
  archivePrefix = {arXiv}
}
"""


def card_of(results: Results, trained: TrainedMethod, form: Form) -> ModelCard:
    """The card of an export.

    Raises:
        StageError: the experiment has no scores.
    """
    scores = results.files.json("metrics/scores.json")
    if not scores:
        raise StageError(f"{results.name}: metrics/scores.json", "missing", "run `dvc repro`")
    sections = [
        f"# {title(results)}",
        opening(results, trained, form),
        "## Ask it\n\nWith transformers alone:",
        f"```python\n{transformers_lines(trained, form)}```",
        "With vLLM's prompt embeddings (**not tried**), continuing the lines above:",
        f"```python\n{vllm_lines(trained)}```",
        *([history_note(results)] if results.params.pairs.history > 1 else []),
        *([form.note] if form.note else []),
        "## Scores",
        score_text(scores),
        "## Data and licenses",
        license_text(results.params),
        "## How it was made",
        making(results, trained),
        "## Limits",
        limits(scores, trained),
        f"## Citing the paper\n\n```bibtex\n{CITATION}```",
    ]
    body = "\n\n".join(sections)
    return ModelCard(f"---\n{metadata(results, scores).to_yaml()}\n---\n\n{body}\n")


def title(results: Results) -> str:
    """A name that says what it is."""
    params = results.params
    return f"{params.model}, {params.method}, {params.dataset}"


def place_on_hub(source: str) -> str | None:
    """`OWNER/NAME` of a source that is on the hub; else None."""
    parsed: Source = parse_source(source)
    return parsed.place.removeprefix("datasets/") if parsed.kind == "hub" else None


def metadata(results: Results, scores: Scores) -> ModelCardData:
    """The metadata at the top of the card: license, base model, data, the six scores."""
    params = results.params
    dataset, base = (place_on_hub(each.source) for each in (params.chosen_dataset, params.chosen_model))
    measured = [
        EvalResult(
            task_type="text-generation", dataset_type=dataset or params.dataset, dataset_name=params.dataset,
            dataset_split="test", metric_type=name.rstrip("1234"), metric_name=shown, metric_value=scores[name],
        )
        for name, shown in METRICS.items()
    ]  # fmt: skip
    return ModelCardData(
        license=license_of(params),
        base_model=base,
        datasets=[dataset] if dataset else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[TAG, "dialog", "prompting", params.chosen_method.kind],
        model_name=title(results),
        eval_results=measured,
    )


def opening(results: Results, trained: TrainedMethod, form: Form) -> str:
    """What it is, on what, and what lies in the folder."""
    params = results.params
    rate = trained.description["learning_rate"]
    said = [
        f"A dialog model by the method `{params.chosen_method.kind}` of [Prompting for a conversation]({PAPER}) "
        f"(Valvoda, Fang, Vandyke, 2022): {form.what}.",
        f"Base model: `{plain(params.model)}` ({plain(params.chosen_model.source)}). "
        f"Data: `{plain(params.dataset)}` ({plain(params.chosen_dataset.source)})."
        + (f" Learning rate {rate:.3g}, epoch {trained.description['epoch']}." if rate else ""),
        "`model.safetensors`: the complete language model with what was trained in it, in float32"
        + (f"; {form.files}." if form.files else "."),
    ]
    return "\n\n".join(said)


def history_note(results: Results) -> str:
    """What a query is where it is more than one turn."""
    pairs = results.params.pairs
    joined = json.dumps(pairs.joined_by, ensure_ascii=False)
    return (
        f"A query is the last {pairs.history} turns of the conversation, joined by `{joined}`: it was trained on these."
    )


def score_text(scores: Scores) -> str:
    """The scores with their baselines and intervals, and how much of the test set leaks."""
    header = ["", "BLEU-4", "its 95 % interval", "BLEU-1", "novelty", "diversity", "empty", "pairs"]
    named = {"this model": scores, "people": scores["human"], "retrieval": scores["retrieval"]}
    parts = {"all": None, "unseen": "unseen", "unlike": "unlike"}
    rows = [
        score_row(f"{name}, {part}", row if key is None else row[key])
        for part, key in parts.items()
        for name, row in named.items()
    ]
    leaked = [
        f"{kind}: {', '.join(f'{100 * share:.1f} % of the {what}' for what, share in shares.items())}"
        for kind, shares in scores["leakage"].items()
    ]
    return "\n\n".join([
        f"Greedy answers to {scores['pairs']} test pairs; all scores are fractions. `people` are the references "
        "themselves, `retrieval` copies the response to the most similar training query: what is below it, copying "
        "would have scored too. `unseen` are the pairs of which neither side stands in the training data, `unlike` "
        "those of which neither side even resembles one there. The interval is a bootstrap over test pairs, of this "
        "one training run.",
        table(header, rows),
        f"Of the test set these stand in the training data: {'; '.join(leaked)}.",
        f"BLEU by sacrebleu, signature `{scores['signature']}`.",
    ])  # fmt: skip


def score_row(name: str, row: Scores | None) -> list[str]:
    """A line of the table; a part without pairs has none."""
    if not row:
        return [name, *["-"] * 6, "0"]
    low, high = row["bleu4_interval"]
    shares = [number(row[each], 3) for each in ("bleu1", "novelty", "diversity", "empty")]
    return [name, number(row["bleu4"]), f"{number(low)} to {number(high)}", *shares, str(row["pairs"])]


def making(results: Results, trained: TrainedMethod) -> str:
    """The parameters, and what made it."""
    raw = results.raw_params
    switches = ("dataset", "model", "method", "regime", "protocol", "seed", "drop_overlap")
    rows = [[f"`{name}`", plain(value(raw[name]))] for name in switches]
    for table_name in ("method", "protocol"):
        entry = raw[f"{table_name}s"][raw[table_name]]
        rows += [[f"`{table_name}s.{raw[table_name]}.{key}`", plain(value(each))] for key, each in _flat(entry)]
    rows += [["`prompt_template`", plain(json.dumps(trained.description["prompt_template"], ensure_ascii=False))]]
    rows += [[f"`pairs.{key}`", plain(json.dumps(each))] for key, each in raw["pairs"].items()]
    origin = "the workspace" if results.files.commit is None else f"the experiment `{plain(results.name)}`"
    commit = f", commit `{results.files.commit}`" if results.files.commit else ""
    head = f"By the pipeline dialog-prompting, from {origin}{commit}. Its parameters:"
    return f"{head}\n\n{table(['parameter', 'value'], rows, left=2)}"


def _flat(entry: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested tables as pairs of dotted key and value."""
    found: list[tuple[str, Any]] = []
    for key, each in entry.items():
        found += _flat(each, f"{prefix}{key}.") if isinstance(each, dict) else [(f"{prefix}{key}", each)]
    return found


def limits(scores: Scores, trained: TrainedMethod) -> str:
    """What a reader must know before using it."""
    lengths = trained.lengths
    return items([
        "It says what a likely next turn would be. It knows no facts, and nothing was done against harmful answers.",
        f"The training data was {scores['training_pairs']} pairs. The scores are of one training run; other seeds "
        "score otherwise.",
        f"A query of more than {lengths.max_query_tokens} tokens, prompt template included, loses its beginning; an "
        f"answer has at most {lengths.max_new_tokens} tokens.",
        "Only greedy decoding was measured.",
    ])  # fmt: skip
