"""What the deployment's files say of each process: its command, its settings, its probes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.acceptance.project import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
SYSTEMD = ROOT / "deploy" / "systemd"
COMPOSE = ROOT / "docker-compose.yml"

#: What a variable of compose is, with what stands where it is not set.
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Described:
    """A process as a file describes it. `probes` are paths with the ports that they are asked on,
    and `check` is a command that asks."""

    name: str
    command: list[str]
    settings: dict[str, str]
    copies: int = 1
    probes: set[tuple[str, int]] = field(default_factory=set)
    check: list[str] = field(default_factory=list)


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of YAML."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """All objects for Kubernetes, with the names of their files."""
    return [
        (str(path.relative_to(KUBERNETES)), one)
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for one in documents(path)
    ]


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file, with these variables."""
    text = _VARIABLE.sub(lambda found: _value(found, variables), COMPOSE.read_text())
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, default = found.groups()
    if kind == "?":
        return variables[name]
    return variables.get(name) or (default or "")


def of_compose(variables: Mapping[str, str]) -> list[Described]:
    """The processes of ours that compose starts."""
    found = []
    for name, service in compose(variables)["services"].items():
        if service.get("build") is None:
            continue
        health = service.get("healthcheck", {})
        check = [] if health.get("disable") else health["test"]
        assert not check or check[0] == "CMD"
        copies = int(service.get("deploy", {}).get("replicas", 1))
        # Compose puts variables in once the file is read: what is not set is an empty text.
        settings = {key: value or "" for key, value in service["environment"].items()}
        found.append(Described(name, service["command"], settings, copies, check=check[1:]))
    return found


def of_kubernetes() -> list[Described]:
    """The processes that the manifests start, each container with the settings it is given."""
    kept = {
        (one["kind"], one["metadata"]["name"]): {**one.get("data", {}), **one.get("stringData", {})}
        for _, one in manifests()
        if one["kind"] in ("ConfigMap", "Secret")
    }
    found = []
    for _, one in manifests():
        if one["kind"] not in ("Deployment", "Job"):
            continue
        for container in one["spec"]["template"]["spec"]["containers"]:
            settings: dict[str, str] = {}
            for source in container["envFrom"]:
                kind = "ConfigMap" if "configMapRef" in source else "Secret"
                reference = source.get("configMapRef") or source["secretRef"]
                settings |= kept[kind, reference["name"]]
            found.append(
                Described(
                    container["name"],
                    container["command"],
                    settings,
                    one["spec"].get("replicas", 1),
                    set(_probes(container)),
                )
            )
    return found


def _probes(container: dict[str, Any]) -> Iterator[tuple[str, int]]:
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if name in container:
            asked = container[name]["httpGet"]
            yield asked["path"], ports[asked["port"]]


def of_systemd() -> list[Described]:
    """The processes that the units start, with the settings that are theirs alone."""
    found = []
    for path in sorted(SYSTEMD.glob("*.service")):
        lines = path.read_text().splitlines()
        [start] = [line for line in lines if line.startswith("ExecStart=")]
        env, *words = shlex.split(start.removeprefix("ExecStart="))
        assert env == "/usr/bin/env"
        # What Environment= says, the file of settings would win over.
        assert not any(line.startswith("Environment=") for line in lines)
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        program, *arguments = words[len(settings) :]
        assert program == "/srv/app/.venv/bin/triggerkit"
        found.append(Described(path.stem, ["triggerkit", *arguments], settings))
    return found


def host_of(url: str) -> str | None:
    """The host that a URL of a setting names."""
    return urlsplit(url).hostname
