"""Tables as data, and as Markdown, CSV, LaTeX and HTML, with the figures that belong to them."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        notes: lines below it.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Illustration:
    """A figure in a file.

    Attributes:
        path: from where the tables are written, with forward slashes.
        caption: a line below it.
    """

    title: str
    path: str
    caption: str


def markdown(tables: Sequence[Table], illustrations: Sequence[Illustration] = ()) -> str:
    """Tables in GitHub's Markdown, numbers to the right, then figures."""
    lines = []
    for table in tables:
        lines += [f"### {table.title}", ""]
        for row in (table.header, ("---",) + ("---:",) * (len(table.header) - 1), *table.rows):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        lines += ["", *(f"{note}  " for note in table.notes), *([""] if table.notes else [])]
    for one in illustrations:
        lines += [f"### {one.title}", "", f"![{one.title}](<{one.path}>)", "", one.caption, ""]
    return "\n".join(lines)


def comma_separated(tables: Sequence[Table], illustrations: Sequence[Illustration] = ()) -> str:
    """Tables one below the other, each with its title in a first column; it has no figures."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for table in tables:
        writer.writerow(["table", *table.header])
        writer.writerows([table.title, *row] for row in table.rows)
    return text.getvalue()


def latex(tables: Sequence[Table], illustrations: Sequence[Illustration] = ()) -> str:
    """Tables for the booktabs package, and figures for graphicx."""
    lines = []
    for table in tables:
        lines += [r"\begin{table}", rf"\caption{{{table.title.translate(_LATEX)}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule"]
        for i, row in enumerate((table.header, *table.rows)):
            lines.append(" & ".join(cell.translate(_LATEX) for cell in row) + r" \\")
            lines += [] if i else [r"\midrule"]
        lines += [
            r"\bottomrule",
            r"\end{tabular}",
            *(note.translate(_LATEX) for note in table.notes),
            r"\end{table}",
            "",
        ]
    for one in illustrations:
        lines += [
            r"\begin{figure}",
            rf"\includegraphics[width=\linewidth]{{{one.path}}}",
            rf"\caption{{{one.title.translate(_LATEX)}. {one.caption.translate(_LATEX)}}}",
            r"\end{figure}",
            "",
        ]
    return "\n".join(lines)


def html_page(tables: Sequence[Table], illustrations: Sequence[Illustration] = ()) -> str:
    """A page that needs nothing but its figures."""
    body = []
    for table in tables:
        rows = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in (("th", table.header), *(("td", row) for row in table.rows))
        ]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
        body.append(f"<h2>{html.escape(table.title)}</h2>\n<table>\n" + "\n".join(rows) + f"\n</table>\n{notes}")
    for one in illustrations:
        source, title, caption = html.escape(quote(one.path)), html.escape(one.title), html.escape(one.caption)
        image = f'<img src="{source}" alt="{title}" loading="lazy">'
        body.append(f"<h2>{title}</h2>\n<figure>{image}<figcaption>{caption}</figcaption></figure>")
    style = (
        "body{font-family:system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
        "th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #ddd}"
        "th:first-child,td:first-child{text-align:left}"
        "figure{margin:0;max-width:60rem}img{max-width:100%}figcaption{color:#555}"
    )
    head = f'<meta charset="utf-8"><title>Evaluation</title><style>{style}</style>'
    return f"<!doctype html>\n<html>\n<head>{head}</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"


FORMATS: Mapping[str, Callable[[Sequence[Table], Sequence[Illustration]], str]] = {
    ".md": markdown,
    ".csv": comma_separated,
    ".tex": latex,
    ".html": html_page,
}
