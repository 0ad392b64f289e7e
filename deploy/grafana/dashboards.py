"""Writes the dashboards: a JSON file for each of the tables beside this.

./shardplane python -m deploy.grafana.dashboards
"""

import json
import pathlib

from deploy.grafana import cluster
from deploy.grafana import deployment
from deploy.grafana import panels
from deploy.grafana import worker

FOLDER = pathlib.Path(__file__).resolve().parent
DASHBOARDS = (cluster.DASHBOARD, deployment.DASHBOARD, worker.DASHBOARD)


def path(dashboard):
    return FOLDER / f"{dashboard.name}.json"


def text(dashboard):
    return json.dumps(panels.to_json(dashboard, DASHBOARDS), indent=1) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        path(each).write_text(text(each), encoding="utf-8")
