"""A sheet on which people compare the answers of two experiments without knowing whose they are.

`exported/blind.csv` has a row a test pair: the query, both answers in an order that the pair's hash draws, and a column
`better` to be filled in with 1, 2 or = (as good). `exported/blind-key.csv` says which experiment each answer is from.
"""

import io
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes
from stages.report.compare import NotMeasured, lot, responses_of
from stages.report.runs import Run

SHEET, KEY = "blind.csv", "blind-key.csv"
VERDICTS = {"1": 1, "2": -1, "=": 0}


def write_sheet(runs: Sequence[Run], names: Sequence[str], count: int, folder: Path) -> None:
    """Write the sheet and its key: `count` pairs of answers that differ.

    Raises:
        StageError: there are not two such experiments, or they answered other queries.
    """
    chosen = [run for name in names for run in runs if run.name == name]
    if len(chosen) != 2:
        raise StageError("--blind", f"{len(chosen)} experiments named {' '.join(names)}", "name two of the report's")
    try:
        said = [responses_of(run) for run in chosen]
    except NotMeasured as reason:
        raise StageError("--blind", str(reason), "run them again") from None
    if [each.query for each in said[0]] != [each.query for each in said[1]]:
        raise StageError("--blind", "they answered other queries", "name two experiments with the same test pairs")
    both = list(zip(*said, strict=True))
    differ = [(lot(one, 0), one, other) for one, other in both if one.response != other.response]
    if not differ:
        raise StageError("--blind", "they gave the same answers", "name two experiments that differ")
    rows, key = [], []
    for number, (drawn, *pair) in enumerate(sorted(differ, key=itemgetter(0))[:count], start=1):
        order = (0, 1) if int(drawn[-1], 16) % 2 else (1, 0)
        # In quotation marks a spreadsheet takes no answer for a formula.
        rows.append([number, *(f"“{text}”" for text in (pair[0].query, *(pair[at].response for at in order))), ""])
        key.append([number, *(chosen[at].name for at in order)])
    for name, table, columns in ((SHEET, rows, ["query", "1", "2", "better"]), (KEY, key, ["1", "2"])):
        text = pd.DataFrame(table, columns=["number", *columns]).to_csv(index=False, lineterminator="\n")
        write_bytes(folder / name, text.encode("utf-8-sig"))
    same = len(both) - len(differ)
    print(f"{folder / SHEET}: {len(rows)} pairs; the answers to {same} of {len(both)} queries are the same")


def tally(sheets: Sequence[Path], folder: Path) -> str:
    """Which experiment's answers people found better: wins, ties, the sign test; and whether two people agree.

    Where several people rated a pair, the one that more of them found better has won it.

    Raises:
        StageError: a sheet is not UTF-8, or has another verdict than 1, 2, = or none.
        OSError: the key is not in the folder, or a sheet not where it should be.
    """
    key = _read(folder / KEY)
    first, second = sorted({*key["1"], *key["2"]})
    side = key["1"].eq(first) * 2 - 1  # 1 where the first experiment's answer is on the left, -1 where on the right
    votes = pd.concat([_verdicts(path) * side for path in sheets], axis=1)
    total = votes.sum(axis=1)[votes.notna().any(axis=1)]
    won, lost = int((total > 0).sum()), int((total < 0).sum())
    p = binomtest(won, won + lost).pvalue if won + lost else 1.0
    told = [
        f"{first}: better for {won} queries; {second}: better for {lost}; as good for {len(total) - won - lost}",
        f"sign test without the ties: p = {p:.4f}",
    ]
    both = votes.dropna().to_numpy()
    if len(sheets) == 2 and len(both):
        agree, kappa = (both[:, 0] == both[:, 1]).mean(), cohen_kappa_score(*both.T)
        told.append(f"two people agree on {100 * agree:.0f} % of {len(both)} queries, Cohen's kappa {kappa:.2f}")
    return "\n".join(told)


def _read(path: Path) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise StageError(path, "not UTF-8", "save it as CSV in UTF-8") from None
    separator = ";" if ";" in text.partition("\n")[0] else ","  # some spreadsheets save semicolons
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col="number", sep=separator)


def _verdicts(path: Path) -> pd.Series:
    """1 where the left answer was found better, -1 where the right one was, 0 for a tie, nothing where nobody wrote."""
    written = _read(path)["better"].str.strip()
    for number, text in written.items():
        if text and text not in VERDICTS:
            raise StageError(f"{path}: number {number}", f"found {text}", "write 1, 2, = or nothing")
    return written.map(VERDICTS)
