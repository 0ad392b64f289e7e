"""The reader of PromQL, on expressions whose names are known."""

import pytest

from tests.deploy import promql

CASES = {
    "a metric": ("up", {"up": set()}, set(), set()),
    "a selector": ('up{job=~"a|{b}",pod!="c"} == 1',
                   {"up": {"job", "pod"}}, set(), set()),
    "a rate": ("sum by (le, phase) (rate(x_bucket{a=\"b\"}[5m]))",
               {"x_bucket": {"a"}}, {"le", "phase"}, {"x_bucket"}),
    "aggregation behind": ("sum(y) by (z)", {"y": set()}, {"z"}, set()),
    "two sides": ("a:b:c / on (n) group_left (m) (d offset 10m > 0)",
                  {"a:b:c": set(), "d": set()}, {"n", "m"}, set()),
    "functions and numbers": ("clamp_min(time() - 2.5e3 * q[1h:5m], 0) or z",
                              {"q": set(), "z": set()}, set(), set()),
}


@pytest.mark.parametrize("expression, metrics, grouped, rated", CASES.values(),
                         ids=CASES)
def test_names(expression, metrics, grouped, rated):
    assert promql.read(expression) == promql.Names(metrics, grouped, rated)


def test_a_selector_needs_a_metric():
    with pytest.raises(ValueError, match="without a metric"):
        promql.read('sum({job="a"})')
