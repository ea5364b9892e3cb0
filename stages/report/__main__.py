"""Report all experiments: which method to use, and what the paper's claims are worth here.

    python -m stages.report              writes exported/report: report.md, report.html and the figures
    python -m stages.report --publish    writes the same into metrics/, where Git keeps the published report
    python -m stages.report --readme     prints the README's short answer and table, and writes nothing

It reads what DVC has (experiments, the results in commits, the workspace) and runs nothing. The same experiments give
the same bytes.
"""

import argparse
from pathlib import Path

from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.errors import StageError
from stages.report.runs import collect


def main(arguments: argparse.Namespace) -> None:
    """Collect, write."""
    load_params()  # an error if this is not a project, or params.yaml is wrong
    try:
        from stages.report.document import build, readme
        from stages.report.page import write_report
    except ModuleNotFoundError as error:
        raise StageError(f"{error.name}", "not installed", "pip install -c constraints.txt -e '.[report]'") from None
    collection = collect(Path.cwd())
    if arguments.readme:
        print(readme(collection))
    else:
        write_report(build(collection), Path("metrics") if arguments.publish else arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("exported"), help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--publish", action="store_true", help="write into metrics/, where Git keeps the published report"
    )
    parser.add_argument("--readme", action="store_true", help="print the README's part and write nothing")
    run_stage("report", parser, main)
