"""Makes this folder's pages from the protos: ./shardplane python FILE.

Without an argument the pages beside this file are written anew; with one, a
folder, they are written there. What a page says is what the protos' comments
say: change them there.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

HERE = pathlib.Path(__file__).resolve().parent
PROTOS = HERE.parents[1] / "proto"
# Page -> the proto that it is made of.
PAGES = {"coordinator.md": "shardplane/v1/coordinator.proto",
         "types.md": "shardplane/v1/types.proto"}
PACKAGE = ".shardplane.v1."
# Types of other packages: where they are told about.
ELSEWHERE = ".google."

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {number: name.removeprefix("TYPE_").lower()
           for name, number in Field.Type.items()}


def descriptors(folder=PROTOS):
    """The files that pages are made of, by path, with their comments."""
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "set"
        subprocess.run(
            ["protoc", f"-I{folder}", "--include_source_info",
             f"--descriptor_set_out={out}", *PAGES.values()], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in files.file}


# Fields that mean the same in every message.
STANDARD = """
## Fields that recur

| field | |
|---|---|
| `name` | the resource's: `workers/{w}`, `modules/{m}`, `deployments/{d}`, \
`deployments/{d}/programs/{p}`, `operations/{o}` |
| `uid`, `create_time`, `update_time` | output only; a name may be used \
again, a uid never is |
| `etag` | changes with the resource; one that is sent and is not the present \
one is ABORTED |
| `request_id` | a UUID4: the same id and body get the same answer, for 24 h; \
the same id with another body is INVALID_ARGUMENT, REQUEST_ID_REUSED |
| `validate_only` | checks and answers, changes nothing |
| `allow_missing` | what is not there is no error |
| `page_size`, `page_token`, `next_page_token` | at most so many of a list; \
the token of the next page, empty at the end, good for the same arguments alone |
| `epoch` | the gang's: what names an older one is ABORTED |
| `labels` | the client's own, kept as they are |
"""


class Comments:
    """Comments by the path of what they stand at (see SourceCodeInfo)."""

    def __init__(self, file):
        self._at = {tuple(place.path): place
                    for place in file.source_code_info.location}

    def lines(self, path):
        """Those above it, then those behind it."""
        place = self._at.get(tuple(path))
        if place is None:
            return []
        text = place.leading_comments + place.trailing_comments
        return [line.removeprefix(" ").rstrip()
                for line in text.strip("\n").splitlines()]

    def sentence(self, path):
        """As one line, fit for a cell of a table."""
        text = " ".join(line.strip() for line in self.lines(path))
        return text.strip().replace("|", "\\|")

    def section(self, path):
        """The title that a row of dashes above it has, else None."""
        place = self._at.get(tuple(path))
        titles = [re.match(r"\s*-{8,}\s*(\S.*?)\s*$", text)
                  for text in place.leading_detached_comments] if place else []
        return next((title[1] for title in titles if title), None)


class Writer:
    """Makes the page of one file."""

    def __init__(self, page, file, homes):
        self._page, self._file, self._homes = page, file, homes
        self._comments = Comments(file)
        self._out = []

    def text(self):
        for index, service in enumerate(self._file.service):
            self._service(service, (6, index))
        for kind, path, name, item in _top_level(self._file):
            title = self._comments.section(path)
            if title:
                self._out += [f"## Messages: {title}", ""]
            (self._message if kind == 4 else self._enum)(item, name, path)
        return self._head() + "\n".join(self._out).rstrip() + "\n"

    def _head(self):
        return (f"# {self._file.name}\n\n"
                f"Made from [the proto](../../proto/{self._file.name}) by "
                "[generate.py](generate.py); change the comments there.\n\n" +
                "\n".join(self._prose((12,))) + "\n")

    def _service(self, service, path):
        self._out += [f"## {service.name}", "",
                      *self._comments.lines(path), "",
                      "| method | request | response | |", "|---|---|---|---|"]
        for index, method in enumerate(service.method):
            sides = [("stream " if stream else "") + self._link(name)
                     for name, stream in (
                         (method.input_type, method.client_streaming),
                         (method.output_type, method.server_streaming))]
            said = self._comments.sentence((*path, 2, index))
            self._row(f"`{method.name}`", *sides, said)
        self._out.append("")

    def _message(self, message, name, path):
        self._out += [f"### {name}", "", *self._prose(path)]
        if not message.field:
            self._out += ["No fields.", ""]
        else:
            self._out += ["| field | type | |", "|---|---|---|"]
        for index, field in enumerate(message.field):
            self._row(f"`{field.name}` = {field.number}",
                      self._type(message, field),
                      self._comments.sentence((*path, 2, index)))
        self._out += [""] if message.field else []
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                self._message(nested, f"{name}.{nested.name}",
                              (*path, 3, index))
        for index, enum in enumerate(message.enum_type):
            self._enum(enum, f"{name}.{enum.name}", (*path, 4, index))

    def _enum(self, enum, name, path):
        self._out += [f"### {name}", "", *self._prose(path),
                      "| value | |", "|---|---|"]
        for index, value in enumerate(enum.value):
            self._row(f"`{value.name}` = {value.number}",
                      self._comments.sentence((*path, 2, index)))
        self._out.append("")

    def _row(self, *cells):
        row = "".join(f"| {cell} " if cell else "| " for cell in cells)
        self._out.append(row + "|")

    def _prose(self, path):
        """Paragraphs; what is indented is shown as it stands."""
        lines = self._comments.lines(path)
        return [*("  " + line if line.startswith("  ") else line
                  for line in lines), ""] if lines else []

    def _type(self, message, field):
        name = (self._link(field.type_name) if field.type_name
                else SCALARS[field.type])
        entry = next((nested for nested in message.nested_type
                      if nested.options.map_entry and field.type_name.endswith(
                          f"{message.name}.{nested.name}")), None)
        if entry:
            key, value = (self._type(entry, part) for part in entry.field)
            return f"map of {key} to {value}"
        if field.label == Field.LABEL_REPEATED:
            return f"repeated {name}"
        if field.proto3_optional:
            return f"optional {name}"
        if field.HasField("oneof_index"):
            oneof = message.oneof_decl[field.oneof_index].name
            return f"{name}, one of `{oneof}`"
        return name

    def _link(self, full_name):
        if full_name.startswith(ELSEWHERE):
            return f"`{full_name[1:]}`"
        name = full_name.removeprefix(PACKAGE)
        if name not in self._homes:  # the entry of a map
            return name
        page = self._homes[name]
        return f"[{name}]({'' if page == self._page else page}#{slug(name)})"


def slug(heading):
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _top_level(file):
    """Messages and enums in the order of the file."""
    found = [((4, index), item) for index, item in enumerate(file.message_type)]
    found += [((5, index), item) for index, item in enumerate(file.enum_type)]
    line = {tuple(place.path): place.span[0]
            for place in file.source_code_info.location}
    return [(path[0], path, item.name, item)
            for path, item in sorted(found, key=lambda pair: line[pair[0]])]


def _names(prefix, messages, enums):
    for enum in enums:
        yield prefix + enum.name
    for message in messages:
        yield prefix + message.name
        yield from _names(f"{prefix}{message.name}.", message.nested_type,
                          message.enum_type)


def pages(folder=PROTOS):
    """Page -> its text, the index among them."""
    files = descriptors(folder)
    homes = {name: page for page, path in PAGES.items()
             for name in _names("", files[path].message_type,
                                files[path].enum_type)}
    made = {page: Writer(page, files[path], homes).text()
            for page, path in PAGES.items()}
    made["README.md"] = _index(files)
    return made


def _index(files):
    out = ["# Reference of the API", "",
           "Package `shardplane.v1`: what clients call, and the values that "
           "travel. Made by [generate.py](generate.py) from",
           "[proto/shardplane/v1](../../proto/shardplane/v1); "
           "`./shardplane python docs/reference/generate.py` makes it anew.",
           ""]
    for page, path in PAGES.items():
        counts = dict(
            services=len(files[path].service),
            methods=sum(len(s.method) for s in files[path].service),
            messages=len(files[path].message_type),
            enums=len(files[path].enum_type))
        holds = ", ".join(f"{count} {what}" for what, count in counts.items()
                          if count)
        out.append(f"- [{path}]({page}): {holds}")
        out += [f"  - [{service.name}]({page}#{slug(service.name)}): " +
                ", ".join(f"`{method.name}`" for method in service.method)
                for service in files[path].service]
    out += ["", STANDARD.strip()]
    return "\n".join(out) + "\n"


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for page, text in pages().items():
        (folder / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
