"""The demos: `python -m shardplane.demo [NAME] [OPTIONS]`, lm if no name."""

import importlib
import sys

DEMOS = ("lm", "digits")


def main(arguments=None):
    """The demo's exit code; 2 for a name that is none."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = DEMOS[0]
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    if name not in DEMOS:
        print(f"shardplane demo: expected {' or '.join(DEMOS)}, got: {name}",
              file=sys.stderr)
        return 2
    return importlib.import_module(f"shardplane.demos.{name}").main(arguments)


if __name__ == "__main__":
    sys.exit(main())
