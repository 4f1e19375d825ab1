"""The cut engine: what goes on after the cap and how, what it counts, and the bundled pair within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import pytest
from checkpoints import tiny_tokenizer
from small_search import small_config

from autolambda.driver.baselines import choose_cut
from autolambda.driver.engine import open_engine
from autolambda.driver.job import Job, open_job
from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.chat import ChatFormat
from autolambda.engines.wrappers import CutEngine
from autolambda.graders.grading import GRADERS, score
from autolambda.merging.method import Method
from autolambda.responses import Grade, Graded, Response, Sample
from autolambda.schedule import Schedule

CHAT = ChatFormat(tiny_tokenizer(), "")  # a token a byte, the tag is one
CLOSING, NUM_FORCED = "\n</think>\n\n", 4
SAMPLING = Sampling(
    temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, presence_penalty=0.2, stop=("STOP",), max_tokens=100
)


class ScriptedEngine:
    """Writes what its script says after a prompt that ends in the key, then an end token; remembers its calls."""

    streams = True
    in_words = "scripted"

    def __init__(self, script: Mapping[str, str]) -> None:
        self._script = script
        self.calls: list[tuple[list[Prompt], Sampling, Watch | None]] = []
        self.log: list[object] = []

    def set_merge(self, method: Method) -> None:
        self.log.append(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        self.calls.append((list(prompts), sampling, watch))
        return [self._response(prompt.text, sampling.max_tokens) for prompt in prompts]

    def _response(self, prompt: str, max_tokens: int) -> Response:
        (whole,) = (text for key, text in self._script.items() if prompt.endswith(key))
        ids = CHAT.tokenizer(whole, add_special_tokens=False).input_ids
        if len(ids) < max_tokens:
            return Response(whole, len(ids) + 1, "stop")
        return Response(str(CHAT.tokenizer.decode(ids[:max_tokens])), max_tokens, "length")

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("weights", whole=True)

    def close(self) -> None:
        self.log.append("closed")


def cut(script: Mapping[str, str], *prompts: str, cap: int, max_tokens: int = 100) -> list[Response]:
    engine = CutEngine(ScriptedEngine(script), CHAT, cap=cap)
    return engine.generate([Prompt(text, 1) for text in prompts], replace(SAMPLING, max_tokens=max_tokens))


@pytest.mark.parametrize(
    ("script", "cap", "max_tokens", "expected"),
    [
        pytest.param({"Q:": "abc"}, 4, 100, Response("abc", 4, "stop"), id="ended on its own"),
        pytest.param(
            {"Q:": "abcdef", "Q:abcd" + CLOSING: "42"},
            4,
            100,
            Response("abcd" + CLOSING + "42", 4 + 3, "stop"),
            id="still thinking",
        ),
        pytest.param({"Q:": "abcd", "Q:abcd" + CLOSING: "4"}, 4, 100, Response("abcd" + CLOSING + "4", 6, "stop")),
        pytest.param(
            {"Q:": "ab\ndef", "Q:ab\n</think>\n\n": "42"},
            3,
            100,
            Response("ab\n</think>\n\n42", 6, "stop"),
            id="at the end of a line",
        ),
        pytest.param(
            {"Q:": "ab</think>cdefgh", "Q:ab</think>c": "defgh"},
            4,
            100,
            Response("ab</think>cdefgh", 4 + 6, "stop"),
            id="an answer goes on",
        ),
        pytest.param(
            {"Q:": "ab</think>cd", "Q:ab</think>": "cd"},
            3,
            100,
            Response("ab</think>cd", 3 + 3, "stop"),
            id="closed by the last token",
        ),
        pytest.param(
            {"Q:": "abcdef", "Q:ab" + CLOSING: "x" * 99},
            2,
            20,
            Response("ab" + CLOSING + "x" * 14, 2 + 14, "length"),
            id="an answer without an end: the forced tokens have their room",
        ),
        pytest.param(
            {"Q:": "ab" * 9, "Q:abababab" + CLOSING: "x"},
            8,
            13,
            Response("abababab" + CLOSING + "x", 8 + 1, "length"),
            id="one token left",
        ),
        pytest.param({"Q:": "ab" * 9}, 8, 12, Response("abababab", 8, "length"), id="no token left"),
        pytest.param({"Q:": "ab" * 9}, 50, 12, Response("abababababab", 12, "length"), id="a cap above max_tokens"),
        pytest.param(
            {"Q:": "aé€", "Q:aé" + CLOSING: "1"},
            4,
            100,
            Response("aé" + CLOSING + "1", 4 + 2, "stop"),
            id="in the middle of a character",
        ),
    ],
)
def test_a_response_and_its_cap(script: dict[str, str], cap: int, max_tokens: int, expected: Response) -> None:
    assert cut(script, "Q:", cap=cap, max_tokens=max_tokens) == [expected]


def test_responses_keep_their_order_and_only_the_cut_go_on() -> None:
    script = {"A:": "long thought", "B:": "ok", "C:": "b</think>answer", "A:long" + CLOSING: "1", "b</think>an": "swer"}
    engine = ScriptedEngine(script)
    prompts = [Prompt("A:", 1), Prompt("B:", 2), Prompt("C:", 3)]
    texts = [response.text for response in CutEngine(engine, CHAT, cap=4).generate(prompts, SAMPLING)]
    assert texts == ["long" + CLOSING + "1", "ok", "b</think>answer"]
    (first, sampling, _), (second, rest, _) = engine.calls
    assert first == prompts and sampling == replace(SAMPLING, max_tokens=4)
    assert [prompt.text for prompt in second] == ["A:long" + CLOSING, "C:b</think>an"]
    assert rest == replace(SAMPLING, max_tokens=100 - 4 - NUM_FORCED)


def test_the_second_seed_follows_from_the_first() -> None:
    seeds = []
    for seed in (1, 2, 1):
        engine = ScriptedEngine({"Q:": "abcd", CLOSING: "1"})
        CutEngine(engine, CHAT, cap=2).generate([Prompt("Q:", seed)], SAMPLING)
        seeds.append(engine.calls[1][0][0].seed)
    assert seeds[0] == seeds[2] != seeds[1] and not {1, 2} & set(seeds)


def test_nothing_to_cut_is_one_call() -> None:
    engine = ScriptedEngine({"Q:": "ab"})
    assert CutEngine(engine, CHAT, cap=9).generate([Prompt("Q:", 1)], SAMPLING) == [Response("ab", 3, "stop")]
    assert CutEngine(engine, CHAT, cap=9).generate([], SAMPLING) == []
    assert [len(prompts) for prompts, _, _ in engine.calls] == [1, 0]


def test_the_engine_inside_is_reached() -> None:
    engine = ScriptedEngine({"Q:": "abcdef", CLOSING: "1"})
    outside: Engine = CutEngine(engine, CHAT, cap=4)
    assert not outside.streams and outside.in_words == "scripted, thinking cut at 4 tokens"
    outside.set_merge(Method.linear(Schedule.uniform(1.0)))
    outside.generate([Prompt("Q:", 1)], SAMPLING, watch=lambda progress: False)
    assert outside.fingerprint() == Fingerprint("weights", whole=True)
    outside.close()
    assert engine.log == [Method.linear(Schedule.uniform(1.0)), "closed"]
    assert [watch for _, _, watch in engine.calls] == [None, None]


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_below_one_is_refused(cap: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        CutEngine(ScriptedEngine({}), CHAT, cap=cap)


def test_another_tag() -> None:
    chat = ChatFormat(CHAT.tokenizer, "", think_end="[/T]")
    engine = CutEngine(ScriptedEngine({"Q:": "abcd", "Q:ab\n[/T]\n\n": "1"}), chat, cap=2)
    assert engine.generate([Prompt("Q:", 1)], SAMPLING) == [Response("ab\n[/T]\n\n1", 4, "stop")]


@pytest.fixture(scope="module")
def job() -> Job:
    return open_job(small_config(sampling__max_tokens=192, tasks=[{"name": "arithmetic", "limit": 60, "repeats": 1}]))


@pytest.fixture(scope="module")
def thinking(job: Job) -> list[Graded]:
    with closing(open_engine(job)) as engine:
        return graded(job, engine)


def graded(job: Job, engine: Engine) -> list[Graded]:
    """The Thinking model's responses under its own template."""
    chat, samples = job.models.own_chats["thinking"], job.search[0].samples
    engine.set_merge(Method.linear(Schedule.uniform(1.0)))
    responses = engine.generate(
        [Prompt(chat.render(sample), i) for i, sample in enumerate(samples)], job.models.sampling
    )
    return [_graded(sample, response) for sample, response in zip(samples, responses, strict=True)]


def _graded(sample: Sample, response: Response) -> Graded:
    scored = score(response, sample.target, grader=GRADERS["number"], think_end="</think>")
    return Graded("arithmetic", sample.id, 0, response, scored.grade, scored.answer, "</think>" in response.text)


def mean_tokens(responses: Sequence[Graded]) -> float:
    return sum(each.response.num_tokens for each in responses) / len(responses)


@pytest.mark.parametrize("budget", [20, 40, 60])
def test_the_bundled_pair_is_cut_into_its_budget_and_answers(job: Job, thinking: list[Graded], budget: int) -> None:
    cap = choose_cut(thinking, job.models.chat, budget=budget)
    assert cap is not None and mean_tokens(thinking) > 70
    with closing(CutEngine(open_engine(job), job.models.chat, cap=cap)) as engine:
        responses = graded(job, engine)
    # the model is small: after the forced tag it sometimes thinks on
    assert budget / 1.25 < mean_tokens(responses) < budget * 1.25 < mean_tokens(thinking)
    for each, whole in zip(responses, thinking, strict=True):
        thought, _, answer = each.response.text.partition("</think>")
        if whole.response.num_tokens <= cap:
            assert each.response == whole.response
        else:
            assert each.thought and answer.strip() and each.response.finish_reason == "stop"
            assert whole.response.text.startswith(thought.removesuffix("\n"))
    assert cap < max(each.response.num_tokens for each in thinking)


def test_a_cap_above_every_response_changes_nothing(job: Job, thinking: list[Graded]) -> None:
    with closing(CutEngine(open_engine(job), job.models.chat, cap=191)) as engine:
        assert graded(job, engine) == thinking
    assert sum(each.grade is Grade.CORRECT for each in thinking) > 30
