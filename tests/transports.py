"""What carried a worker's collectives, by its own word."""

import re
import urllib.request

_GROUPS = re.compile(
    r'^shardplane_process_groups_total{transport="(\w+)"} (\d+)', re.MULTILINE)


def groups(process):
    """transport -> how many groups this worker has joined over it."""
    with urllib.request.urlopen(
            f"http://{process.http_address}/metrics", timeout=30) as page:
        return {name: int(count)
                for name, count in _GROUPS.findall(page.read().decode())}
