"""Which rows are of Python projects: what a row says of its language, else its log parser, else the files that its patches touch."""

import functools
import os
import re
from typing import Any

from swerun.errors import Fatal

PYTHON = (".py", ".pyx", ".pxd", ".pxi", ".pyi", ".ipynb")
OTHERS = {"JavaScript": (".js", ".jsx", ".mjs", ".cjs", ".vue"), "TypeScript": (".ts", ".tsx"), "Java": (".java",), "Go": (".go",), "Rust": (".rs",),
          "Ruby": (".rb",), "PHP": (".php",), "C": (".c", ".h"), "C++": (".cc", ".cpp", ".cxx", ".hpp"), "C#": (".cs",), "Kotlin": (".kt",),
          "Swift": (".swift",), "Scala": (".scala",)}


class Foreign(Fatal):
    """A row of another language; `language` is its name."""

    def __init__(self, language: str):
        self.language = language
        super().__init__(f"it is {language}, and this toolkit runs Python projects")


def check(row: dict[str, Any]) -> None:
    """Raises Foreign for a row of another language, Fatal for a log parser that nobody has."""
    said = next((row[name] for name in ("language", "repo_language") if isinstance(row.get(name), str) and row[name]), "")
    if said and said.lower() not in ("python", "py", "python3", "cython"):
        raise Foreign(said)
    parser = row.get("log_parser") or ""
    if parser:
        known = parsers()
        if parser not in known:
            raise Fatal(f"no log parser '{parser}' in the official package")
        if known[parser] != "python":
            raise Foreign(known[parser].title().replace("Javascript", "JavaScript"))
    if said or parser or (row.get("install_config") or {}).get("python"):
        return
    names = re.findall(r'^(?:diff --git "?a/.* "?b/|\+\+\+ b/)(.*?)"?(?:\t.*)?$', f"{row['patch']}\n{row['test_patch']}", re.M)
    endings = [os.path.splitext(name)[1].lower() for name in names]
    if not any(ending in PYTHON for ending in endings):
        found = next((language for ending in endings for language, those in OTHERS.items() if ending in those), None)
        if found:
            raise Foreign(found)


@functools.cache
def parsers() -> dict[str, str]:
    """Each official log parser, and the language that it is of: python, javascript, …"""
    from swerun import verdicts  # the official package, for rows that name a parser

    return verdicts.parser_languages()
