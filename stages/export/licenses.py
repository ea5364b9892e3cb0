"""Under which license what was made of a base model and a corpus may be passed on. It is no legal advice."""

from stages.params.schema import Params

FREE = ("cc0-1.0", "unlicense")  # they ask for nothing
# They ask to be named, the later the more.
PERMISSIVE = (*FREE, "mit", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "cc-by-4.0")
NOT_STATED = "not stated in params.yaml"


def sources_of(params: Params) -> dict[str, str | None]:
    """What the export was made of, in words, and the license of each; without training the data has no part in it."""
    model = {f"The base model, `{params.model}`,": params.chosen_model.license}
    if params.chosen_method.kind == "zero-shot":
        return model
    return {f"The data, `{params.dataset}`,": params.chosen_dataset.license, **model}


def license_of(params: Params) -> str:
    """The hub's identifier of the export's license: that of the data, if the base model does not ask for more.

    `other` where a license is not known, or base model and data ask for different things.
    """
    known = [license.lower() for license in sources_of(params).values() if license is not None]
    if len(known) < len(sources_of(params)):
        return "other"
    demanding = {*known} - {*PERMISSIVE}
    if len(demanding) > 1:
        return "other"
    return demanding.pop() if demanding else max(known, key=PERMISSIVE.index)


def license_text(params: Params) -> str:
    """The licenses of data and base model, and what follows for the export."""
    model, data = params.chosen_model.license, params.chosen_dataset.license
    parts = [
        f"- Data, `{params.dataset}`: {data or NOT_STATED}",
        f"- Base model, `{params.model}`: {model or NOT_STATED}",
    ]
    license = license_of(params)
    result = [f"**This model: {license}.**"]
    if license == "other":
        result = ["**Read both licenses before you pass this model on**: no single one covers it."]
    for what, own in sources_of(params).items():
        if own and "-nc" in own.lower():
            result.append(f"**{what} may not be used commercially, so this model may not be either.**")
        if own and "-sa" in own.lower():
            result.append(f"{what} must be passed on under its own license, and so must what you make of it.")
        if own and own.lower() not in FREE:
            result.append(f"{what} asks to be named.")
    return "\n".join([*parts, "", " ".join(result)])
