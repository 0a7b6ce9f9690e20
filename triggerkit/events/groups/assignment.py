"""Share a topic's partitions among instances: evenly, and moving as few as that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def share(owners: Mapping[int, str | None], instances: Sequence[str]) -> dict[int, str | None]:
    """Return who is to have each partition, by who has it now.

    Instances have as many as each other, or one more. A partition stays with its owner unless that
    one is gone or has too many; instances beyond the number of partitions get none.
    """
    names = sorted(instances)
    if not names:
        return dict.fromkeys(owners)
    kept = {name: [p for p, owner in sorted(owners.items()) if owner == name] for name in names}
    # Those with the most have one more, where it cannot be even: so the fewest move.
    least, more = divmod(len(owners), len(names))
    richest = sorted(names, key=lambda name: -len(kept[name]))
    quotas = {name: least + (index < more) for index, name in enumerate(richest)}
    found: dict[int, str | None] = dict.fromkeys(owners)
    for name in names:
        for partition in kept[name][: quotas[name]]:
            found[partition] = name
    free = [partition for partition in sorted(owners) if found[partition] is None]
    for name in names:
        missing = quotas[name] - min(len(kept[name]), quotas[name])
        for partition in free[:missing]:
            found[partition] = name
        del free[:missing]
    return found
