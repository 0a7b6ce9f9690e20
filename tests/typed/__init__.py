"""What type checkers know of code that uses triggerkit: checked by mypy and pyright, never run."""
