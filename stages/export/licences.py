"""Under which licence what was made of a base model and a corpus may be passed on. It is no legal advice."""

from stages.params.schema import Params

PERMISSIVE = {"mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense"}
NOT_STATED = "not stated in params.yaml"


def licence_of(params: Params) -> str:
    """The hub's identifier of the export's licence: that of the data where it asks for more than to be named.

    Without training the data has no part in it. `other` where a licence is not known, or base model and data ask for
    different things.
    """
    model, data = params.chosen_model.licence, params.chosen_dataset.licence
    if params.chosen_method.kind == "zero-shot":
        data = model
    if model is None or data is None:
        return "other"
    demanding = {each.lower() for each in (data, model)} - PERMISSIVE
    if len(demanding) > 1:
        return "other"
    return demanding.pop() if demanding else model.lower()


def licence_text(params: Params) -> str:
    """The licences of data and base model, and what follows for the export."""
    model, data = params.chosen_model.licence, params.chosen_dataset.licence
    parts = [
        f"- Data, `{params.dataset}`: {data or NOT_STATED}",
        f"- Base model, `{params.model}`: {model or NOT_STATED}",
    ]
    licence = licence_of(params)
    if licence == "other":
        result = "**Read both licences before you pass this model on**: no single one covers it."
    else:
        result = f"**This model: {licence}.**"
        if "-nc" in licence:
            result += " The data may not be used commercially, so this model may not be either."
        if "-sa" in licence:
            result += " What you make of it must be passed on under the same licence."
    return "\n".join([*parts, "", result])
