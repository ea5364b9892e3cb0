"""Report all experiments, compared with the paper's numbers, as Markdown and as one HTML file.

    python -m stages.report              writes metrics/report.md, metrics/report.html and metrics/report/*.svg
    python -m stages.report --table      prints the README's table: the methods with the parameters of params.yaml,
                                         each with all seeds that it was run with

It reads what DVC has (experiments, the results in commits, the workspace) and runs nothing. The same experiments give
the same bytes.
"""

import argparse
from pathlib import Path

from stages.params.schema import PARAMS_FILE, load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import state_folder
from stages.plumbing.yaml import parse_yaml
from stages.report.methods_table import methods_table
from stages.report.runs import collect
from stages.report.write import write_report


def main(arguments: argparse.Namespace) -> None:
    """Collect, write."""
    load_params()  # an error if this is not a project, or params.yaml is wrong
    collection = collect(Path.cwd(), state_folder())
    if arguments.table:
        print(methods_table(collection, parse_yaml(PARAMS_FILE.read_text(encoding="utf-8"), PARAMS_FILE)))
    else:
        write_report(collection, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("metrics"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the README's table and write nothing")
    run_stage("report", parser, main)
