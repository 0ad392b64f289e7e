"""Checks the image recipes: what a linter asks for, and that names agree."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy" / "images"
RECIPE = IMAGES / "Dockerfile.cpu"


def instructions():
    """(instruction, rest) of each, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", RECIPE.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\s*\\\n\s*", " ", text)
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line]


def stages():
    """stage -> its instructions, those of the stage that it is from first."""
    found, name = {}, None
    for instruction, rest in instructions():
        if instruction == "FROM":
            source, _, name = rest.split()
            found[name] = list(found.get(source, []))
        if name is not None:
            found[name].append((instruction, rest))
    return found


def of(stage, instruction):
    return [rest for i, rest in stages()[stage] if i == instruction]


@pytest.fixture(params=["coordinator", "worker"])
def target(request):
    return request.param


def test_base_images_are_pinned_by_digest():
    names = set(stages())
    for rest in (r for i, r in instructions() if i == "FROM"):
        source = rest.split()[0]
        assert source in names or source.endswith("@${DEBIAN_DIGEST}")
    # Without a default: a build says what it is made from.
    assert ("ARG", "DEBIAN_DIGEST") in instructions()


def test_runs_as_a_number_that_is_not_root(target):
    assert of(target, "USER")[-1] == "65532:65532"


def test_entry_point_is_the_binary_that_was_copied(target):
    assert of(target, "ENTRYPOINT") == [
        f'["/usr/local/bin/shardplane_{target}"]']
    assert (f"--from=build /out/shardplane_{target} /usr/local/bin/"
            in of(target, "COPY"))
    assert not of(target, "CMD")


def test_binary_is_a_target_of_the_build(target):
    (build,) = [r for r in of("build", "RUN") if "shardplane build" in r]
    assert f"//{target}:shardplane_{target}" in build
    assert f'name = "shardplane_{target}"' in (
        ROOT / target / "BUILD.bazel").read_text()


def test_packages_leave_nothing_behind():
    for stage in stages():
        for run in of(stage, "RUN"):
            if "apt-get install" in run:
                assert "apt-get update &&" in run
                assert "--no-install-recommends" in run
                assert "rm -rf /var/lib/apt/lists/*" in run
            assert "curl" not in run and "sudo" not in run


def test_exposed_ports_are_those_of_the_manifests(target):
    name = "workers" if target == "worker" else "coordinator"
    manifest = (ROOT / f"deploy/kubernetes/base/{name}.yaml").read_text()
    ports = set(re.findall(r"containerPort: (\d+)", manifest))
    assert set(" ".join(of(target, "EXPOSE")).split()) == ports


def test_context_has_what_is_built_and_no_more():
    lines = [line for line in
             (IMAGES / "Dockerfile.cpu.dockerignore").read_text().splitlines()
             if line and not line.startswith("#")]
    assert lines[0] == "*"
    for line in lines[1:]:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line
    # A folder with C++ that a binary links must not be forgotten.
    for folder in ("common", "proto", "telemetry", "third_party"):
        assert f"!{folder}" in lines
