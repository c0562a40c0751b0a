"""The command line's reference, read out of its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from healthgpt.cli import build_parser


def command_line() -> str:
    """Every verb with its flags, as Markdown."""
    return "\n".join(_verbs(build_parser()))


def _verbs(parser: argparse.ArgumentParser) -> Iterator[str]:
    [action] = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    for verb, command in action.choices.items():
        yield f"## {verb}\n\n{_sentence(command.description or helps[verb])}\n"
        inner = [one for one in command._actions if isinstance(one, argparse._SubParsersAction)]
        if inner:
            names = {choice.dest: choice.help or "" for choice in inner[0]._choices_actions}
            yield _table((f"`{verb} {name}`", names.get(name, "")) for name in inner[0].choices)
        for group in command._action_groups:
            flags = [one for one in group._group_actions if _is_shown(one)]
            if flags:
                yield f"**{_sentence(group.title or '').rstrip('.')}**\n"
                yield _table((_names(flag), _about(flag)) for flag in flags)


def _is_shown(action: argparse.Action) -> bool:
    return (
        not isinstance(action, argparse._SubParsersAction | argparse._HelpAction) and action.help != argparse.SUPPRESS
    )


def _names(action: argparse.Action) -> str:
    """A flag as it is typed, with its value where it has a name of its own."""
    value = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar or ""
    if not action.option_strings:
        return f"`{value or action.dest}`"
    return ", ".join(f"`{f'{name} {value}'.strip()}`" for name in action.option_strings)


def _about(action: argparse.Action) -> str:
    """What a flag is for, its choices and its default."""
    said = [(action.help or "").replace("%%", "%").replace("|", "\\|").replace("%(default)s", str(action.default))]
    if action.choices is not None:
        said.append("one of " + ", ".join(f"`{choice}`" for choice in action.choices))
    if action.default not in (None, False, argparse.SUPPRESS, [], ()):
        said.append(f"default `{action.default}`")
    return "; ".join(filter(None, said))


def _table(rows: Iterator[tuple[str, str]]) -> str:
    lines = [f"| {names} | {about} |" for names, about in rows]
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")
