"""The documentation: commands exist, code compiles, links lead somewhere, and no page is left out."""

import re
import shlex
from pathlib import Path

import pytest

import jaxmem
from jaxmem._arguments import parser
from jaxmem.pipeline import load_config
from jaxmem.types import JaxmemError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(path: Path, *kinds: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(path.read_text()) if kind in kinds]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_are_understood(path):
    """Every `jaxmem ...` line of a page is a call that the parser takes."""
    for block in blocks(path, "", "bash"):
        for line in block.splitlines():
            for part in line.split("#")[0].split("&&"):
                words = shlex.split(re.sub(r"\$\w+", "1", part)) if "jaxmem" in part else []
                if words[:1] == ["jaxmem"]:
                    parser().parse_args(words[1:])


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_compiles_and_files_are_settings(path, tmp_path):
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")
    for block in blocks(path, "toml"):
        file = tmp_path / "file.toml"
        file.write_text(block)
        if "[[edit]]" in block:
            from jaxmem.pipeline import read_edits

            assert read_edits(file)
        else:
            load_config(file)


def anchors(path: Path) -> set[str]:
    """Addresses of a page's headings, as they are made on GitHub and by mkdocs."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = BLOCK.sub("", path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, place = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if place:
            included = re.findall(r'--8<-- "(.+)"', file.read_text())
            assert place in anchors(file).union(*(anchors(ROOT / one) for one in included)), target


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"^\s+- (?:\w+: )?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.name != "README.md"}


def test_settings_that_pages_name_are_settings():
    """`section.name` in backticks, unless that is a function."""
    sections = "preprocess|network|midline|grouping|merge|select|ellipse|refine|fit"
    for path in PAGES:
        for section, name in re.findall(rf"`({sections})\.([a-z_]+)`", path.read_text()):
            if not hasattr(getattr(jaxmem, section, None), name):
                with pytest.raises(JaxmemError, match="must be"):  # of the wrong type, but known
                    load_config(None, [f"{section}.{name}=[]"])
