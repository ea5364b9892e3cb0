"""Make the report one HTML file that needs nothing else: it contains the figures, has no script, requests nothing."""

import html
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from markdown_it import MarkdownIt

from stages.report.figures import Picture
from stages.report.markdown import anchor

SHORT_CELL = 16  # a table cell of at most so many characters stays on one line
# The content policy ensures that the page loads nothing, whatever a model's response contains.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }}
body {{ max-width: 76rem; margin: 2rem auto; padding: 0 1.5rem; }}
h1, h2, h3, h4 {{ line-height: 1.25; margin: 2em 0 .6em; }}
h1 {{ margin-top: 0; }}
h2 {{ border-top: 2px solid #1a1a1a; padding-top: .6em; }}
p, li {{ max-width: 48rem; }}
a {{ color: #004c80; }}
code {{ font: .85em ui-monospace, monospace; background: #f3f3f3; padding: .05em .25em; overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; margin: 1em 0; }}
table {{ border-collapse: collapse; font-size: .85em; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25em .7em; vertical-align: top; border-bottom: 1px solid #ddd; text-align: left; }}
th {{ border-bottom: 2px solid #1a1a1a; vertical-align: bottom; }}
td a, .short {{ white-space: nowrap; }}
td em {{ color: #8a3b00; }}
figure {{ margin: 1.5em 0; }}
figure svg {{ width: 100%; max-width: 60rem; height: auto; display: block; }}
figcaption {{ max-width: 48rem; font-size: .9em; }}
@media print {{
  @page {{ size: A4 landscape; margin: 12mm; }}
  body {{ font-size: 9.5pt; max-width: none; margin: 0; padding: 0; }}
  a {{ color: inherit; text-decoration: none; }}
  .wide {{ overflow: visible; }}
  h1, h2, h3, h4 {{ break-after: avoid; }}
  tr, figure, li {{ break-inside: avoid; }}
  thead {{ display: table-header-group; }}
  th, td {{ padding: .15em .45em; }}
  figure svg {{ max-width: 100%; max-height: 150mm; }}
}}
</style>
</head>
<body>
<main>
"""
TAIL = "</main>\n</body>\n</html>\n"


def to_html(markdown: str, title: str, pictures: Sequence[Picture]) -> str:
    """The report's Markdown as a page, with each image replaced by its SVG in `pictures`."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    often: Counter[str] = Counter()
    for opening, text in pairwise(tokens):
        if opening.type == "heading_open":
            name = anchor("".join(child.content for child in text.children or []))
            opening.attrSet("id", f"{name}-{often[name]}" if often[name] else name)  # like GitHub
            often[name] += 1
        elif opening.type == "td_open" and len(text.content) <= SHORT_CELL:
            opening.attrSet("class", "short")
    body = str(parser.renderer.render(tokens, parser.options, {}))
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    for picture in pictures:
        image = re.compile(rf'<p><img src="[^"]*{re.escape(picture.name)}\.svg"[^>]*></p>')
        body = image.sub(partial(inline, picture), body)
    return HEAD.format(title=html.escape(title)) + body + TAIL


def inline(picture: Picture, _: re.Match[str]) -> str:
    """A figure as an element of the page, with a description for screen readers."""
    caption = html.escape(picture.caption)
    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
    return f"<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>"
