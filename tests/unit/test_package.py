"""What the package says of itself, and that it has all it needs."""

from __future__ import annotations

import re
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests import ROOT
from tests.acceptance.installed import build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    own = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "triggerkit").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert own == files
    assert {"triggerkit/py.typed", "triggerkit/cli/project/starter/triggerkit.toml"} <= own


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = HeaderParser().parsestr(wheel.read(name).decode())
    assert said["License-Expression"] == "Apache-2.0"
    assert said["License-File"] == "LICENSE"
    assert said["Author"]
    assert said["Description-Content-Type"] == "text/markdown"
    assert "# triggerkit" in str(said.get_payload())
    assert {"dev", "openai", "tokens", "otel", "rabbitmq"} <= set(
        said.get_all("Provides-Extra", [])
    )
    assert "Typing :: Typed" in said.get_all("Classifier", [])


def test_llms_txt_lists_every_page() -> None:
    text = (ROOT / "llms.txt").read_text()
    assert text.startswith("# triggerkit\n\n> ")
    listed = set(re.findall(r"\]\(([^)]+)\)", text))
    assert {str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")} <= listed
    assert not [name for name in listed if not (ROOT / name).exists()]


def test_the_lock_for_production_has_nothing_of_development() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted, in_both = (
        {re.split(r"[>;]", line)[0] for line in extras[name]} for name in ("dev", "encryption")
    )
    serve, dev = (
        {line.partition("==")[0] for line in (ROOT / name).read_text().splitlines()}
        for name in ("requirements-serve.lock", "requirements.lock")
    )
    assert wanted <= dev
    # `watchfiles` may come with another package.
    assert wanted & serve == in_both
    assert "openai" in serve


def test_the_license_is_whole() -> None:
    text = Path(ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
