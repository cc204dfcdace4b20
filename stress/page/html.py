"""HTML whose text is escaped unless it is marked as HTML already: nothing logged can become a tag."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"br", "col", "meta"})
"""Elements that have no end tag."""


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def printable(text: str) -> str:
    """Show invisible characters, and those that change the direction of text, as escapes; keep line ends."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def shortened(text: str, limit: int) -> str:
    """Return a text, cut at the limit, with the number of characters that are left out."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def html(content: object) -> Html:
    """Return HTML that shows a text; HTML is returned unchanged."""
    return content if isinstance(content, Html) else Html(escape(printable(str(content))))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Return the parts one after the other."""
    return Html(html(between).join(map(html, parts)))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """Return an element. `class_` means `class`, `text_anchor` means `text-anchor`; `None` leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html(_number(value) if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{join(content)}</{name}>")


def _number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def section(title: str, *content: object) -> Html:
    """Return a section with its heading."""
    return tag("section", tag("h2", title), *content)


def table(headings: Iterable[object], rows: Iterable[Iterable[object]], class_: str | None = None) -> Html:
    """Return a table; a row of cells that are elements already is used unchanged."""
    head = tag("thead", tag("tr", *(tag("th", heading, scope="col") for heading in headings)))
    body = (tag("tr", *(cell if _is_cell(cell) else tag("td", cell) for cell in row)) for row in rows)
    return tag("div", tag("table", head, tag("tbody", *body), class_=class_), class_="wide")


def _is_cell(content: object) -> bool:
    return isinstance(content, Html) and content.startswith(("<td", "<th"))
