"""Settings and the project file: where values come from, and errors that name them."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.project import Project
from triggerkit.runs.transport import open as transports
from triggerkit.settings import Settings, running_dev

SECRET = "s" * 24


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.parse({"DATABASE_URL": ""}).database_url is None


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_what_a_secret_made_by_echo_ends_in_is_no_part_of_it(end: str) -> None:
    given = {
        "DATABASE_URL": "postgresql://u:p@h/d",
        "REDIS_URL": "redis://h:6379/0",
        "TRIGGERKIT_SECRET_KEY": SECRET,
        "TRIGGERKIT_PUBLIC_URL": "https://app.example.com",
        "TRIGGERKIT_HEALTH_PORT": "8001",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "KAFKA_SASL_PASSWORD": "hunter2",
    }
    exact = Settings.parse(given)
    settings = Settings.parse({name: f"{value}{end}" for name, value in given.items()})
    assert settings.environment() == exact.environment()
    assert Settings.parse({"DATABASE_URL": end}).database_url is None


def test_a_short_secret_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="TRIGGERKIT_WEBHOOK_SECRET") as raised:
        Settings.parse({"TRIGGERKIT_WEBHOOK_SECRET": f"{SECRET},hunter2"})
    assert "hunter2" not in str(raised.value)


def test_several_secrets_are_for_rotation() -> None:
    settings = Settings.parse({"TRIGGERKIT_WEBHOOK_SECRET": f"{SECRET}, {'t' * 24}"})
    assert settings.webhook_secrets == [SECRET, "t" * 24]


def test_a_missing_setting_is_named_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL is not set.*triggerkit dev"):
        _ = Settings.parse({}).source_dsn
    with pytest.raises(ConfigurationError, match="TRIGGERKIT_WEBHOOK_SECRET"):
        _ = Settings.parse({}).webhook_secrets


@pytest.mark.parametrize(
    ("keep", "seconds"), [("7d", 604_800), ("12h", 43_200), ("1.5 m", 90), ("45s", 45)]
)
def test_how_long_the_log_is_kept(keep: str, seconds: float) -> None:
    settings = Settings.parse({"TRIGGERKIT_LOG_KEEP": keep})
    assert settings.log_keep.total_seconds() == seconds
    assert Settings.parse(settings.environment()) == settings


@pytest.mark.parametrize(
    ("size", "size_bytes"), [("20GB", 20 * 10**9), ("1.5 mb", 1_500_000), ("4096", 4096)]
)
def test_how_large_the_log_becomes(size: str, size_bytes: int) -> None:
    assert Settings.parse({"TRIGGERKIT_LOG_MAX_BYTES": size}).log_max_bytes == size_bytes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRIGGERKIT_LOG_KEEP", "7 weeks"),
        ("TRIGGERKIT_LOG_KEEP", "0d"),
        ("TRIGGERKIT_LOG_KEEP", "999999999999d"),
        ("TRIGGERKIT_RUNS_KEEP", "9999999999999d"),
        ("TRIGGERKIT_RUNS_KEEP", "36501d"),
        ("TRIGGERKIT_RUNS_KEEP", f"{'9' * 400}d"),
        ("TRIGGERKIT_LOG_MAX_BYTES", f"{'9' * 400}GB"),
        ("TRIGGERKIT_LOG_MAX_BYTES", "9999999TB"),
        ("TRIGGERKIT_LOG_MAX_BYTES", "-1GB"),
        ("TRIGGERKIT_LOG_MAX_BYTES", "much"),
        ("TRIGGERKIT_METRICS_TOKEN", "short"),
        ("TRIGGERKIT_SECRET_KEY", "short"),
    ],
)
def test_a_limit_that_is_not_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.parse({name: value})


def test_secrets_print_as_stars() -> None:
    settings = Settings.parse({"DATABASE_URL": "postgresql://u:hunter2@h/d"})
    assert "hunter2" not in repr(settings)


def test_the_environment_of_a_child_holds_what_was_read() -> None:
    given = {"DATABASE_URL": "postgresql://h/d", "TRIGGERKIT_PORT": "1234"}
    environment = Settings.parse(given).environment()
    assert environment.items() >= given.items()
    assert Settings.parse(environment) == Settings.parse(given)


def test_a_wrong_port_is_named() -> None:
    with pytest.raises(ConfigurationError, match="TRIGGERKIT_PORT"):
        Settings.parse({"TRIGGERKIT_PORT": "http"})


def test_dotenv_wins_over_a_running_dev_and_the_environment_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".triggerkit").mkdir()
    state = {
        "pid": os.getpid(),
        "env": {"DATABASE_URL": "postgresql://dev", "REDIS_URL": "redis://dev"},
    }
    (tmp_path / ".triggerkit" / "dev.json").write_bytes(orjson.dumps(state))
    (tmp_path / ".env").write_text("REDIS_URL=dotenv\nTRIGGERKIT_HOST=dotenv\n")
    monkeypatch.setenv("TRIGGERKIT_HOST", "environment")
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings.load(tmp_path)
    assert settings.source_dsn == "postgresql://dev"
    assert settings.broker_dsn == "dotenv"
    assert settings.triggerkit_host == "environment"


@pytest.mark.parametrize("url", ["redis://host", "kafka://u:pass-word@h", "amqp://h;http://h"])
def test_a_broker_url_of_another_kind_is_named_and_not_shown(url: str) -> None:
    settings = Settings.parse({"TRIGGERKIT_BROKER_URL": url})
    with pytest.raises(ConfigurationError, match="TRIGGERKIT_BROKER_URL") as raised:
        _ = settings.rabbitmq_dsn
    assert "pass-word" not in str(raised.value)


def test_rabbitmq_is_used_where_its_url_is_set() -> None:
    assert Settings.parse({}).rabbitmq_dsn is None
    url = "amqps://one;amqp://two"
    assert Settings.parse({"TRIGGERKIT_BROKER_URL": url}).rabbitmq_dsn == url


def test_without_its_client_rabbitmq_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transports, "find_spec", lambda name: None)
    settings = Settings.parse({"TRIGGERKIT_BROKER_URL": "amqp://host"})
    for open_one in (transports.open_transport, transports.open_async_transport):
        with pytest.raises(ConfigurationError, match=r"pip install 'triggerkit\[rabbitmq\]'"):
            open_one(settings, "installation")


def test_the_state_of_a_dev_that_is_gone_is_not_used(tmp_path: Path) -> None:
    (tmp_path / ".triggerkit").mkdir()
    (tmp_path / ".triggerkit" / "dev.json").write_bytes(orjson.dumps({"pid": 2**22 + 1}))
    assert running_dev(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("taks = []", "taks"),
        ("tasks = 'x'", "tasks"),
        ("app = 1", "app"),
        ("app = ", "Invalid value"),
    ],
)
def test_a_wrong_project_file_is_explained(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "triggerkit.toml").write_text(content)
    with pytest.raises(ConfigurationError, match=problem):
        Project.load(tmp_path)


def test_a_project_without_a_file_has_its_tasks_in_tasks(tmp_path: Path) -> None:
    assert Project.load(tmp_path).tasks == ("tasks",)


def test_a_log_on_kafka_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"TRIGGERKIT_LOG: .* not offered"):
        Settings.parse({"TRIGGERKIT_LOG": "kafka"})
    assert Settings.parse({"TRIGGERKIT_LOG": "postgres"}).triggerkit_log == "postgres"
