"""Folders of embedded servers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.embedded.running import remove_relocated


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A state folder that, for root, the server's user cannot reach: pytest's are private."""
    folder = tmp_path / ".triggerkit"
    yield folder
    remove_relocated(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    remove_relocated(folder)
    shutil.rmtree(folder)
