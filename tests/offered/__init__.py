"""What processes of tests have that is not offered yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests import ROOT
from triggerkit.settings import Settings


def python_path() -> str:
    """The path of Python by which each process offers it: `sitecustomize` is in this folder."""
    return os.pathsep.join((str(Path(__file__).parent), str(ROOT)))


def environment_on_kafka(settings: Settings) -> Mapping[str, str]:
    """The environment of commands whose log is on Kafka."""
    return {**settings.environment(), "TRIGGERKIT_LOG": "kafka", "PYTHONPATH": python_path()}
