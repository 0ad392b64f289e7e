"""The images of deploy/images/Dockerfile: read, and made without a container
runtime, from the packages and files that the recipe names."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess

from tests.deploy import debian

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy" / "images"
RECIPE = IMAGES / "Dockerfile"
TARGETS = ["coordinator", "worker", "worker-gpu"]


@functools.cache
def instructions():
    """(instruction, rest) of each, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", RECIPE.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\s*\\\n\s*", " ", text)
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line]


@functools.cache
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


@dataclasses.dataclass(frozen=True)
class Image:
    target: str

    def of(self, instruction):
        return [rest for i, rest in stages()[self.target] if i == instruction]

    @property
    def packages(self):
        """As apt-get takes them: name=version."""
        found = []
        for run in self.of("RUN"):
            for words in re.findall(r"apt-get install ([^&]*)", run):
                found += [w for w in words.split() if not w.startswith("-")]
        return found

    @property
    def environment(self):
        return dict(pair.split("=", 1) for rest in self.of("ENV")
                    for pair in rest.split())

    @property
    def user(self):
        """(uid, gid)"""
        return tuple(int(number) for number in self.of("USER")[-1].split(":"))

    @property
    def entrypoint(self):
        assert not self.of("CMD")
        return json.loads(self.of("ENTRYPOINT")[-1])

    @property
    def stop_signal(self):
        return self.of("STOPSIGNAL")[-1]

    @property
    def copies(self):
        """[(path below /out of the build stage, path in the image)]"""
        return [re.fullmatch(r"--from=build /out/(\S+) (\S+)", rest).groups()
                for rest in self.of("COPY")]


def collect(folder):
    """What the build stage leaves in /out: collect.sh run on the binaries that
    are tested, libraries as links."""
    done = subprocess.run(
        [IMAGES / "collect.sh", os.environ["SHARDPLANE_BIN_DIR"], folder,
         "--link"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _copied(image, out):
    """[(file, its path in the image)]"""
    for source, target in image.copies:
        path = out / source
        files = [path] if path.is_file() else sorted(
            p for p in path.rglob("*") if p.is_file())
        assert files, source
        for file in files:
            below = file.name if path.is_file() else file.relative_to(path)
            yield file.resolve(), pathlib.Path(target) / below


def make(image, out, folder):
    """Options of bwrap for a read-only root as the image has it. Copied files
    are bound where they go; `folder` gets empty ones for that."""
    root = debian.root(image.packages)
    options, places = ["--ro-bind", root, "/"], {}
    for file, target in _copied(image, out):
        relative = target.relative_to("/")
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).touch()
        places[_deepest(root, relative.parent)] = None
        options += ["--ro-bind", file, target]
    binds = []
    for place in places:
        assert not any((root / place).iterdir()), f"{place} is not empty"
        binds += ["--ro-bind", folder / place, pathlib.Path("/") / place]
    return options[:3] + binds + options[3:]


def _deepest(root, relative):
    """The deepest folder on the way that Debian itself has."""
    while not (root / relative).is_dir():
        relative = relative.parent
    return relative


def bytes_of(image, out):
    """About the size of the image, not compressed."""
    files = [p for p in debian.root(image.packages).rglob("*")
             if p.is_file() and not p.is_symlink()]
    files += [file for file, _ in _copied(image, out)]
    return sum(p.stat().st_size for p in files)


def hadolint():
    """Beside the Python that runs this, where its wheel puts it."""
    folder = pathlib.Path(os.sys.executable).parent
    return shutil.which("hadolint", path=os.pathsep.join(
        [str(folder), os.environ["PATH"]]))
