"""Settings and URLs as people get them wrong, each with a password whose every part is known."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from urllib.parse import quote

#: What stands between the parts of a password, and is not percent-encoded as often as it is.
ODD = [
    *"@/#?:%&=+ '\"\\[]();,!$|<>^`{}~*",
    "%zz",
    "%00",
    "://",
    "@@",
    "/@",
    "\t",
    "é",
    "\u202e",
    "",
]

#: Settings that hold a URL or a secret.
DATABASE = ("DATABASE_URL", "TRIGGERKIT_STATE_URL")
SECRETS = (
    "TRIGGERKIT_WEBHOOK_SECRET",
    "TRIGGERKIT_WEBHOOK_SIGNING_SECRET",
    "TRIGGERKIT_SECRET_KEY",
    "TRIGGERKIT_ENCRYPTION_KEY",
    "TRIGGERKIT_METRICS_TOKEN",
    "OPENAI_API_KEY",
)

#: Settings that hold something else, into which a URL was pasted.
OTHERS = (
    "TRIGGERKIT_PORT",
    "TRIGGERKIT_HOST",
    "TRIGGERKIT_ALLOW_NETWORKS",
    "TRIGGERKIT_LOG_KEEP",
    "TRIGGERKIT_LOG_MAX_BYTES",
    "TRIGGERKIT_POOL_SIZE",
    "TRIGGERKIT_SLOT",
    "TRIGGERKIT_PROCESSES",
    "TRIGGERKIT_QUIET",
    "EMBEDDING_DIMENSIONS",
)

POSTGRES = (
    "postgresql://shop:{p}@127.0.0.1:1/shop",
    "postgresql://shop:{p}@127.0.0.1:1/shop",
    "postgres://shop:{p}@127.0.0.1:1/shop?sslmode=disable",
    "postgresql://:{p}@127.0.0.1:1/shop",
    "postgresql://{p}@127.0.0.1:1/shop",
    "postgresql://shop:{p}@127.0.0.1:port/shop",
    "postgresql://shop:{p}@127.0.0.1:99999/shop",
    "postgresql://shop:{p}@[::1/shop",
    "postgresql://shop:{p}@127.0.0.1:1,127.0.0.1:1/shop",
    "postgresql://shop:{p}@127.0.0.1:1/shop?schema=public",
    "postgresql://shop:{p}@127.0.0.1:1/shop?connect_timeout=soon",
    "postgresql://127.0.0.1:1/shop?user=shop&password={p}",
    "postgresql://127.0.0.1:1/shop?user=shop&sslpassword={p}",
    "postgresql://127.0.0.1:1/shop?user=shop&passwd={p}",
    "postgresql+asyncpg://shop:{p}@127.0.0.1:1/shop",
    "POSTGRESQL://shop:{p}@127.0.0.1:1/shop",
    "postgresql//shop:{p}@127.0.0.1:1/shop",
    "postgresql:/shop:{p}@127.0.0.1:1/shop",
    "jdbc:postgresql://127.0.0.1:1/shop?user=shop&password={p}",
    "shop:{p}@127.0.0.1:1/shop",
    '"postgresql://shop:{p}@127.0.0.1:1/shop"',
    " postgresql://shop:{p}@127.0.0.1:1/shop ",
    "host=127.0.0.1 port=1 user=shop password={p} dbname=shop",
    "host=127.0.0.1 port=1 user=shop password='{p}' dbname=shop",
    "host=127.0.0.1 port=1 dbname=postgresql://shop:{p}@127.0.0.1/shop",
    "host=shop:{p}@127.0.0.1 port=1",
    "https://shop:{p}@127.0.0.1:1/shop",
)
REDIS = (
    "redis://:{p}@127.0.0.1:1/0",
    "redis://shop:{p}@127.0.0.1:1/0",
    "rediss://:{p}@127.0.0.1:1/0?ssl_cert_reqs=none",
    "redis://{p}@127.0.0.1:1",
    "redis://127.0.0.1:1/0?password={p}",
    "redis://127.0.0.1:1/0?passwd={p}",
    "redis://:{p}@127.0.0.1:port/0",
    "redis://:{p}@127.0.0.1:1/zero",
    "unix:///nowhere/redis.sock?password={p}",
    "redis:/:{p}@127.0.0.1:1/0",
    ":{p}@127.0.0.1:1/0",
    "http://:{p}@127.0.0.1:1/0",
)
AMQP = (
    "amqp://shop:{p}@127.0.0.1:1/%2F",
    "amqps://shop:{p}@127.0.0.1:1",
    "amqp://shop:{p}@127.0.0.1:1/;amqp://shop:{p}@127.0.0.1:2/",
    "amqp://shop:{p}@127.0.0.1:port",
    "redis://:{p}@127.0.0.1:1/0",
    "amqp:/shop:{p}@127.0.0.1:1",
)
HTTP = (
    "http://shop:{p}@127.0.0.1:1",
    "https://{p}@127.0.0.1:1/v1",
    "http://shop:{p}@127.0.0.1:port/v1",
    "shop:{p}@127.0.0.1:1",
    "ftp://shop:{p}@127.0.0.1:1",
)

COMMANDS = (
    ("check",),
    ("check", "--json"),
    ("status",),
    ("status", "--json"),
    ("plan",),
    ("tasks",),
    ("runs", "list"),
    ("queues", "list"),
    ("consumers", "list"),
    ("messages", "list", "note"),
    ("endpoints", "list"),
    ("backfill", "list"),
    ("verify", "note"),
    ("trace", "1"),
    ("models", "public.items"),
    ("databases", "list"),
    ("trigger", "note", "--payload", "{}"),
)

#: What starts to work as soon as its database is there.
LASTING = (("serve",), ("stream",), ("worker",), ("apply",), ("upgrade",), ("dev", "--port", "0"))


@dataclass(frozen=True, slots=True)
class Case:
    """A command, its settings in the environment or in `.env`, an endpoint's URL in
    `triggerkit.toml`, and what must not be printed."""

    arguments: tuple[str, ...]
    settings: dict[str, str]
    in_file: bool
    endpoint: str
    canaries: tuple[str, ...]


def cases(count: int, seed: int, database_url: str) -> list[Case]:
    """Make `count` of them; every third has a database that works, so that what comes after it is
    met, too."""
    chance = random.Random(seed)
    return [_case(chance, database_url if number % 3 == 0 else None) for number in range(count)]


def _case(chance: random.Random, database_url: str | None) -> Case:
    parts = tuple(_part(chance) for _ in range(chance.choice((1, 2, 2, 3))))
    password = chance.choice(ODD).join(parts)
    written = quote(password, safe="") if chance.random() < 0.15 else password
    settings = {
        "DATABASE_URL": database_url or chance.choice(POSTGRES),
        "REDIS_URL": chance.choice(REDIS),
        "TRIGGERKIT_WEBHOOK_SECRET": "{p}-a-long-enough-secret",
    }
    if database_url is None and chance.random() < 0.3:
        settings["TRIGGERKIT_STATE_URL"] = chance.choice(POSTGRES)
    for name, forms in {
        "TRIGGERKIT_BROKER_URL": AMQP,
        "TRIGGERKIT_PUBLIC_URL": HTTP,
        "OPENAI_BASE_URL": HTTP,
        chance.choice(SECRETS): ("{p}", "{p}{p}{p}{p}", "short,{p}"),
        chance.choice(OTHERS): (*POSTGRES, *REDIS),
        "TRIGGERKIT_DATABASE_URL": POSTGRES,
    }.items():
        if chance.random() < 0.15:
            settings[name] = chance.choice(forms)
    arguments = chance.choice(COMMANDS if database_url else (*COMMANDS, *LASTING))
    endpoint = ""
    if chance.random() < 0.05:
        arguments = ("endpoints", "create", "shop", chance.choice(HTTP).replace("{p}", written))
    if chance.random() < 0.05:
        arguments, endpoint = ("plan",), chance.choice(HTTP).replace("{p}", written)
    filled = {name: value.replace("{p}", written) for name, value in settings.items()}
    usable = {name: value.replace("\0", "") for name, value in filled.items()}
    return Case(arguments, usable, chance.random() < 0.3, endpoint, parts)


def _part(chance: random.Random) -> str:
    """A part of a password that nothing else says; some are numbers, which may pass for a port."""
    if chance.random() < 0.25:
        return str(chance.randrange(40_001, 65_000))
    return "".join(chance.choices(string.ascii_letters + string.digits, k=9)) + "Zq"
