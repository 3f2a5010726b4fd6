# SPDX-License-Identifier: Apache-2.0
"""The check of words finds words to avoid, and accepts code and good English."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.words import ROOT, check, check_text, exempt, markdown_texts, python_texts


def words_of_page(source: str) -> list[str]:
    """Check a Markdown page; return the words that were found."""
    return [one.words for one in check_text("page.md", markdown_texts(source))]


def words_of_module(source: str) -> list[str]:
    """Check a Python file; return the words that were found."""
    return [one.words for one in check_text("module.py", python_texts(source))]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Whoever holds it renews it.", "Whoever"),
        ("It is sent once, whatever happens.", "whatever"),
        ("Nobody is waiting.", "Nobody"),
        ("Receivers are told of it.", "told of"),
        ("The count begins anew.", "anew"),
        ("It was tried in vain.", "in vain"),
        ("Absences of before a call do not count.", "of before"),
        ("It says that there is none\nsuch.", "there is none such"),
        ("Each room imports from the layers below.", "Each room"),
        ("The floors below know nothing of it.", "floors"),
        ("There is a wall between them.", "wall"),
        ("Nothing has left this house.", "this house"),
        ("What is not HTTP gets the envelope too.", "What is not HTTP gets the envelope too."),
        ("It ends. What was stored\nstays there.", "What was stored stays there."),
    ],
)
def test_a_word_to_avoid_is_found(sentence: str, words: str) -> None:
    """Each word to avoid is found in a page, also across a line break."""
    assert words_of_page(f"# Title\n\n{sentence}\n") == [words]


@pytest.mark.parametrize(
    "sentence",
    [
        "What is the marker? A suffix of the name.",
        "The queue has room for more.",
        "It makes room for others.",
        "The wall clock and the wall time differ.",
        "The floor is 0.2 seconds.",
        "The warehouse is not affected.",
        "Use `whatever` and `nobody` as names.",
        "```\nwhoever\n```",
        "[a page](whatever.md)",
    ],
)
def test_good_english_passes(sentence: str) -> None:
    """Questions, code, link targets and other senses of a word are accepted."""
    assert words_of_page(f"# Title\n\n{sentence}\n") == []


def test_python_files_are_read_for_their_prose() -> None:
    """Comments, docstrings and messages are checked; names and single words are not."""
    source = '''"""Do it for whoever asks."""
nobody = 1  # in
# vain
value = "whatever"
raise ValueError(f"there is {nobody} and nobody else")
'''
    assert words_of_module(source) == ["in vain", "whoever", "nobody"]


def test_a_finding_names_its_line() -> None:
    """The line is that of the word, not of the piece of prose."""
    found = list(check_text("page.md", markdown_texts("# T\n\nGood.\nThen\nnobody came.\n")))
    assert [(one.path, one.line) for one in found] == [("page.md", 5)]


def test_an_exempt_file_is_not_checked(tmp_path: Path) -> None:
    """Every tracked file is checked, except those that quote others."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "bad.md").write_text("Nobody.\n")
    (tmp_path / "good.md").write_text("Nothing.\n")
    (tmp_path / "quoted.md").write_text("Nobody.\n")
    assert check(tmp_path, ("quoted.md",)) == [
        "bad.md:1: 'Nobody': name the actor: 'no process', 'no client'"
    ]


def test_few_files_are_exempt() -> None:
    """The quoted API reference, and the checker with this test."""
    assert exempt(ROOT) == (
        "docs/reference/api-reference.md",
        "tools/words.py",
        "tests/tools/test_words.py",
    )
