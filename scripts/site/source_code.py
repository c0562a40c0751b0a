"""Code on the pages, read out of the package when the site is built."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def code(path: str, name: str) -> str:
    """A function, class, method or constant of a file, as a fenced block under the file's name.

    Args:
        name: such as `HLoraLinear.delta`.

    Raises:
        LookupError: the file has none of that name.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    body: list[ast.stmt] = ast.parse(text).body
    for part in name.split("."):
        named = [node for node in body if part in _names(node)]
        if not named:
            raise LookupError(f"{path} has no {name}")
        node = named[-1]  # of overloads the last
        body = getattr(node, "body", [])
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
    return f'```python title="{path}"\n{textwrap.dedent(chr(10).join(lines))}\n```'


def _names(node: ast.stmt) -> list[str]:
    """What a statement gives a name to."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
