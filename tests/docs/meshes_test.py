"""Runs the snippet that docs/meshes.md begins with."""

from tests.docs.pages import blocks, output_of, page

PAGE = page("meshes.md")


def test_the_first_snippet_cuts_batch_and_parameters(tmp_path):
    printed = output_of(blocks(PAGE)[0], tmp_path)
    replicated, counts, sharded, more = printed.splitlines()
    assert replicated.startswith("replicate [R, S(0)] [(128, 64), ")
    assert "{'all_reduce': 1} {'all_reduce': 1}" in counts
    assert sharded.startswith("fully_shard [S(0)#2, S(0)#1] [(64, 64), ")
    assert more == ("{'all_gather': 2, 'all_reduce': 1} "
                    "{'all_gather': 1, 'reduce_scatter': 2}")
