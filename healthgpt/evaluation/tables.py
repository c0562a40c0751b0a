"""Tables as data, and as Markdown, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


def markdown(tables: Sequence[Table]) -> str:
    """Tables in GitHub's Markdown, numbers to the right."""
    lines = []
    for table in tables:
        lines += [f"### {table.title}", ""]
        for row in (table.header, ("---",) + ("---:",) * (len(table.header) - 1), *table.rows):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        lines += ["", *(f"{note}  " for note in table.notes), *([""] if table.notes else [])]
    return "\n".join(lines)


def comma_separated(tables: Sequence[Table]) -> str:
    """Tables one below the other, each with its title in a first column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for table in tables:
        writer.writerow(["table", *table.header])
        writer.writerows([table.title, *row] for row in table.rows)
    return text.getvalue()


def latex(tables: Sequence[Table]) -> str:
    """Tables for the booktabs package."""
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
    return "\n".join(lines)


def html_page(tables: Sequence[Table]) -> str:
    """A page that needs nothing else."""
    body = []
    for table in tables:
        rows = [
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in (("th", table.header), *(("td", row) for row in table.rows))
        ]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
        body.append(f"<h2>{html.escape(table.title)}</h2>\n<table>\n" + "\n".join(rows) + f"\n</table>\n{notes}")
    style = (
        "body{font-family:system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
        "th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #ddd}"
        "th:first-child,td:first-child{text-align:left}"
    )
    head = f'<meta charset="utf-8"><title>Evaluation</title><style>{style}</style>'
    return f"<!doctype html>\n<html>\n<head>{head}</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"


FORMATS: Mapping[str, Callable[[Sequence[Table]], str]] = {
    ".md": markdown,
    ".csv": comma_separated,
    ".tex": latex,
    ".html": html_page,
}
