"""Values that a dashboard is made of, and the JSON that Grafana reads."""

import dataclasses

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHTS = {"row": 1, "stat": 4, "timeseries": 8, "table": 8}
OPTIONS = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "",
                               "values": False},
             "colorMode": "value", "graphMode": "area", "textMode": "auto"},
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"},
                   "tooltip": {"mode": "multi", "sort": "desc"}},
}


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    description: str
    unit: str       # of Grafana: "s", "bytes", "percentunit", "ops", ...
    queries: tuple  # (expression, legend)
    width: int = 8
    kind: str = "timeseries"


@dataclasses.dataclass(frozen=True)
class Row:
    title: str
    panels: tuple


@dataclasses.dataclass(frozen=True)
class Variable:
    """What can be chosen at the top, from the values of a label."""

    name: str
    label: str
    query: str


@dataclasses.dataclass(frozen=True)
class Dashboard:
    name: str  # the file's, and a part of the uid
    title: str
    description: str
    variables: tuple
    rows: tuple

    @property
    def uid(self):
        return f"shardplane-{self.name}"


def stat(title, description, unit, query, legend="__auto"):
    return Panel(title, description, unit, ((query, legend),), 4, "stat")


def graph(title, description, unit, *queries, width=8):
    return Panel(title, description, unit, queries, width)


def _variables(variables):
    chosen = [{"name": "datasource", "label": "Data source",
               "type": "datasource", "query": "prometheus", "hide": 0,
               "refresh": 1}]
    for variable in variables:
        chosen.append({
            "name": variable.name, "label": variable.label, "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": variable.query, "refId": variable.name},
            "refresh": 2, "includeAll": True, "allValue": ".*", "multi": True,
            "current": {"text": "All", "value": "$__all"}})
    return chosen


def _links(dashboard, others):
    return [{"type": "link", "title": other.title, "icon": "dashboard",
             "url": f"/d/{other.uid}", "keepTime": True, "includeVars": True,
             "targetBlank": False, "tooltip": other.description}
            for other in others if other.uid != dashboard.uid]


def _targets(panel):
    return [{"refId": chr(ord("A") + n), "datasource": DATASOURCE,
             "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(panel.queries)]


def _json(panel, number, x, y):
    return {"id": number, "type": panel.kind, "title": panel.title,
            "description": panel.description, "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": panel.width,
                        "h": HEIGHTS[panel.kind]},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0},
                            "overrides": []},
            "targets": _targets(panel), "options": OPTIONS[panel.kind]}


def _placed(rows):
    """The panels, left to right, each row of them below the last."""
    placed, y = [], 0
    for row in rows:
        placed.append({"id": len(placed) + 1, "type": "row", "title": row.title,
                       "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            placed.append(_json(panel, len(placed) + 1, x, y))
            x += panel.width
            height = max(height, HEIGHTS[panel.kind])
        y += height
    return placed


def to_json(dashboard, dashboards):
    return {
        "uid": dashboard.uid, "title": dashboard.title,
        "description": dashboard.description, "tags": ["shardplane"],
        "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1,
        "refresh": "15s", "time": {"from": "now-1h", "to": "now"},
        "links": _links(dashboard, dashboards),
        "templating": {"list": _variables(dashboard.variables)},
        "panels": _placed(dashboard.rows)}
