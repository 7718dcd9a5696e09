"""The shell of an HTML page that needs no network, and its parts.

Text of models and data sets gets into a page in two ways only: escaped in tables, and as JSON that the script
shows through textContent. The page's policy allows no script but its own.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from evalkit.report.svg import Plot
from evalkit.report.tables import Table
from evalkit.types import json_text

_COLOURED = ("reproduces", "differs", "better", "worse")


def html_page(title: str, sections: Iterable[str], names: Sequence[str], data: Any = None) -> str:
    """A whole page. names: the sections' anchors for its navigation; data: what the script shows."""
    script, style = _asset("report.js"), _asset("report.css")
    policy = f"default-src 'none'; img-src data:; script-src '{_sha(script)}'; style-src 'unsafe-inline'"
    navigation = "".join(f"<a href='#{name}'>{name}</a>" for name in names)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{style}</style></head><body>',
        f"<header><h1>{html.escape(title)}</h1><nav>{navigation}</nav>",
        '<button id="theme" type="button">light / dark</button></header><main>',
        *sections,
        f'</main><script type="application/json" id="data">{_embedded(data or {"rows": []})}</script>',
        f"<script>{script}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _embedded(value: Any) -> str:
    """JSON that cannot end its own script element."""
    text = json_text(value, separators=(",", ":"), ensure_ascii=False)
    # "<" for the element's end, the two separators for script engines of before 2019, lone surrogates for UTF-8.
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "replace").decode("utf-8")


def html_table(table: Table) -> str:
    """A table; a second line of a cell is set small below the first."""
    head = "".join(_cell("th", text, table.is_left(i)) for i, text in enumerate(table.header))
    lines = ["".join(_cell("td", text, table.is_left(i)) for i, text in enumerate(row)) for row in table.rows]
    marks = [" class=measured" if number in table.bold_rows else "" for number in range(len(lines))]
    rows = "".join(f"<tr{mark}>{line}</tr>" for mark, line in zip(marks, lines, strict=True))
    note = f"<p class='note'>{html.escape(table.note)}</p>" if table.note else ""
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}"


def _cell(name: str, text: str, is_left: bool) -> str:
    first, _, second = text.partition("\n")
    classes = [*(["left"] * is_left), *(word for word in _COLOURED if first.endswith(word))]
    below = f"<div class='why'>{_text(second)}</div>" if second else ""
    return f"<{name} class='{' '.join(classes)}'>{_text(first)}{below}</{name}>"


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def html_details(table: Table) -> str:
    """A table that is folded away under its title."""
    return f"<details><summary>{_text(table.title)}</summary>{html_table(table)}</details>"


def html_figure(plot: Plot) -> str:
    """A plot under its title."""
    return f"<figure><figcaption>{html.escape(plot.title)}</figcaption>{plot.svg}</figure>"


def _asset(name: str) -> str:
    return (files("evalkit.report") / "assets" / name).read_text(encoding="utf-8")


def _sha(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
