"""docs/cpp_client.md shows what is built and tested."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cpp_client.md").read_text(encoding="utf-8")


def test_example_is_the_program_that_is_tested():
    example = re.search(r"^```cpp\n(.*?)^```", PAGE,
                        re.MULTILINE | re.DOTALL).group(1)
    assert example == (ROOT / "client" / "examples" / "train.cc").read_text(
        encoding="utf-8")


def test_targets_have_their_headers():
    rows = re.findall(r"^\| `//client(?::(\w+))?` \| `(client/\w+\.h)` \|",
                      PAGE, re.MULTILINE)
    assert len(rows) >= 4
    build = (ROOT / "client" / "BUILD.bazel").read_text(encoding="utf-8")
    for target, header in rows:
        name = target or "client"
        rule = re.search(rf'name = "{name}",(.*?)^\)', build,
                         re.MULTILINE | re.DOTALL).group(1)
        assert f'"{header.removeprefix("client/")}"' in rule
        assert "//visibility:public" in rule


def test_other_snippets_use_names_that_there_are():
    headers = "".join(p.read_text(encoding="utf-8")
                      for p in (ROOT / "client").glob("*.h"))
    for name in ("ErrorInfoOf", "ClientOptions", "BackoffOptions",
                 "InlineTensor", "TypeOf", "BytesOf", "Upload", "Download",
                 "GetDeployment", "GetStep"):
        assert name in PAGE and re.search(rf"\b{name}\b", headers), name
