"""Files that people write are read in the encodings that their editors save."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from app.settings import load_settings
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project
from triggerkit.settings import Settings

TOML = 'tasks = ["größe"]\r\napp = "app.main:app"\r\n'
DOTENV = "EMBEDDING_MODEL=größe\r\nOPENAI_BASE_URL=\r\nOPENAI_API_KEY=key\r\n"

SAVED = {
    "UTF-8": ("utf-8", b""),
    "UTF-8 with a mark": ("utf-8", codecs.BOM_UTF8),
    "UTF-16, little end first": ("utf-16-le", codecs.BOM_UTF16_LE),
    "UTF-16, big end first": ("utf-16-be", codecs.BOM_UTF16_BE),
    "UTF-32": ("utf-32-le", codecs.BOM_UTF32_LE),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EMBEDDING_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ends", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize(("encoding", "mark"), SAVED.values(), ids=SAVED.keys())
def test_a_project_file_is_read_whatever_saved_it(
    folder: Path, encoding: str, mark: bytes, ends: str
) -> None:
    content = TOML.replace("\r\n", ends).encode(encoding)
    (folder / "triggerkit.toml").write_bytes(mark + content)
    project = Project.load(folder)
    assert (project.tasks, project.app) == (("größe",), "app.main:app")


@pytest.mark.parametrize(("encoding", "mark"), SAVED.values(), ids=SAVED.keys())
def test_settings_are_read_whatever_saved_them_by_the_reference_app_too(
    folder: Path, encoding: str, mark: bytes
) -> None:
    text = DOTENV + "DATABASE_URL=postgresql://a@b/c\r\n"
    (folder / ".env").write_bytes(mark + text.encode(encoding))
    ours, its = Settings.load(folder), load_settings()
    assert ours.embedding_model == its.embedding_model == "größe"
    assert ours.openai_base_url is its.openai_base_url is None


@pytest.mark.parametrize("name", [".env", "triggerkit.toml"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_another_encoding_is_one_clear_error(folder: Path, name: str, encoding: str) -> None:
    (folder / name).write_bytes(f"\nA='{chr(228)}'\n".encode(encoding))
    load = Settings.load if name == ".env" else Project.load
    with pytest.raises(ConfigurationError, match=f"{name}.*save it as UTF-8") as raised:
        load(folder)
    if encoding == "latin-1":
        assert "line 2" in str(raised.value)


def test_a_folder_named_as_the_file_of_settings_is_none(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert Settings.load(folder).embedding_model == "text-embedding-3-small"
