"""Write the report: Markdown, figures, and one HTML file that needs nothing else (no script, no request)."""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from markdown_it import MarkdownIt

from stages.plumbing.files import write_bytes
from stages.report.figures import Picture
from stages.report.markdown import plain, slug

Document = list[str | Picture]  # blocks of Markdown and figures, in their order

TITLE, UNFOLD = "Prompt it or fine-tune it?", "</details>"

# The content policy ensures that the page loads nothing, whatever a model's response contains.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h2 {{ border-top: 1px solid; padding-top: .6em; margin-top: 2em; }}
td:first-child {{ min-width: 5em; }}
code {{ font-size: .9em; overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .85em; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25em .6em; vertical-align: top; border-bottom: 1px solid #8884; text-align: left; }}
.n {{ text-align: right; }}
figure {{ margin: 1.5em 0; }}
figure svg {{ width: 100%; height: auto; background: #fff; }}
figcaption, nav {{ font-size: .9em; }}
</style>
</head>
<body>
<nav>{contents}</nav>
<main>
{body}
</main>
</body>
</html>
"""


def fold(title: str, blocks: Iterable[str]) -> list[str]:
    """Blocks that are shown once a reader opens them."""
    return [f"<details>\n<summary>{html.escape(title)}</summary>", *blocks, UNFOLD]


def write_report(document: Document, folder: Path) -> None:
    """Write report.md, report.html and report/*.svg; remove the figures of an earlier report."""
    figures = {folder / f"report/{block.name}.svg": block.svg for block in document if isinstance(block, Picture)}
    for path, svg in figures.items():
        write_bytes(path, svg.encode())
    for path in set(folder.glob("report/*.svg")) - figures.keys():
        path.unlink()
    write_bytes(folder / "report.md", to_markdown(document).encode())
    write_bytes(folder / "report.html", to_html(document).encode())
    print(f"{folder / 'report.html'}: {len(figures)} figures")


def to_markdown(document: Document) -> str:
    """The document as Markdown, which finds the figures in the folder `report` beside it."""
    shown = (
        f"![{plain(block.caption)}](report/{block.name}.svg)" if isinstance(block, Picture) else block
        for block in document
    )
    return "\n\n".join(shown) + "\n"


def to_html(document: Document) -> str:
    """The document as a page, with contents at its top."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = "\n".join(_block(parser, block) for block in document)
    body = re.sub(r"<h2>(.*?)</h2>", lambda match: f'<h2 id="{slug(match[1])}">{match[1]}</h2>', body)
    headings = re.findall(r'<h2 id="(.*?)">(.*?)</h2>', body)
    contents = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading in headings)
    return PAGE.format(title=html.escape(TITLE), contents=f"<ul>{contents}</ul>", body=body)


def _block(parser: MarkdownIt, block: str | Picture) -> str:
    if isinstance(block, Picture):
        caption = html.escape(block.caption)
        svg = block.svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
        return f"<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>"
    if block.startswith("<details>") or block == UNFOLD:
        return block
    text = str(parser.render(block))
    text = text.replace(' style="text-align:right"', " class=n")  # half as long, thousands of times
    return text.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
