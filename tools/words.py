# SPDX-License-Identifier: Apache-2.0
"""Check that the project's prose is plain technical English: `python -m tools.words`.

It reads Markdown pages and, in source files, comments, docstrings and messages. Code and quoted
code are not read. `tool.words.exempt` in `pyproject.toml` lists texts that are quoted from others.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_PROSE: Final = (".md",)
_HASHED: Final = (".toml", ".sh", ".yml", ".yaml", ".ini")


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern to avoid, and what to write in its place."""

    pattern: re.Pattern[str]
    advice: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of prose that begins on `line` of a file; line breaks are kept."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where a rule is broken."""

    path: str
    line: int
    words: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.words!r}: {self.advice}"


def _rule(pattern: str, advice: str, flags: re.RegexFlag = re.IGNORECASE) -> Rule:
    # A space in a pattern also matches a line break.
    return Rule(re.compile(pattern.replace(" ", r"\s+"), flags), advice)


_METAPHOR: Final = "name the package, the layer or the import rule"
_START: Final = r"(?:^|(?<=[.!?:;] )|(?<=[.!?:;]\n)|(?<=\n\n)|(?<=\| )|(?<=\n[-*] ))"
_VERBS: Final = (
    r"(?:is|are|was|were|has|have|had|can|cannot|could|may|must|does|did|do|will|would|goes|went|"
    r"comes|came|stands?|stood|happens?|happened|needs?|needed|lacks?|lacked|fails|failed|"
    r"changes|changed|nobody|no|not|we|it|they|the|Novita|upstream|a|an|this|that|matters|fits)"
)

RULES: Final[Sequence[Rule]] = (
    _rule(r"\bwhoever\b", "name the actor"),
    _rule(r"\bwhosever\b|\bwhosoever\b|\bwhomever\b", "name the actor"),
    _rule(r"\bwhatever\b", "say which cases: 'any', 'every', 'even if'"),
    _rule(r"\bnobody\b|\bno one\b", "name the actor: 'no process', 'no client'"),
    _rule(r"\btold of\b|\btell of\b|\btells of\b", "'reported', 'notified', 'logged'"),
    _rule(r"\banew\b", "'again' or 'from the start'"),
    _rule(r"\bin vain\b", "'without success'"),
    _rule(r"\bof before\b", "'earlier' or 'previous'"),
    _rule(r"\bthere is none such\b|\bnone such\b", "'no such X exists'"),
    _rule(r"\bbefore (?:the reader's|your) eyes\b", "say what is shown"),
    _rule(r"\bthis house\b|\bthe house\b|\bhouse of its own\b|\ba house\b", _METAPHOR),
    _rule(r"\brooms\b|\b(?:the|this|each|every|a|which|one) room\b(?! (?:for|to)\b)", _METAPHOR),
    _rule(r"\bfloors\b|\b(?:each|every|this|which|one) floor\b|\bfloor below\b", _METAPHOR),
    _rule(r"\bwalls?\b(?![- ](?:clock|time))", _METAPHOR),
    # A question may begin so, and a noun phrase that ends at a colon may too.
    Rule(
        re.compile(
            _START + rf"What\s+{_VERBS}\b[^.:?!;|\n]*(?:\n(?!\n)[^.:?!;|\n]*)*[.;]", re.MULTILINE
        ),
        "a clause is the subject: begin with the thing or the actor",
    ),
    Rule(
        re.compile(_START + rf"(?:Who|Whom)\s+{_VERBS}\b[^.:?!;|]*[.;]", re.MULTILINE),
        "a clause is the subject: name the actor",
    ),
)


def check_text(path: str, texts: Iterator[Text] | Sequence[Text]) -> Iterator[Finding]:
    """Find what breaks a rule in pieces of prose."""
    for each in texts:
        for rule in RULES:
            for match in rule.pattern.finditer(each.text):
                line = each.line + each.text.count("\n", 0, match.start())
                words = " ".join(match[0].split())
                shown = words if len(words) <= 60 else f"{words[:57]}..."
                yield Finding(path, line, shown, rule.advice)


def markdown_texts(source: str) -> Iterator[Text]:
    """Read the prose of a Markdown page: no code blocks, no inline code, no link targets."""
    fence = ""
    kept: list[str] = []
    for line in source.split("\n"):
        opening = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            kept.append("")
            if opening and opening[1].startswith(fence):
                fence = ""
        elif opening:
            fence = opening[1]
            kept.append("")
        else:
            kept.append(_without_code(line))
    yield Text(1, "\n".join(kept))


def _without_code(line: str) -> str:
    line = re.sub(r"(`+)(.+?)\1", "`code`", line)
    return re.sub(r"\]\([^)]*\)", "]", line)


def hash_texts(source: str) -> Iterator[Text]:
    """Read the comments of a file whose comments begin with `#`, and the help of a Makefile."""
    for number, line in enumerate(source.split("\n"), 1):
        match = re.search(r"(?:^|\s)#+\s(.*)$", line)
        if match:
            yield Text(number, match[1])


def python_texts(source: str) -> Iterator[Text]:
    """Read comments, docstrings and messages of a Python file.

    A string counts as a message if it has two words or more; names and SQL in capitals have none.
    """
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] == first + len(block):
            block.append(token.string.lstrip("# "))
            continue
        if block:
            yield Text(first, "\n".join(block))
        block, first = [token.string.lstrip("# ")], token.start[0]
    if block:
        yield Text(first, "\n".join(block))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and len(node.value.split()) > 1
        ):
            yield Text(node.lineno, re.sub(r"`[^`\n]+`", "`code`", node.value))


def texts_of(path: Path) -> Iterator[Text]:
    """Read the prose of a file by its kind."""
    source = path.read_text(encoding="utf-8")
    if path.suffix in _PROSE:
        return markdown_texts(source)
    if path.suffix == ".py":
        return python_texts(source)
    return hash_texts(source)


def _is_checked(path: str) -> bool:
    name = Path(path)
    return name.suffix in {*_PROSE, *_HASHED, ".py"} or name.name in {"Makefile", "run"}


def tracked(root: Path) -> list[str]:
    """List the files that git tracks, and new ones that it does not ignore.

    Raises:
        SystemExit: `root` is not a git repository, or git is missing.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit("tools.words: the check of words needs git and a git repository")
    return sorted({one for one in listed.stdout.splitlines() if (root / one).is_file()})


def exempt(root: Path) -> tuple[str, ...]:
    """Read the exempt paths from `tool.words` of `pyproject.toml`; patterns may hold `*`."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return tuple(table.get("tool", {}).get("words", {}).get("exempt", ()))


def check(root: Path, exempt: Sequence[str] = ()) -> list[str]:
    """Check every file that is not exempt; return one line for each finding."""
    return [
        str(one)
        for path in tracked(root)
        if _is_checked(path) and not any(fnmatch(path, pattern) for pattern in exempt)
        for one in check_text(path, texts_of(root / path))
    ]


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    lines = check(ROOT, exempt(ROOT))
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
