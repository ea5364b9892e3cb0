"""Tables of what stands beside the paper's six scores: what went wrong, variety of words, other kinds of BLEU."""

from collections.abc import Iterator

from stages.report.lines import FIRST, LAST, Line, interval, lines_of, mean, spread
from stages.report.markdown import NONE, items, number, plain, table
from stages.report.scores import with_interval
from stages.report.settings import Setting

WENT_WRONG = {name: name for name in ("empty", "loops", "echoes", "unended", "exact")} | {"mean_words": "mean words"}
VARIETY = {"distinct1": "distinct-1", "distinct2": "distinct-2", "ead": "EAD", "chrf": "chrF"}
SEVERAL = {"bleu4_further_only": "against the further ones alone", "bleu4_lower_case": "case overlooked"}

SEVERAL_REFERENCES = """Against several references of a pair. *human* is left out of its own references: it is scored
against the further ones alone, on the pairs that have any. What another row scores against those alone is the number to
compare it with."""


def diagnostics_tables(setting: Setting) -> Iterator[str]:
    """What went wrong with the responses to all test pairs, then the variety of their words."""
    lines = lines_of(setting)
    for names in (WENT_WRONG, VARIETY):
        yield table(
            [*FIRST, *names.values(), LAST],
            (
                [*line.words, *(spread([each.get(name) for each in line.scores]) for name in names), line.link]
                for line in lines
            ),
            left=len(FIRST),
        )


def forgetting_table(setting: Setting) -> Iterator[str]:
    """What tuning took from the model: its loss on text that it was not tuned on, without the prompt, and before."""
    rows: list[list[str]] = []
    texts: dict[str, int] = {}
    for line in lines_of(setting, baselines=False):
        found = [each for file in line.files if (each := file.get("forgetting"))]
        if not found:
            continue
        texts |= {each["text"]: each["tokens"] for each in found}
        losses = (spread([each[name] for each in found]) for name in ("loss_before", "loss_after", "difference"))
        rows.append([*line.words, *losses, "; ".join(interval(each["interval"]) for each in found), line.link])
    if not rows:
        yield "Not measured."
        return
    header = ["loss before", "after", "difference", "95 % interval (of each seed)", LAST]
    yield table([*FIRST, *header], rows, left=len(FIRST))
    yield items(f"the text: {plain(text)}, {tokens} tokens" for text, tokens in texts.items())


def bleu_tables(setting: Setting) -> Iterator[str]:
    """BLEU as others compute it, and against several references where the corpus has them."""
    lines = lines_of(setting)
    labels = {
        name: each["label"]
        for line in lines
        for file in line.files
        for name, each in file.get("bleu_variants", {}).items()
    }
    if not labels:
        yield "Not scored: these runs are older than the other kinds of BLEU."
        return
    yield "BLEU-1 / BLEU-2 / BLEU-3 / BLEU-4 of all test pairs:"
    yield table(
        [*FIRST, *labels, LAST],
        ([*line.words, *(variant(line, name) for name in labels), line.link] for line in lines),
        left=len(FIRST),
    )
    yield items(f"{name}: `{label}`" for name, label in labels.items())
    found = {facts["signature"]: facts for line in lines for file in line.files if (facts := file.get("references"))}
    if not found:
        return
    yield SEVERAL_REFERENCES
    yield several_table(lines)
    yield items(
        f"{facts['further']} further references for {facts['pairs']} of the test pairs: `{signature}`"
        for signature, facts in found.items()
    )


def variant(line: Line, name: str) -> str:
    """BLEU-1 to BLEU-4 by one definition, in a cell."""
    scores = [file.get("bleu_variants", {}).get(name, {}).get(line.row) for file in line.files]
    known = [each for each in scores if each]
    return " / ".join(number(mean([each[f"bleu{n}"] for each in known])) for n in (1, 2, 3, 4)) if known else NONE


def several_table(lines: list[Line]) -> str:
    """BLEU-4 against the own reference alone and against several; of `human` against the further ones alone."""
    rows = []
    for line in lines:
        several = [each.get("several_references") or {} for each in line.scores]
        counted = ", ".join(str(each.get("pairs", NONE)) for each in several)
        scores = [spread([each.get("bleu4") for each in line.scores]), with_interval(several)]
        others = (spread([each.get(name) for each in several]) for name in SEVERAL)
        rows.append([*line.words, counted, *scores, *others, line.link])
    header = ["pairs", "BLEU-4 against one reference", "against all of them", *SEVERAL.values(), LAST]
    return table([*FIRST, *header], rows, left=len(FIRST))
