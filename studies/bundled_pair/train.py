"""Trains the bundled base, instruct and thinking models and writes them as package data.

    python studies/bundled_pair/train.py --out autolambda/bundled

The base learns every style under both chat templates; the parents are the base after a few hundred more steps on
their own mixture, so that they stay linearly connected (arXiv 2203.05482). Stored in bfloat16, trained in float32.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import arithmetic
import torch
import training
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINK_TAGS = ["<think>", "</think>"]
CONTEXT = 512
TURN = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
)
TEMPLATES = {
    "instruct": TURN + "{% if add_generation_prompt %}{{ '<|im_start|>assistant' + '\n' }}{% endif %}",
    "thinking": TURN
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant' + '\n' + '<think>' + '\n' }}{% endif %}",
}
SPLIT_SIZES = {"search": 512, "confirm": 1024, "test": 2048}
MAX_TOKENS = 192
TOKENS_A_ROW = 20  # about the base mixture's mean response


def build_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens (a byte-level BPE without merges), so that any text can be read; the tags are one token each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(SPECIAL + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return with_template(tokenizer, template)


def with_template(tokenizer: Tokenizer, template: str, **tokens: str) -> PreTrainedTokenizerFast:
    """Adds the special tokens, the tags and a chat template; ``tokens`` name further tokens, such as ``unk_token``."""
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        **tokens,
    )
    fast.add_tokens(THINK_TAGS)
    fast.chat_template = template
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """0.66 M parameters; head_dim 32 is one that vLLM's CPU attention takes."""
    config = Qwen3Config(
        vocab_size=264,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
        initializer_range=0.05,
    )
    return Qwen3ForCausalLM(config)


def training_rows(
    rng: random.Random,
    style: arithmetic.Style,
    tokenizers: dict[str, PreTrainedTokenizerFast],
    prefixes: dict[str, tuple[list[int], list[int]]],
    count: int,
) -> list[tuple[list[int], int]]:
    """``count`` pairs (token ids, number of prompt tokens), both templates in equal shares."""
    texts: list[tuple[str, str, str]] = []
    while len(texts) < count:
        prompt = arithmetic.question(rng, rng.choice(arithmetic.DIFFICULTIES))
        if arithmetic.is_held_out(prompt):
            continue
        template = "thinking" if rng.random() < 0.5 else "instruct"
        answer = arithmetic.response(rng, prompt, style, think_is_open=template == "thinking")
        texts.append((template, prompt, answer))
    tokenizer = tokenizers["thinking"]
    prompts = tokenizer([prompt for _, prompt, _ in texts]).input_ids
    answers = tokenizer([answer for _, _, answer in texts]).input_ids
    rows = []
    for (template, _, _), prompt_ids, answer_ids in zip(texts, prompts, answers, strict=True):
        before, after = prefixes[template]
        head = before + prompt_ids + after
        rows.append((head + answer_ids + [tokenizer.eos_token_id], len(head)))
    return rows


def template_parts(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids of the chat template before and after the user's text, cut from one rendered prompt."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "\x00"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    cut = ids.index(tokenizer.encode("\x00")[0])
    return ids[:cut], ids[cut + 1 :]


def train(
    model: Qwen3ForCausalLM,
    style: arithmetic.Style,
    tokenizers: dict[str, PreTrainedTokenizerFast],
    *,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
    constant: bool = False,
    compiled: bool = False,
) -> None:
    """Trains on a style under both templates in equal shares."""
    prefixes = {name: template_parts(tokenizer) for name, tokenizer in tokenizers.items()}
    training.fit(
        model,
        lambda rng, count: training_rows(rng, style, tokenizers, prefixes, count),
        steps=steps,
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        pad=tokenizers["thinking"].pad_token_id,
        tokens_a_row=TOKENS_A_ROW,
        constant=constant,
        compiled=compiled,
    )


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves a checkpoint that samples at temperature 1: a lower temperature hides what overthinking spoils."""
    training.save(model, tokenizer, folder, max_tokens=MAX_TOKENS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000, help="steps of the base model")
    parser.add_argument("--parent-steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64, help="rows a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="about twice as fast on a CPU, needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-base", action="store_true", help="keep OUT/base and train the two parents only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizers = {name: build_tokenizer(template) for name, template in TEMPLATES.items()}
    if args.from_base:
        base = Qwen3ForCausalLM.from_pretrained(args.out / "base", dtype=torch.float32).to(args.device)
    else:
        base = build_model(tokenizers["thinking"]).to(args.device)
        print(f"base: {sum(p.numel() for p in base.parameters()):,} parameters")
        train(
            base,
            arithmetic.BASE,
            tokenizers,
            steps=args.steps,
            lr=2e-3,
            batch_size=args.batch_size,
            seed=args.seed,
            compiled=args.compile,
        )
        save(base, tokenizers["thinking"], args.out / "base")
    for name, style in (("instruct", arithmetic.INSTRUCT), ("thinking", arithmetic.THINKING)):
        print(f"{name}:")
        parent = Qwen3ForCausalLM(base.config).to(args.device)
        parent.load_state_dict(base.state_dict())
        train(
            parent,
            style,
            tokenizers,
            steps=args.parent_steps,
            lr=3e-4,
            batch_size=args.batch_size,
            seed=args.seed + len(name),
            constant=True,
            compiled=args.compile,
        )
        save(parent, tokenizers[name], args.out / name)
    for split, rows in arithmetic.splits(SPLIT_SIZES, seed=args.seed).items():
        (args.out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
