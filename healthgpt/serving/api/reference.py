"""The API's reference as a page of plain HTML, made of its OpenAPI schema: it loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: light-dark(#0b5f6b, #7fd4df); }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 2rem 1rem 5rem; }
h1 { line-height: 1.2; } h2 { margin: 3rem 0 .5rem; font-size: 1.15rem; border-top: 1px solid var(--line);
padding-top: 1.2rem; } code, pre { font: 0.875em/1.5 ui-monospace, monospace; } pre { overflow-x: auto; padding: 1rem;
border: 1px solid var(--line); border-radius: .5rem; } b.method { color: var(--accent); margin-right: .5rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); } .wide { overflow-x: auto; }
a { color: var(--accent); }
"""


def reference_page(schema: Mapping[str, Any]) -> str:
    """The whole page."""
    info = schema["info"]
    parts = [f"<h1>{escape(info['title'])}</h1>", f"<p>{escape(info['description'])}</p>"]
    parts.append('<p>As a schema: <a href="openapi.json">openapi.json</a>. Example:</p>')
    parts.append(f"<pre>{escape(_EXAMPLE)}</pre>")
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts += _operation(schema, path, method, operation)
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )


_EXAMPLE = """\
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
reply = client.chat.completions.create(
    model="nano",
    messages=[{"role": "user", "content": "Which imaging modality is good for soft tissue?"}],
)
print(reply.choices[0].message.content)"""


def _operation(schema: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h2><b class="method">{method.upper()}</b><code>{escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p><code>{escape(kind)}</code></p>"
        yield _fields(schema, content["schema"])
    replies = ", ".join(
        f"<code>{escape(status)}</code> {escape(reply['description'])}"
        for status, reply in operation["responses"].items()
    )
    yield f"<p>Replies: {replies}</p>"


def _fields(schema: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    body = _resolved(schema, body)
    required = body.get("required", ())
    rows = [
        f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}</td><td>{escape(_type(schema, field))}"
        f"</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in body.get("properties", {}).items()
    ]
    head = "<tr><th>field (* required)</th><th>type</th><th></th></tr>"
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _resolved(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in value:
        return schema["components"]["schemas"][value["$ref"].rpartition("/")[2]]
    return value


def _type(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    """A type in words, with its bounds."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    for way in ("anyOf", "oneOf"):
        if way in field:
            return " or ".join(_type(schema, one) for one in field[way] if one.get("type") != "null")
    if "enum" in field or "const" in field:
        return " or ".join(map(repr, field.get("enum", [field.get("const")])))
    if field.get("type") == "array":
        return f"list of {_type(schema, field.get('items', {}))}"
    least = field.get("minimum", field.get("exclusiveMinimum"))
    most = field.get("maximum")
    bounds = f" {least} to {most}" if least is not None and most is not None else ""
    return f"{field.get('type', 'anything')}{bounds}"
