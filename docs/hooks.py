"""What mkdocs does besides: lists of what exists, so that no page forgets one.

The page of decisions lists the notes beside it; the reference's first page lists every public name of `panfpn`, each
with a link to where it is documented (a name without documentation is a broken link, which --strict refuses).
"""

import inspect
from pathlib import Path
from typing import Any

import panfpn


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with the text of every page."""
    if page.file.src_uri == "decisions/index.md":
        return markdown + decisions(Path(page.file.abs_src_path).parent)
    if page.file.src_uri == "reference/index.md":
        return markdown.replace("<!-- public names -->", public_names())
    return markdown


def decisions(folder: Path) -> str:
    """A list of the notes by their titles."""
    notes = sorted(folder.glob("0*.md"))
    titles = [note.read_text("utf-8").splitlines()[0].lstrip("# ") for note in notes]
    return "".join(f"- [{title}]({note.name})\n" for title, note in zip(titles, notes, strict=True))


def public_names() -> str:
    """A table: name, first sentence of its documentation."""
    rows = ["| `panfpn.` | |", "|---|---|"]
    for name in sorted(panfpn.__all__):
        thing = getattr(panfpn, name)
        home = thing.__name__ if inspect.ismodule(thing) else f"{thing.__module__}.{thing.__qualname__}"
        rows.append(f"| [`{name}`][{home}] | {(inspect.getdoc(thing) or '').splitlines()[0]} |")
    return "\n".join(rows)
