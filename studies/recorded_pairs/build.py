"""Trains the recorded pairs by their recipes, each into a folder that autolambda loads.

    python studies/recorded_pairs/build.py OUT --pairs cliff,words,flat,dip

OUT/NAME gets ``instruct``, ``thinking``, ``rows.jsonl`` for searches, ``test.jsonl`` for the truth and ``config.yaml``.
A fifth of all questions, chosen by hash, is never trained on; both files come from it and are disjoint.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch
import yaml
from recipes import RECIPES, Recipe, Stage
from tasks import TASKS, Task
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "bundled_pair"))

from arithmetic import is_held_out  # of studies/bundled_pair
from train import CONTEXT, SPECIAL, TEMPLATES, with_template
from training import Row, fit, save

SIZES = {"rows": 2400, "test": 2000}
KINDS = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def build_tokenizer(task: Task, template: str) -> PreTrainedTokenizerFast:
    """Words or characters as tokens; the roles and the tags are one token each."""
    words = [*SPECIAL, "<unk>", "user", "assistant", *([] if task.joint else ["\n"]), *task.vocabulary]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    if task.joint:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"user|assistant|[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    return with_template(tokenizer, template, unk_token="<unk>")


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    config, model = KINDS[recipe.architecture]
    return model(
        config(
            vocab_size=-(-len(tokenizer) // 8) * 8,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.ffn,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads[0],
            num_key_value_heads=recipe.heads[1],
            head_dim=32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            rope_theta=10_000.0,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.05,
        )
    )


def response(rng: random.Random, task: Task, question: str, stage: Stage, *, think_is_open: bool) -> str:
    """One response in a style drawn by the stage's weights."""
    answer = (task.key(question) if task.key else "") + task.answer(question)
    if rng.random() >= stage.think:
        return task.openings[0] + answer
    num_passes = rng.choices(list(stage.passes), list(stage.passes.values()))[0]
    thoughts = f"{task.joint}{task.again}{task.joint}".join([task.thought(question)] * num_passes)
    return task.joint.join([*([] if think_is_open else ["<think>"]), task.openings[1] + thoughts, "</think>", answer])


def training_rows(
    rng: random.Random, recipe: Recipe, stage: Stage, tokenizers: dict[str, PreTrainedTokenizerFast], count: int
) -> list[Row]:
    """Rows of questions that are not held out, under both templates in equal shares."""
    task = TASKS[recipe.task]
    edges = {name: prompt_of(tokenizer, "\x00").split("\x00") for name, tokenizer in tokenizers.items()}
    heads, texts = [], []
    while len(heads) < count:
        question = task.question(rng)
        if is_held_out(question):
            continue
        template = "thinking" if rng.random() < 0.5 else "instruct"
        heads.append(question.join(edges[template]))
        texts.append(response(rng, task, question, stage, think_is_open=template == "thinking"))
    tokenizer = tokenizers["thinking"]
    prompts, answers = tokenizer(heads).input_ids, tokenizer(texts).input_ids
    return [(head + text + [tokenizer.eos_token_id], len(head)) for head, text in zip(prompts, answers, strict=True)]


def prompt_of(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    message = {"role": "user", "content": question}
    return str(tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False))


def build(name: str, folder: Path, seed: int) -> None:
    """Trains a pair into its folder."""
    recipe = RECIPES[name]
    task = TASKS[recipe.task]
    tokenizers = {parent: build_tokenizer(task, template) for parent, template in TEMPLATES.items()}
    torch.manual_seed(seed)
    model = build_model(recipe, tokenizers["thinking"])
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    begun = time.monotonic()

    def trained(stage: Stage, stage_seed: int, *, constant: bool) -> None:
        fit(
            model,
            lambda rng, count: training_rows(rng, recipe, stage, tokenizers, count),
            steps=stage.steps,
            lr=stage.lr,
            batch_size=recipe.batch_size,
            seed=stage_seed,
            pad=tokenizers["thinking"].pad_token_id,
            tokens_a_row=recipe.tokens_a_row,
            constant=constant,
        )

    base_path = folder / "base.pt"  # kept, so that the parents can be trained anew
    folder.mkdir(parents=True, exist_ok=True)
    if base_path.exists():
        model.load_state_dict(torch.load(base_path))
    else:
        trained(recipe.base, seed, constant=False)
        torch.save(model.state_dict(), base_path)
    base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for parent, stage in (("instruct", recipe.instruct), ("thinking", recipe.thinking)):
        print(f"{parent}:", flush=True)
        model.load_state_dict(base)
        trained(stage, seed + len(parent), constant=True)
        save(model, tokenizers[parent], folder / parent, max_tokens=recipe.cap, **recipe.sampling)
    print(f"{time.monotonic() - begun:.0f} s", flush=True)


def write_rows(name: str, folder: Path, seed: int) -> None:
    """The task files, and a config for ``autolambda search --config``."""
    task, rng, seen = TASKS[RECIPES[name].task], random.Random(seed), dict[str, None]()
    while len(seen) < sum(SIZES.values()):
        question = task.question(rng)
        if is_held_out(question):
            seen[question] = None
    questions = list(seen)
    rng.shuffle(questions)  # short questions are few, and come first
    for split, size in SIZES.items():
        drawn = [questions.pop() for _ in range(size)]
        rows = [
            {"id": f"{split}-{i:04d}", "question": each, "answer": task.answer(each)} for i, each in enumerate(drawn)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "models": {parent: str((folder / parent).resolve()) for parent in TEMPLATES},
        "tasks": [{"path": str((folder / "rows.jsonl").resolve()), "grader": task.grader}],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", default=",".join(RECIPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.pairs.split(","):
        build(name, args.out / name, args.seed)
        write_rows(name, args.out / name, args.seed)


if __name__ == "__main__":
    main()
