"""Report all experiments: which method to use, and what the paper's claims are worth here.

    python -m stages.report                              writes report.md, report.html and the figures
    python -m stages.report --from metrics/runs          the same of what was kept there; no experiment is needed
    python -m stages.report --blind 50 NAME NAME         a sheet on which people compare two experiments' answers
    python -m stages.report --rated SHEET [SHEET]        what one or two people wrote on it

It reads what DVC has (experiments, the results in commits, the workspace) and runs nothing. The same experiments give
the same bytes. Test pairs and answers are quoted and kept only if the corpus's entry in params.yaml has `quote: true`,
now and when they were made.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from stages.params.schema import load_params
from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.errors import StageError


def main(arguments: argparse.Namespace) -> None:
    """Collect, write."""
    quotable = {name for name, entry in load_params(to_run=False).datasets.items() if entry.quote}
    from stages.report.blind import tally, write_sheet  # pandas takes a second to load
    from stages.report.kept import keep, kept
    from stages.report.runs import Collection, as_allowed_now, collect

    if arguments.rated:
        print(tally(arguments.rated, arguments.out))
        return
    found = Collection(tuple(kept(arguments.kept)), ()) if arguments.kept else collect(Path.cwd())
    collection = replace(found, runs=tuple(as_allowed_now(run, quotable) for run in found.runs))
    if arguments.blind:
        write_sheet(collection.runs, arguments.names, arguments.blind, arguments.out)
        return
    if arguments.keep:
        keep(collection.runs, Path("metrics/runs"), quotable)
        return
    try:
        from stages.report.document import build, readme
        from stages.report.page import write_report
    except ModuleNotFoundError as error:
        raise StageError(f"{error.name}", "not installed", "pip install -c constraints.txt -e '.[report]'") from None
    if arguments.readme:
        print(readme(collection))
    else:
        write_report(build(collection), Path("metrics") if arguments.publish else arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("exported"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--from", dest="kept", metavar="FOLDER", type=Path, help="read what --keep wrote, not DVC")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--publish", action="store_true", help="write into metrics/, where Git keeps the published report")
    way.add_argument("--readme", action="store_true", help="print the README's part and write nothing")
    way.add_argument("--keep", action="store_true", help="add parameters, scores and answers to metrics/runs instead")
    way.add_argument("--blind", type=whole_number(1), metavar="N", help="write a sheet with N pairs of answers instead")
    way.add_argument("--rated", type=Path, nargs="+", metavar="SHEET", help="print what people wrote on a sheet")
    parser.add_argument("names", metavar="NAME", nargs="*", help="for --blind: the two experiments")
    run_stage("report", parser, main)
