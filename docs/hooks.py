"""What mkdocs does to pages before it renders them: formulas become MathML, and a package is followed by what it offers."""

import ast
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\n]+)\$", re.DOTALL
)
_PACKAGE = re.compile(r"^::: (jaxmem\.\w+)$", re.MULTILINE)
_ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called with each page."""
    return _PACKAGE.sub(_members, _FORMULA.sub(_drawn, markdown))


def _drawn(match: re.Match[str]) -> str:
    """A formula as browsers draw it by themselves, so that no script is fetched; code is left alone."""
    if match["code"]:
        return match[0]
    block = match["block"] is not None
    return convert(match["block"] or match["inline"], display="block" if block else "inline")


def _members(match: re.Match[str]) -> str:
    """A package, and the names that its `__init__.py` offers, each where it is defined."""
    init = _ROOT / match[1].replace(".", "/") / "__init__.py"
    if not init.is_file():
        return match[0]
    lines = [match[0]]
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{match[1]}."):
            offered = [alias.name for alias in node.names if alias.name == alias.asname]
            lines += [f"\n::: {node.module}.{name}\n    options: {{ heading_level: 4 }}" for name in offered]
    return "\n".join(lines)
