"""Runs the snippets of docs/weights.md."""

from tests.docs.pages import blocks, output_of, page

PAGE = page("weights.md")
BEFORE = """
from tests.zoo.models import llama

zoo = llama()
zoo.module.save_pretrained("models/llama-3-8b", max_shard_size=20_000)
config, plan, batch = zoo.module.config, zoo.plan, zoo.inputs
"""
AFTER = """
    print(m.comm_counts()["materialize"], m.report.placements["lm_head.weight"])
    wanted = zoo.module(**batch).logits
    print((m(**batch).logits - wanted).abs().max().item() < 1e-5)
"""


def test_a_checkpoint_of_several_files(tmp_path):
    snippet = blocks(PAGE)[0].replace("/models", f"{tmp_path}/models")
    counts, right = output_of(BEFORE + snippet + AFTER, tmp_path).splitlines()
    assert counts == "{'broadcast': 2} [S(0)]"  # rotary's buffers
    assert right == "True"


def test_names_that_differ(tmp_path):
    snippet = blocks(PAGE)[1]
    source = (f"import shardplane as sp\nconfig = dict({snippet.strip()}\n)\n"
              "print(config['weights'].name('norm.weight'))")
    assert output_of(source, tmp_path) == "model.norm.weight\n"
