"""C++ and Python from .proto files, with the system's protoc and plugins.

Protos lie under proto/ and import each other by their path below it
("shardplane/v1/types.proto"); a file google/rpc/*.proto of our own would lie
under proto/google/rpc/. The folder of the BUILD file may be proto/ or any
folder below it.
"""

_ROOT = "proto"

def _check_package():
    package = native.package_name()
    if package != _ROOT and not package.startswith(_ROOT + "/"):
        fail("protos lie under %s/, got: %s" % (_ROOT, package))
    return package

def _up(package):
    """The path from the package back to the proto root."""
    return "/".join([".."] * (package.count("/"))) or "."

def _outs(srcs, suffixes):
    return [
        src[:-len(".proto")] + suffix
        for src in srcs
        for suffix in suffixes
    ]

def _protoc(flags):
    return ("protoc -I%s -I/usr/include %s $(SRCS)" % (_ROOT, flags))

def _sources(name, srcs, deps):
    native.filegroup(
        name = name + "_srcs",
        srcs = srcs + [dep + "_srcs" for dep in deps],
        visibility = ["//visibility:public"],
    )
    return [":%s_srcs" % name]

def _full(dep):
    """//a/b -> //a/b:b, so that a suffix can be added to the name."""
    if ":" in dep or not dep.startswith("//"):
        return dep
    return dep + ":" + dep.split("/")[-1]

def sp_proto_library(name, srcs, deps = [], visibility = ["//visibility:public"]):
    """A cc_library of the messages and the gRPC services of some protos.

    Args:
      name: include as "shardplane/v1/types.pb.h" and ".grpc.pb.h".
      srcs: .proto files.
      deps: other sp_proto_library targets, for imports.
      visibility: as usual.
    """
    package = _check_package()
    deps = [_full(dep) for dep in deps]
    imports = _sources(name, srcs, deps)
    native.genrule(
        name = name + "_gen",
        srcs = srcs,
        outs = _outs(srcs, [".pb.cc", ".pb.h", ".grpc.pb.cc", ".grpc.pb.h"]),
        cmd = _protoc("--cpp_out=$(BINDIR)/{0} --grpc_out=$(BINDIR)/{0} ".format(_ROOT) +
                      "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin"),
        tools = imports,
    )
    native.cc_library(
        name = name,
        srcs = _outs(srcs, [".pb.cc", ".grpc.pb.cc"]),
        hdrs = _outs(srcs, [".pb.h", ".grpc.pb.h"]),
        copts = ["-w"],
        includes = [_up(package)],
        visibility = visibility,
        deps = deps + ["//third_party:grpc"],
    )

def sp_py_proto(name, srcs, deps = [], visibility = ["//visibility:public"]):
    """Python's _pb2.py and _pb2_grpc.py of some protos.

    They land in bazel-bin/proto/ under the proto's own path; the launcher puts
    that folder on PYTHONPATH.

    Args:
      name: of the filegroup of generated files.
      srcs: .proto files.
      deps: sp_proto_library targets of other packages that are imported.
      visibility: as usual.
    """
    _check_package()
    deps = [_full(dep) for dep in deps]
    imports = _sources(name, srcs, deps)
    native.genrule(
        name = name + "_gen",
        srcs = srcs,
        outs = _outs(srcs, ["_pb2.py", "_pb2_grpc.py"]),
        cmd = _protoc("--python_out=$(BINDIR)/{0} --grpc_out=$(BINDIR)/{0} ".format(_ROOT) +
                      "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin"),
        tools = imports,
    )
    native.filegroup(
        name = name,
        srcs = _outs(srcs, ["_pb2.py", "_pb2_grpc.py"]),
        visibility = visibility,
    )
