"""An HTML page that needs no network: templates by Jinja2, whose every text is escaped, styles and scripts in the file.

Text of models and data sets gets into a page in two ways only: escaped by a template, and packed as data that the
scripts show through textContent. The page's policy allows no script but its own.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from evalkit.report.tables import Table
from evalkit.types import json_text

# What `make vendor` took from npm, in the order in which they need each other.
_PLOTS = ("vendor/d3.js", "vendor/plot.js")
_TABLES = ("vendor/sortable.js", "vendor/sortable-a11y.js")
_PROGRAMS = ("vendor/prism-core.js", "vendor/prism-python.js")
_LICENCES = {
    "D3": "vendor/d3.LICENSE",
    "Observable Plot": "vendor/plot.LICENSE",
    "sortable-tablesort": "vendor/sortable.LICENSE",
    "Prism": "vendor/prism.LICENSE",
}
_QUESTIONS = (*_PROGRAMS, "elements.js", "packed.js", "detail.js", "questions.js")
REPORT_SCRIPTS = ("early.js", *_TABLES, *_PLOTS, "plots.js", *_QUESTIONS, "report.js")
TABLE_SCRIPTS = ("early.js", *_TABLES, "report.js")
_COLOURED = ("reproduces", "differs", "better", "worse")


def rendered(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A whole page. scripts: assets by name, run in this order; values: what the template names."""
    texts = [_asset(name) for name in scripts]
    page = _environment().get_template(template)
    told = page.render(
        style=Markup(_asset("report.css")),
        scripts=[Markup(text) for text in texts],
        policy=_policy(texts),
        licences={name: _asset(place) for name, place in _LICENCES.items()},
        **values,
    )
    return told.encode("utf-8", "replace").decode("utf-8")


def tables_page(title: str, sections: Iterable[tuple[str, Iterable[Table]]], notes: Sequence[str] = ()) -> str:
    """A page of tables. sections: (heading, its tables); notes: below the first of them."""
    return rendered("tables.html.jinja", TABLE_SCRIPTS, title=title, sections=list(sections), notes=notes)


def embedded(value: Any) -> Markup:
    """JSON that cannot end its own script element."""
    text = json_text(value, separators=(",", ":"), ensure_ascii=False)
    # "<" for the element's end, the two separators for script engines of before 2019.
    for char in "<\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _policy(scripts: Iterable[str]) -> str:
    allowed = " ".join(f"'{_sha(script)}'" for script in scripts)
    return f"default-src 'none'; img-src data:; script-src {allowed}; style-src 'unsafe-inline'"


def _sha(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (files("evalkit.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"colour": _colour, "order": _order, "embedded": embedded, "slug": slug, "halves": _halves}
    return made


def _colour(cell: str) -> str:
    """The class of a cell that says how something came out."""
    return next((word for word in _COLOURED if re.split(r"[,\n]", cell)[0].endswith(word)), "")


def _halves(cell: str) -> tuple[str, str]:
    """A cell's first line, and what is set small below it."""
    first, _, second = cell.partition("\n")
    return first, " ".join(second.split())


def _order(cell: str) -> str:
    """What a cell is sorted by: its first figure, else its text."""
    found = re.match(r"\s*(?:p\s*)?<?\s*([-+−]?[\d,]*\.?\d+)", cell)
    return found[1].replace(",", "").replace("−", "-").lstrip("+") if found else "-1e9" if cell == "-" else cell


def slug(title: str) -> str:
    """A title as a file name."""
    return re.sub(r"[^a-z0-9_]+", "-", title.lower()).strip("-")
