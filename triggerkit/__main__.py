"""`python -m triggerkit` is the command `triggerkit`."""

from triggerkit.cli.main import run

run()
