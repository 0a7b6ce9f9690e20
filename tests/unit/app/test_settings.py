"""Where the reference app finds its settings."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from app.search import main
from app.settings import Settings, load_settings
from triggerkit.errors import CannotConnect, ConfigurationError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and none of the settings in the environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_running_dev(folder: Path, pid: int) -> None:
    env = {
        "DATABASE_URL": "postgresql://dev/db",
        "OPENAI_API_KEY": "local",
        "OPENAI_BASE_URL": "http://127.0.0.1:9000/v1",
        "EMBEDDING_MODEL": "wordllama",
        "EMBEDDING_DIMENSIONS": "256",
    }
    (folder / ".triggerkit").mkdir()
    (folder / ".triggerkit" / "dev.json").write_bytes(orjson.dumps({"pid": pid, "env": env}))


def test_what_is_unset_is_taken_from_a_running_dev(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_running_dev(folder, os.getpid())
    (folder / ".env").write_text("EMBEDDING_MODEL=from-file\nOPENAI_API_KEY=from-file\n")
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    settings = load_settings()
    assert settings.database_url == "postgresql://dev/db"
    assert settings.embedding_dimensions == 256
    assert settings.embedding_model == "from-file"
    assert settings.openai_api_key.get_secret_value() == "from-environment"


def test_the_defaults_are_openais_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://server/db")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("EMBEDDING_MODEL", "")
    settings = load_settings()
    assert settings.embedding_model == "text-embedding-3-small"
    assert settings.embedding_dimensions == 1536
    assert settings.openai_base_url is None


def test_a_key_alone_that_is_missing_is_told_with_what_brings_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://server/db")
    with pytest.raises(CannotConnect) as told:
        load_settings()
    assert str(told.value).startswith("OPENAI_API_KEY not set: up to Python 3.13 `triggerkit dev`")


def test_without_servers_the_command_says_how_to_get_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CannotConnect):
        load_settings()
    assert main(["anything"]) == 4
    assert "DATABASE_URL and OPENAI_API_KEY not set: start `triggerkit dev`" in (
        capsys.readouterr().err
    )


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://server/db")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("EMBEDDING_DIMENSIONS", "many")
    with pytest.raises(ConfigurationError, match="EMBEDDING_DIMENSIONS"):
        load_settings()


def test_settings_print_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@server/db")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "hunter2" not in repr(load_settings())
    assert "sk-secret" not in repr(load_settings())
