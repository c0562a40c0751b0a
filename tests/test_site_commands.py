"""Every command in the documentation is one, and those that can run on any machine do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs_blocks import PAGES, ROOT, Block, blocks_of, words_of
from docs_sandbox import write_sandbox

from healthgpt.cli import build_parser, main

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [page for page in PAGES if any(list(block.chosen()) for block in blocks_of(page))]
LIMIT = 180  # seconds of a command


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_block_says_whether_it_is_run(block: Block) -> None:
    assert block.is_marked, (
        f"{block.where}: put <!-- run --> or <!-- not run: why --> in front of it (tests/docs_blocks.py)"
    )


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_command_of_ours_has_these_flags(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """Parsed, whether it is run or not; for Python, that it is Python."""
    if block.language == "python":
        compile(block.commands[0], block.where, "exec")
        return
    for command in block.commands:
        words = words_of(command)
        if words[:1] != ["healthgpt"] or "..." in words:
            continue
        try:
            flags, rest = build_parser().parse_known_args(words[1:])
        except SystemExit:
            pytest.fail(f"{block.where}: {command}\n{capsys.readouterr().err}")
        assert not rest or getattr(flags, "takes_rest", False), f"{block.where}: unknown {rest} in {command}"


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A folder per page, so that none depends on another's."""
    return write_sandbox(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_commands_run(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chosen commands of a page, in their order, in a folder that has what they name."""
    monkeypatch.chdir(sandbox)
    monkeypatch.setenv("PATH", f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for block in blocks_of(page):
        for command in block.chosen():
            if block.language == "python":
                exec(compile(command, block.where, "exec"), {"__name__": "__main__"})
            elif words_of(command)[0] == "healthgpt" and not set("|&;<>$*") & set(command):
                assert main(words_of(command)[1:]) == 0, f"{block.where}: {command}"
            else:
                run(command, block.where, sandbox)


def run(command: str, where: str, folder: Path) -> None:
    """A command in a shell of its own."""
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout}\n{done.stderr}"


def test_python_is_this_one() -> None:
    """Commands named `python` are those of the environment that the tests run in."""
    assert Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
