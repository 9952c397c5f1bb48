"""What the documentation says of the code is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from crane import config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def sources(*suffixes: str) -> str:
    """All sources, with strings that were broken for the line's length joined again."""
    paths = [
        path
        for folder in ("crates", "src", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and path != Path(__file__)
    ]
    text = "\n".join(path.read_text(errors="replace") for path in paths)
    text = re.sub(r"\\\n\s*", "", text)
    return re.sub(r'"\n\s*f?"', "", text)


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading}"
    return found[1]


def test_the_tests_that_show_a_promise_exist() -> None:
    code = sources(".rs", ".py")
    named = re.findall(r"`([a-z0-9_]{12,})`", section("determinism.md", "Guaranteed"))
    assert len(named) > 20
    assert [name for name in named if not re.search(rf"\b(fn|def) {name}\(", code)] == []


def test_determinism_has_three_lists() -> None:
    text = (ROOT / "docs" / "determinism.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Guaranteed", "Assumed", "Refused"]


def test_the_messages_of_refusals_are_in_the_sources() -> None:
    code = sources(".rs", ".py")
    rows = [
        line.strip("|").split("|")[-1].strip()
        for line in section("determinism.md", "Refused").splitlines()
        if line.startswith("|") and "`" in line.split("|")[-2]
    ]
    messages = [match for row in rows for match in re.findall(r"``?(.+?)``?(?!`)", row)]
    assert len(messages) > 15
    assert [one for one in messages if one not in code] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [one for one in targets if not one.startswith("https://")]
    assert [one for one in local if not (page.parent / one).exists()] == []


def toml_blocks() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "operating.md").read_text(), re.DOTALL)


def test_the_example_files_are_valid() -> None:
    blocks = [tomllib.loads(block) for block in toml_blocks()]
    nodes = [one for one in blocks if "cluster_id" in one]
    assert nodes
    for one in blocks:
        if one in nodes:
            config.check_node(msgspec.convert(one, config.NodeConfig), "operating.md")
        else:
            msgspec.convert(one, config.ClusterFile)


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    fields = {*config.NodeConfig.__struct_fields__, *config.ClusterFile.__struct_fields__}
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []
