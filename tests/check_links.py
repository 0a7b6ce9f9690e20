"""Finds relative links in the Markdown files that lead nowhere."""

import re
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")
ROOT = Path(__file__).parent.parent


def main() -> int:
    """Print each dead link as `file:line: target`; the exit code says whether there is one."""
    dead = 0
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for match in LINK.finditer(line):
                target = match.group(1)
                if "://" not in target and not (page.parent / target).exists():
                    print(f"{page.relative_to(ROOT)}:{number}: dead link to {target}")
                    dead += 1
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
