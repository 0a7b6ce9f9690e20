"""The secrets without which `serve` does not start."""

from __future__ import annotations

from collections.abc import Iterator

from triggerkit.settings import MIN_SECRET_CHARS, Settings
from triggerkit.supervisor.checks.check import Check

#: Where `serve` listens for this machine alone, so that no management key is asked for.
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


def check_secrets(settings: Settings) -> Iterator[Check]:
    """Check whether deliveries can be authorized; their length is looked at when they are read."""
    is_set = settings.triggerkit_webhook_secret is not None
    detail = "set" if is_set else f"not set; it takes {MIN_SECRET_CHARS} characters or more"
    yield Check("webhook secret", is_set, detail, _generate("TRIGGERKIT_WEBHOOK_SECRET"))
    host = settings.triggerkit_host
    if host not in LOOPBACK_HOSTS and settings.triggerkit_secret_key is None:
        detail = f"not set, and asked for where `serve` listens on {host}"
        yield Check("secret key", False, detail, _generate("TRIGGERKIT_SECRET_KEY"))


def _generate(name: str) -> str:
    made = "$(python -c 'import secrets; print(secrets.token_urlsafe(32))')"
    return f'echo "{name}={made}" >> .env'
