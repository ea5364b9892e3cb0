"""Write the report: Markdown, figures, and one HTML file."""

from pathlib import Path

from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes
from stages.report.runs import Collection


def write_report(collection: Collection, folder: Path) -> None:
    """Write the three kinds of files; remove figures of an earlier report that this one does not have.

    Raises:
        StageError: a package that it needs is not installed.
    """
    try:
        from stages.report.document import TITLE, build
        from stages.report.page import to_html
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
