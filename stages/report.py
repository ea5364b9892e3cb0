"""The report: every experiment that there is beside the paper's own numbers, as Markdown and as one HTML file.

    python -m stages.report              writes metrics/report.md, metrics/report.html and metrics/report/*.svg
    python -m stages.report --table      prints the README's table: the methods with the parameters of params.yaml

It reads what DVC has (experiments, the last commit's results, the workspace) and runs nothing. The same experiments
give the same bytes.
"""

import argparse
from pathlib import Path

from ruamel.yaml import YAML

from stages.core.errors import StageError, run_stage
from stages.core.files import state_folder, write_bytes
from stages.core.params import PARAMS_FILE, load_params
from stages.core.report.methods_table import methods_table
from stages.core.report.runs import Collection, collect


def write_report(collection: Collection, folder: Path) -> None:
    """Write the three kinds of files; figures of an earlier report that this one does not have are removed.

    Raises:
        StageError: what draws the figures is not installed.
    """
    try:
        from stages.core.report.document import TITLE, build
        from stages.core.report.page import to_html
    except ModuleNotFoundError as error:
        raise StageError(f"{error.name}", "not installed", "pip install -c constraints.txt -e '.[report]'") from None
    report = build(collection, "report")
    figures = folder / "report"
    for picture in report.pictures:
        write_bytes(figures / f"{picture.name}.svg", picture.svg.encode())
    for path in set(figures.glob("*.svg")) - {figures / f"{picture.name}.svg" for picture in report.pictures}:
        path.unlink()
    write_bytes(folder / "report.md", report.markdown.encode())
    write_bytes(folder / "report.html", to_html(report.markdown, TITLE, report.pictures).encode())
    print(f"{folder / 'report.html'}: {len(collection.runs)} runs, {len(report.pictures)} figures")


def main(arguments: argparse.Namespace) -> None:
    """Collect, write."""
    load_params()  # refuses what is not a project, or a broken one
    collection = collect(Path.cwd(), state_folder())
    if arguments.table:
        print(methods_table(collection, YAML(typ="safe").load(PARAMS_FILE)))
    else:
        write_report(collection, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("metrics"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table of the README and write nothing")
    run_stage("report", parser, main)
