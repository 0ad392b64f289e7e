"""Which metrics and labels a PromQL expression names.

Reads tokens, not whole expressions: whether one parses is Prometheus' to say.
"""

import re
import typing

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[a-zA-Z_:][\w:]*'
                   r"|[0-9][\w.]*|=~|!~|!=|==|<=|>=|[-+*/%^=<>(){},]")
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}


class Names(typing.NamedTuple):
    metrics: dict  # name -> labels of its selectors, all of them together
    grouped: set   # labels after by, on and their like
    rated: set     # metrics that stand right within rate() or increase()


def read(expression):
    tokens = TOKEN.findall(expression)
    names = Names({}, set(), set())
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in GROUPING:
            end = tokens.index(")", at)
            names.grouped.update(t for t in tokens[at + 2:end] if t != ",")
            at = end
        elif token == "{":
            raise ValueError(f"a selector without a metric: {expression}")
        elif (re.match(r"[a-zA-Z_:]", token) and following != "("
              and token not in WORDS and following not in GROUPING):
            labels = names.metrics.setdefault(token, set())
            if at >= 2 and tokens[at - 2] in ("rate", "increase"):
                names.rated.add(token)
            if following == "{":
                end = tokens.index("}", at)
                labels.update(t for t, after in zip(
                    tokens[at + 2:end], tokens[at + 3:end + 1])
                    if after in ("=", "=~", "!=", "!~"))
                at = end
        at += 1
    return names
