"""Plots as PNG, for where SVG is not taken. Drawn by resvg, which wants a font of the machine's."""

import importlib.util

from evalkit.errors import ConfigError

_ZOOM = 2.0  # pixels per unit of the SVG: sharp in print at a column's width
_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">{}</svg>'
_TEXT = '<text x="2" y="15" font-family="sans-serif" font-size="12">Aa</text>'


def require_png() -> None:
    """Raises ConfigError where resvg is missing, or finds no font and would leave out all text."""
    if importlib.util.find_spec("resvg_py") is None:
        raise ConfigError("PNG plots need resvg: pip install 'evalkit[png]'")
    if png_of(_EMPTY.format(_TEXT)) == png_of(_EMPTY.format("")):
        raise ConfigError("PNG plots need a font, and this machine has none: install one, e.g. fonts-dejavu-core")


def png_of(svg: str) -> bytes:
    """An SVG drawn on white, two pixels a unit."""
    from resvg_py import svg_to_bytes  # an optional dependency

    content: bytes = svg_to_bytes(
        svg_string=svg, background="#ffffff", zoom=_ZOOM, font_family="sans-serif", sans_serif_family="DejaVu Sans"
    )
    return content
