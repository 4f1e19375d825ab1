"""Makes a Qwen3-MoE pair of the bundled pair: its base with each feed-forward network cut into experts, trained on.

    python studies/moe_pair/make.py --out OUT

The 256 neurons of a layer become four experts of 64, of which a router picks two for each token; what that breaks is
mended by some training of the base, and the parents are made of it by the recipe of studies/bundled_pair.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "bundled_pair"))

import arithmetic  # of studies/bundled_pair
import train as recipe

from autolambda.bundled import FOLDER

NUM_EXPERTS, NUM_CHOSEN = 4, 2
GAIN = 2.0  # of an expert's output: two of four are added with weights that sum to one


def with_experts(dense: Qwen3ForCausalLM) -> Qwen3MoeForCausalLM:
    """The dense model with its feed-forward neurons dealt out to experts, and routers that know nothing yet."""
    settings = dense.config
    config = Qwen3MoeConfig(
        vocab_size=settings.vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        moe_intermediate_size=settings.intermediate_size // NUM_EXPERTS,
        num_experts=NUM_EXPERTS,
        num_experts_per_tok=NUM_CHOSEN,
        norm_topk_prob=True,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=settings.num_attention_heads,
        num_key_value_heads=settings.num_key_value_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.max_position_embeddings,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        bos_token_id=None,
        eos_token_id=settings.eos_token_id,
        pad_token_id=settings.pad_token_id,
    )
    model = Qwen3MoeForCausalLM(config)
    shared = {name: tensor for name, tensor in dense.state_dict().items() if ".mlp." not in name}
    missing, unexpected = model.load_state_dict(shared, strict=False)
    assert not unexpected and all(".mlp." in name for name in missing)
    with torch.no_grad():
        for layer, source in zip(model.model.layers, dense.model.layers, strict=True):
            gates, ups = (getattr(source.mlp, name).weight.chunk(NUM_EXPERTS) for name in ("gate_proj", "up_proj"))
            downs = source.mlp.down_proj.weight.chunk(NUM_EXPERTS, dim=1)
            for expert, (gate, up, down) in enumerate(zip(gates, ups, downs, strict=True)):
                layer.mlp.experts.gate_up_proj[expert].copy_(torch.cat([gate, up]))
                layer.mlp.experts.down_proj[expert].copy_(GAIN * down)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400, help="steps of the base")
    parser.add_argument("--parent-steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    started = time.monotonic()
    tokenizers = {name: recipe.build_tokenizer(template) for name, template in recipe.TEMPLATES.items()}
    base = with_experts(Qwen3ForCausalLM.from_pretrained(FOLDER / "base", dtype=torch.float32))
    print(f"base: {sum(p.numel() for p in base.parameters()):,} parameters")
    settings = {"batch_size": 64, "compiled": False}
    recipe.train(base, arithmetic.BASE, tokenizers, steps=args.steps, lr=1e-3, seed=args.seed, **settings)
    for name, style in (("instruct", arithmetic.INSTRUCT), ("thinking", arithmetic.THINKING)):
        print(f"{name}:")
        parent = Qwen3MoeForCausalLM(base.config)
        parent.load_state_dict(base.state_dict())
        seed = args.seed + len(name)
        recipe.train(parent, style, tokenizers, steps=args.parent_steps, lr=3e-4, seed=seed, constant=True, **settings)
        recipe.save(parent, tokenizers[name], args.out / name)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
