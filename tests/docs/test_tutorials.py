"""Every tutorial as it stands: its ```python blocks in one namespace, its ```bash lines through the command line."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from panfpn.cli import main

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in TUTORIALS.glob("*.md")))
def test_runs_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that fails is named with its line in the page."""
    page = TUTORIALS / f"{name}.md"
    text = page.read_text("utf-8")
    if 'engine="openvino"' in text and importlib.util.find_spec("openvino") is None:
        pytest.skip("needs OpenVINO")
    monkeypatch.chdir(tmp_path)
    blocks = list(BLOCK.finditer(text))
    assert blocks
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks:
        language, source = block.groups()
        above = text.count("\n", 0, block.start(2))
        if language == "python":
            exec(compile("\n" * above + source, str(page), "exec"), namespace)
            continue
        for line in source.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "panfpn"
            assert main(arguments) == 0, f"{page}: {line}"
