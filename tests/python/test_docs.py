"""Every code block of the documents runs somewhere, and every link in them leads somewhere.

An HTML comment before a bash or python block says where it runs; a block without one fails here.

    <!-- command: NAME -->         .ci/run runs it, by `run_readme_command NAME`
    <!-- test: run -->             this test runs it, in an empty folder
    <!-- test: run with torch -->  likewise, where that package is installed
    <!-- checked: development -->  needs a build tree: this test checks that the tools and presets it names exist
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RUNNABLE = {"bash", "python"}
OTHER_LANGUAGES = {"cmake", "cpp", "json", "text"}  # sh, shell, console, py: would slip through unrun
HAVE_ENGINE = getattr(importlib.util.find_spec("sepconv._core"), "has_location", False)  # its stubs have none

# What a line of a "checked: development" block may start with, environment variables aside.
DEVELOPMENT_PROGRAMS = {
    "cmake",
    "mypy",
    "pip",
    "python",
    "python3",
    "qemu-aarch64",
    "ruff",
    "sepconv_bench",
    "sepconv_tests",
}


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    mark: str  # "command: classify", or "" where there is none
    text: str

    @property
    def id(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path, content: str) -> Iterator[Block]:
    """Yield the fenced blocks; the mark is the comment on the line before the fence."""
    lines = content.splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = number
            continue
        mark = re.fullmatch(r"\s*<!-- (.+) -->\s*", lines[start - 1]) if start else None
        language = lines[start].strip().removeprefix("```").strip()
        text = "\n".join(lines[start + 1 : number]) + "\n"
        yield Block(document, start + 1, language, mark[1] if mark else "", text)
        start = None
    assert start is None, f"{document.name}:{start}: the fence is not closed"


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document, document.read_text(encoding="utf-8"))]


def problem_of(block: Block) -> str | None:
    """What keeps a block from being run somewhere; None where nothing does."""
    if block.language not in RUNNABLE:
        return None if block.language in OTHER_LANGUAGES else f"{block.language!r} is no language of ours"
    kind, _, name = block.mark.partition(": ")
    if kind == "command":
        ci = ROOT / ".ci" / "run"
        if block.document.name != "README.md" or block.language != "bash":
            return "only bash blocks of README.md are run by .ci/run"
        if ci.is_file() and not re.search(rf"^run_readme_command {re.escape(name)}$", ci.read_text(), re.MULTILINE):
            return f".ci/run does not run {name!r}"
        return None if block.text.count("\n") == 1 else "a command is one line"
    if block.mark == "checked: development" or needs(block) is not None:
        return None
    return f"its mark is {block.mark!r}: nothing runs it"


def needs(block: Block) -> str | None:
    """The package that a block which this test runs needs, "" for none; None for a block that it does not run."""
    mark = re.fullmatch(r"test: run(?: with (\w+))?", block.mark)
    return (mark[1] or "") if mark else None


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.id)
def test_every_block_runs_somewhere(block: Block) -> None:
    assert problem_of(block) is None


def test_a_block_that_nothing_runs_is_noticed() -> None:
    def problem(text: str) -> str | None:
        (block,) = blocks_of(ROOT / "README.md", text)
        return problem_of(block)

    assert problem("<!-- test: run -->\n```python\npass\n```\n") is None
    assert "nothing runs it" in (problem("```bash\ntrue\n```\n") or "")
    assert "nothing runs it" in (problem("<!-- test: later -->\n```python\npass\n```\n") or "")
    assert "no language of ours" in (problem("<!-- test: run -->\n```sh\ntrue\n```\n") or "")
    if (ROOT / ".ci" / "run").is_file():
        assert "does not run 'deploy'" in (problem("<!-- command: deploy -->\n```bash\ntrue\n```\n") or "")


def test_readme_has_its_two_commands() -> None:
    commands = {block.mark: block.text for block in BLOCKS if block.mark.startswith("command: ")}
    assert set(commands) == {"command: classify", "command: test"}
    assert commands["command: classify"].rstrip().endswith("sepconv classify")
    assert commands["command: test"].rstrip().endswith("pytest")


@pytest.mark.skipif(not HAVE_ENGINE, reason="needs the built engine")
@pytest.mark.parametrize("block", [b for b in BLOCKS if needs(b) is not None], ids=lambda block: block.id)
def test_blocks_run(block: Block, tmp_path: Path) -> None:
    package = needs(block)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}, which is not installed")
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-c", block.text]
    if block.language == "bash":
        if "sepconv " in block.text and shutil.which("sepconv", path=path) is None:
            pytest.skip("needs sepconv installed: the command is not on the path")
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.mark == "checked: development"], ids=lambda block: block.id)
def test_development_commands_name_what_exists(block: Block) -> None:
    presets = {p["name"] for p in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]}
    for line in block.text.splitlines():
        words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
        assert Path(words[0]).name in DEVELOPMENT_PROGRAMS, line
        named = re.findall(r"--preset (\S+)", line) + re.findall(r"\bbuild/(\w+)", line)
        assert presets.issuperset(named), line
        for tool in re.findall(r"\btools/\S+", line):
            assert (ROOT / tool).is_file(), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    content = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = document.parent / name if name else document
        assert linked.is_file(), f"{document.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    """Names in backquotes that look like paths of the source."""
    content = document.read_text(encoding="utf-8")
    content = re.sub(r"^```.*?^```$", "", content, flags=re.MULTILINE | re.DOTALL)
    roots = (ROOT, ROOT / "csrc", ROOT / "python" / "sepconv", ROOT / "tests" / "cpp", document.parent)
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", content):
        if "neon" in name or name.startswith("../"):  # add-an-isa.md's example; the test data
            continue
        assert any((root / name).exists() for root in roots), f"{document.name} names {name}"
