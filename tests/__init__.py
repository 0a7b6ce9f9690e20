"""The tests, in folders as the code is."""

from pathlib import Path

#: The folder of the project.
ROOT = Path(__file__).parents[1]
