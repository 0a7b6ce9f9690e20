"""Settings: read once by a command, then passed down.

A value comes from the environment, else from `.env`, else from a `triggerkit dev` that runs in
the same folder (its `.triggerkit/dev.json`), else it has the default given here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Self

import orjson
from dotenv import dotenv_values
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    ValidationError,
    field_validator,
)

from triggerkit.configuration.addresses import (
    bare_host,
    host_in_url,
    http_problem,
    is_service_link,
    read_database_url,
    read_server_url,
)
from triggerkit.configuration.log_settings import LogSettings
from triggerkit.configuration.process_settings import ProcessSettings
from triggerkit.configuration.quantities import SECONDS
from triggerkit.configuration.secret_text import key_bytes, split_secrets
from triggerkit.errors import ConfigurationError
from triggerkit.signature import read_secret
from triggerkit.textfile import read_text

#: Where `dev` keeps its servers' data, secrets and its own state, beside `triggerkit.toml`.
STATE_DIR = ".triggerkit"

#: Bearer secrets shorter than this are refused: an empty or guessable one opens the door.
MIN_SECRET_CHARS = 24

#: An encryption key is the base64 of this many bytes.
ENCRYPTION_KEY_BYTES = 32

#: The longest that can be kept: a hundred years, which Postgres can take from any date.
LONGEST_KEPT_S = 36_500 * 86_400

#: What the settings of Kafka's client begin with: a property's name follows, as `SASL_USERNAME`.
KAFKA = "KAFKA_"


class Settings(ProcessSettings, LogSettings):
    """Every setting, named as in the environment but in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr | None = None
    triggerkit_state_url: SecretStr | None = None
    triggerkit_standby_url: SecretStr | None = None
    triggerkit_publication: str | None = Field(default=None, max_length=63)
    triggerkit_slot: str | None = Field(default=None, pattern="^[a-z0-9_]{1,63}$")
    redis_url: SecretStr | None = None
    triggerkit_webhook_secret: SecretStr | None = None
    triggerkit_webhook_signing_secret: SecretStr | None = None
    triggerkit_secret_key: SecretStr | None = None
    triggerkit_read_key: SecretStr | None = None
    triggerkit_hide_values: bool = False
    triggerkit_encryption_key: SecretStr | None = None
    triggerkit_public_url: str | None = None
    triggerkit_host: str = "127.0.0.1"
    triggerkit_port: int = Field(default=8000, ge=0, le=65535)
    triggerkit_allow_networks: str = ""
    triggerkit_log_keep: str = "7d"
    triggerkit_runs_keep: str = "7d"
    triggerkit_pool_size: int = Field(default=8, ge=1, le=100)
    triggerkit_broker_url: SecretStr | None = None
    triggerkit_metrics_token: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    embedding_model: str = "text-embedding-3-small"
    embedding_dimensions: int = Field(default=1536, ge=1, le=16000)
    embedding_requests: int = Field(default=8, ge=1, le=1000)
    kafka_bootstrap_servers: str | None = None
    kafka_security_protocol: str | None = None
    kafka_ssl_ca_location: str | None = None
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_compression_type: str = "none"
    #: Other properties of Kafka's client, by their names in the environment.
    _kafka_others: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @field_validator("triggerkit_webhook_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in split_secrets(value):
            if len(secret) < MIN_SECRET_CHARS:
                raise ValueError(
                    f"each secret needs at least {MIN_SECRET_CHARS} characters; "
                    "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                )
        return value

    @field_validator("triggerkit_webhook_signing_secret", "triggerkit_alerts_secret")
    @classmethod
    def _signing(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in split_secrets(value):
            try:
                read_secret(secret)
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("triggerkit_encryption_key")
    @classmethod
    def _right_size(cls, value: SecretStr | None) -> SecretStr | None:
        for key in split_secrets(value):
            if len(key_bytes(key)) != ENCRYPTION_KEY_BYTES:
                raise ValueError(
                    f"each key is the base64 of {ENCRYPTION_KEY_BYTES} bytes; make one with: "
                    "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                )
        return value

    @field_validator("triggerkit_host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return bare_host(value)

    @field_validator("triggerkit_log_keep", "triggerkit_runs_keep")
    @classmethod
    def _duration(cls, value: str) -> str:
        if SECONDS.read(value) > LONGEST_KEPT_S:
            raise ValueError(f"it is too long; the longest is {LONGEST_KEPT_S // 86_400}d")
        return value

    @field_validator("triggerkit_public_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and (problem := http_problem(value)):
            raise ValueError(f"it cannot be read: {problem}; it looks like https://app.example.com")
        return value

    @field_validator("triggerkit_metrics_token", "triggerkit_secret_key", "triggerkit_read_key")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(f"it needs at least {MIN_SECRET_CHARS} characters")
        return value

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Read the settings for the project in `folder`, the working directory by default.

        Raises:
            ConfigurationError: a setting has a wrong value; the message names it.
        """
        folder = folder or Path.cwd()
        return cls.parse({**running_environment(folder), **own_environment(folder)})

    @classmethod
    def parse(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from `environment` alone; an empty value counts as unset, and what
        secrets made by `echo` end in is no part of them."""
        known = {name: environment.get(name.upper(), "").strip() for name in cls.model_fields}
        for name in ("triggerkit_port", "triggerkit_health_port"):
            if is_service_link(known[name]):
                known[name] = ""
        try:
            settings = cls.model_validate({name: v for name, v in known.items() if v})
        except ValidationError as error:
            lines = [
                f"{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            raise ConfigurationError("; ".join(lines)) from None
        settings._kafka_others.update(
            (name, SecretStr(value.strip()))
            for name, value in environment.items()
            if name.startswith(KAFKA) and name.lower() not in cls.model_fields and value
        )
        return settings

    def environment(self) -> dict[str, str]:
        """Return the settings as environment variables for a child process, secrets in the
        clear."""
        values: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            if value is not None:
                values[name.upper()] = str(value)
        for name, secret in self._kafka_others.items():
            values[name] = secret.get_secret_value()
        return values

    @property
    def kafka(self) -> dict[str, SecretStr]:
        """The settings of Kafka's client, by their names in the environment; empty without
        bootstrap servers."""
        if self.kafka_bootstrap_servers is None:
            return {}
        own = self.environment().items()
        return {name: SecretStr(value) for name, value in own if name.startswith(KAFKA)}

    @property
    def source_dsn(self) -> str:
        """Connection string of the source database."""
        url = self._required("database_url", "postgresql://user@host/database")
        read_database_url(url, "DATABASE_URL")
        return url

    @property
    def state_dsn(self) -> str:
        """Connection string of the database that holds the schema `triggerkit`."""
        if self.triggerkit_state_url is None:
            return self.source_dsn
        url = self.triggerkit_state_url.get_secret_value()
        read_database_url(url, "TRIGGERKIT_STATE_URL")
        return url

    @property
    def slot_dsn(self) -> str:
        """Connection string of the server that has the slot: a standby of the source's, if set."""
        if self.triggerkit_standby_url is None:
            return self.source_dsn
        url = self.triggerkit_standby_url.get_secret_value()
        read_database_url(url, "TRIGGERKIT_STANDBY_URL")
        return url

    @property
    def broker_dsn(self) -> str:
        """Connection string of Redis."""
        return self._required("redis_url", "redis://host:6379/0")

    @property
    def rabbitmq_dsn(self) -> str | None:
        """Connection string of RabbitMQ, None where Redis carries the runs.

        Raises:
            ConfigurationError: TRIGGERKIT_BROKER_URL leads to something else.
        """
        if self.triggerkit_broker_url is None:
            return None
        url = self.triggerkit_broker_url.get_secret_value()
        example = "amqp://user:password@host:5672/%2F, and for Redis there is REDIS_URL"
        for node in url.split(";"):
            read_server_url(node, "TRIGGERKIT_BROKER_URL", ("amqp", "amqps"), example)
        return url

    @property
    def webhook_secrets(self) -> list[str]:
        """The bearer secrets the webhook routes accept; the first one is what we send.

        Raises:
            ConfigurationError: none is set.
        """
        self._required("triggerkit_webhook_secret", "a secret of 24 characters or more")
        return split_secrets(self.triggerkit_webhook_secret)

    @property
    def webhook_signing_secrets(self) -> list[str]:
        """The secrets whose signatures the webhook routes accept, and that sign what we send them.

        Empty when none is set.
        """
        return split_secrets(self.triggerkit_webhook_signing_secret)

    @property
    def encryption_keys(self) -> list[SecretBytes]:
        """The keys of what is encrypted at rest; the first one encrypts. Empty when none is set."""
        return [
            SecretBytes(key_bytes(key)) for key in split_secrets(self.triggerkit_encryption_key)
        ]

    @property
    def log_keep(self) -> timedelta:
        """Return the time that the log keeps what all consumers are past."""
        return timedelta(seconds=SECONDS.read(self.triggerkit_log_keep))

    @property
    def runs_keep(self) -> timedelta:
        """Return the time that finished runs are kept."""
        return timedelta(seconds=SECONDS.read(self.triggerkit_runs_keep))

    @property
    def public_url(self) -> str:
        """Base URL under which `serve` is reached by deliveries to our own routes."""
        if self.triggerkit_public_url:
            return self.triggerkit_public_url.rstrip("/")
        return f"http://{host_in_url(self.triggerkit_host)}:{self.triggerkit_port}"

    def _required(self, name: str, example: str) -> str:
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise ConfigurationError(
                f"{name.upper()} is not set; set it in the environment or in .env "
                f"(for example {example}), or start `triggerkit dev`, which brings its own"
            )
        return value.get_secret_value()


def own_environment(folder: Path) -> dict[str, str]:
    """`.env` and over it the environment; an empty value counts as unset and hides nothing."""
    file = folder / ".env"
    text = read_text(file) if file.is_file() else ""
    written = dotenv_values(stream=StringIO(text))
    dotenv = {name: value for name, value in written.items() if value}
    return {**dotenv, **{name: value for name, value in os.environ.items() if value}}


def running_environment(folder: Path) -> dict[str, str]:
    """Return the settings of the `triggerkit dev` that runs in `folder`, empty when none does."""
    state = running_dev(folder)
    return dict(state["env"]) if state else {}


def running_dev(folder: Path) -> dict[str, Any] | None:
    """Return the state file of the `triggerkit dev` that runs in `folder`, None when none does."""
    try:
        state: dict[str, Any] = orjson.loads((folder / STATE_DIR / "dev.json").read_bytes())
        os.kill(int(state["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return None
    return state
