"""The model card: README.md of an export, with the metadata that the hub reads."""

import json
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.export.forms import Form, transformers_lines
from stages.methods.trained_method import TrainedMethod
from stages.params.schema import Params
from stages.params.sources import as_json, parse_source
from stages.params.validation import redact
from stages.plumbing.errors import StageError
from stages.report.markdown import fence, items, number, plain, table
from stages.report.results import Results
from stages.report.runs import SWITCHES

Scores = dict[str, Any]
PAPER = "https://arxiv.org/abs/2209.11068"
METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity")
FREE = ("cc0-1.0", "unlicense")  # licenses that ask for nothing
PERMISSIVE = (*FREE, "mit", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "cc-by-4.0")  # that ask to be named


def card_of(results: Results, trained: TrainedMethod, form: Form) -> ModelCard:
    """The card of an export.

    Raises:
        StageError: the experiment has no scores.
    """
    params, scores = results.params, results.files.json("metrics/scores.json")
    if not scores:
        raise StageError(f"{results.name}: metrics/scores.json", "missing", "run `dvc repro`")
    license, conditions = license_of(params)
    head = metadata(params, scores, license)
    parts = [
        f"---\n{head.to_yaml()}\n---\n\n# {head.model_name}", opening(params, trained, form),
        f"## Ask it\n\nWith transformers{' and PEFT' * ('peft' in form.load)} alone:",
        fence("python", transformers_lines(trained, form)),
        "On the hub, private until you change that: `hf upload OWNER/NAME FOLDER --private`.",
        "## Scores", score_text(scores), "## Data and licenses", conditions,
        "## How it was made", making(results), "## Limits", limits(params, scores, trained),
    ]  # fmt: skip
    return ModelCard("\n\n".join(parts) + "\n")


def metadata(params: Params, scores: Scores, license: str) -> ModelCardData:
    """The metadata at the top of the card: license, base model, data, the six scores."""
    sources = [parse_source(entry.source) for entry in (params.chosen_dataset, params.chosen_model)]
    dataset, base = (each.place.removeprefix("datasets/") if each.kind == "hub" else None for each in sources)
    measured = [
        EvalResult(
            task_type="text-generation", dataset_type=dataset or params.dataset, dataset_name=params.dataset,
            dataset_split="test", metric_type=name.rstrip("1234"), metric_name=name.replace("bleu", "BLEU-"),
            metric_value=value,
        )
        for name in METRICS
        if (value := score_of(scores, name)) is not None
    ]  # fmt: skip
    return ModelCardData(
        license=license,
        base_model=base,
        datasets=[dataset] if dataset else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["dialog-prompting", "dialog", "prompting", params.chosen_method.kind],
        model_name=f"{params.model}, {params.method}, {params.dataset}",
        eval_results=measured,
    )


def score_of(row: Scores, name: str) -> float | None:
    """A score; None for a BLEU without one matching n-gram, which would be the constant of a smoothing rule."""
    if name.startswith("bleu") and not row["matches"][int(name[-1]) - 1]:
        return None
    return float(row[name])


def opening(params: Params, trained: TrainedMethod, form: Form) -> str:
    """What it is, on what, and what lies in the folder."""
    rate, epoch = trained.description["learning_rate"], trained.description["epoch"]
    best = f" Learning rate {rate:.3g}, epoch {epoch}." if rate else ""
    beside = f"; {form.files}" if form.files else ""
    return (
        f"A dialog model made with `{params.chosen_method.kind}` by an implementation of [Prompting for a conversation]"
        f"({PAPER}) (Valvoda, Fang, Vandyke, 2022): {form.what}.\n\n"
        f"Base model: `{plain(params.model)}` ({plain(redact(params.chosen_model.source))}). "
        f"Data: `{plain(params.dataset)}` ({plain(redact(params.chosen_dataset.source))}).{best}\n\n"
        f"`model.safetensors`: the complete language model with what was trained in it, in float32{beside}."
    )


def score_text(scores: Scores) -> str:
    """The scores with their baselines and intervals, and how much of the test set leaks."""
    header = ["", "BLEU-4", "its 95 % interval", "BLEU-1", "novelty", "diversity", "empty", "pairs"]
    named = {"this model": scores, "people": scores["human"], "retrieval": scores["retrieval"]}
    rows = []
    for part in ("all", "unseen", "unlike"):
        for name, whole in named.items():
            if row := whole if part == "all" else whole[part]:  # there may be no such pairs
                interval = " to ".join(map(number, row["bleu4_interval"] or [None]))
                shares = [number(score_of(row, each), 3) for each in ("bleu1", "novelty", "diversity", "empty")]
                rows.append([f"{name}, {part}", number(score_of(row, "bleu4")), interval, *shares, str(row["pairs"])])
    leaked = [
        f"{kind}: {', '.join(f'{100 * share:.1f} % of the {what}' for what, share in shares.items())}"
        for kind, shares in scores["leakage"].items()
    ]
    return (
        f"Greedy answers to {scores['pairs']} test pairs; all scores are fractions. `people` are the references "
        "themselves, `retrieval` copies the response to the most similar training query: what is below it, copying "
        "would have scored too. `unseen` are the pairs of which neither side stands in the training data, `unlike` "
        "those of which neither side even resembles one there. The interval is a bootstrap over test dialogues, of "
        "this one training run. A BLEU without a matching n-gram of its order is no measurement, and not given.\n\n"
        f"{table(header, rows)}\n\n"
        f"Of the test set these stand in the training data: {'; '.join(leaked)}. "
        f"BLEU by sacrebleu, signature `{scores['signature']}`."
    )


def license_of(params: Params) -> tuple[str, str]:
    """The hub's identifier of the export's license; and what it was made of, with the licenses and what they ask for.

    It is the data's, if the base model does not ask for more, and `other` where a license is not known or both ask for
    different things. It is no legal advice.
    """
    made_of = [(f"The base model, `{params.model}`,", params.chosen_model.license)]
    if params.chosen_method.kind != "zero-shot":  # without training the data has no part in it
        made_of.insert(0, (f"The data, `{params.dataset}`,", params.chosen_dataset.license))
    licenses = [(own or "other").lower() for _, own in made_of]
    demanding = {*licenses} - {*PERMISSIVE} or {max(licenses, key=PERMISSIVE.index)}
    license = demanding.pop() if len(demanding) == 1 else "other"
    stated, sentences = [], [f"**This model: {license}.**"]
    if license == "other":
        sentences = ["**Read both licenses before you pass this model on**: no single one covers it."]
    for what, own in made_of:
        stated.append(f"{what} has the license {own}." if own else f"{what} has none in params.yaml.")
        if own and "-nc" in own.lower():
            sentences.append(f"**{what} may not be used commercially, so this model may not be either.**")
        if own and "-sa" in own.lower():
            sentences.append(f"{what} must be passed on under its own license, and so must what you make of it.")
        if own and own.lower() not in FREE:
            sentences.append(f"{what} asks to be named.")
    return license, f"{items(stated)}\n\n{' '.join(sentences)}"


def making(results: Results) -> str:
    """The parameters, and what made it."""
    raw = results.raw_params
    used = {name: raw[name] for name in (*SWITCHES, "pairs")}
    for switch in ("method", "protocol"):
        used[f"{switch}s"] = {raw[switch]: raw[f"{switch}s"][raw[switch]]}
    used["prompt_template"] = as_json(results.params.chosen_model.prompt_template)
    commit = results.files.commit
    origin = f"the experiment `{plain(results.name)}`, commit `{commit}`" if commit else "the workspace"
    text = yaml.safe_dump(used, sort_keys=False, allow_unicode=True)
    return f"By the pipeline dialog-prompting, from {origin}. Its parameters:\n\n{fence('yaml', text)}"


def limits(params: Params, scores: Scores, trained: TrainedMethod) -> str:
    """What a reader must know before using it."""
    lengths, pairs = trained.lengths, params.pairs
    joined = f"the last {pairs.history} turns of the conversation, joined by `{json.dumps(pairs.joined_by)}`"
    return items([
        "It says what a likely next turn would be. It knows no facts, and nothing was done against harmful answers.",
        f"The training data was {scores['training_pairs']} pairs. The scores are of one training run; other seeds "
        "score otherwise.",
        f"A query is {joined if pairs.history > 1 else 'one turn'}. Of more than {lengths.max_query_tokens} tokens, "
        f"prompt template included, it loses the first; an answer has at most {lengths.max_new_tokens}.",
        "Only greedy decoding was measured.",
    ])  # fmt: skip
