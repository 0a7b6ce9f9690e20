"""What the reference app and its task need to know: the database, the API and the model."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from triggerkit.configuration.addresses import read_database_url, read_server_url
from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.settings import own_environment, running_environment


class Settings(BaseSettings):
    """Read from the environment, else `.env`, else a `triggerkit dev` running in this folder."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str = Field(repr=False)
    openai_api_key: SecretStr
    openai_base_url: str | None = None
    embedding_model: str = "text-embedding-3-small"
    embedding_dimensions: int = Field(default=1536, ge=1, le=16000)
    embedding_requests: int = Field(default=8, ge=1, le=1000)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = Path.cwd()
        values = {**running_environment(folder), **own_environment(folder)}
        given = {name.lower(): value for name, value in values.items()}
        return (
            init_settings,
            InitSettingsSource(settings_cls, init_kwargs=given),
        )


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        CannotConnect: it is not set where the servers are, and no `triggerkit dev` runs here.
        ConfigurationError: a setting is wrong; the message names it.
    """
    try:
        settings = Settings()
        read_database_url(settings.database_url, "DATABASE_URL")
        if settings.openai_base_url is not None:
            example = "https://api.example.com/v1"
            read_server_url(settings.openai_base_url, "OPENAI_BASE_URL", ("http", "https"), example)
        return settings
    except ValidationError as error:
        problems = {str(e["loc"][0]).upper(): e for e in error.errors()}
        missing = [name for name, e in problems.items() if e["type"] == "missing"]
        if missing:
            remedy = "start `triggerkit dev` in this folder, or set what is missing"
            if missing == ["OPENAI_API_KEY"]:
                # `dev` has one without a key, where its model can be installed.
                remedy = "up to Python 3.13 `triggerkit dev` brings a model; else set it"
            raise CannotConnect(
                f"{' and '.join(missing)} not set: {remedy} in the environment or in .env"
            ) from None
        wrong = "; ".join(f"{name}: {e['msg']}" for name, e in problems.items())
        raise ConfigurationError(wrong) from None
