"""Evaluations: batches fixed by the slices, only what is owed is generated, and seeds that pair schedules."""

import contextlib
import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import engine
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.driver import intake
from autolambda.driver.engine import EngineSupervisor
from autolambda.driver.evaluation import EvaluationRequest, Evaluator
from autolambda.driver.events import Generated, Generating, Noted
from autolambda.engines.base import WATCH_STEPS, Progress, Prompt, Sampling, Watch
from autolambda.engines.chat import ChatFormat
from autolambda.errors import EngineError, GraderError
from autolambda.graders.grading import GRADERS, Score, score
from autolambda.graders.service import GradingService
from autolambda.merging.method import Method
from autolambda.responses import Grade, Response, Sample, is_aborted
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import task_weights
from autolambda.statistics.metrics import measure
from autolambda.study.store import Store
from autolambda.tasks.base import Slice
from autolambda.tasks.requests import batches, derive_seed, requests_on, token_weights

SAMPLING = Sampling(1.0, 1.0, 0, 0.0, 0.0, (), 20)
HALF = Schedule.uniform(0.5)


class FakeTokenizer:
    """Renders a template's text followed by the last message."""

    def apply_chat_template(self, messages, *, chat_template, add_generation_prompt, tokenize, **kwargs):
        assert add_generation_prompt and not tokenize
        return chat_template + messages[-1]["content"]


def respond(method: Method, prompt: Prompt, sampling: Sampling) -> Response:
    """Answers from merge, prompt and seed alone; some responses are cut."""
    digest = hashlib.sha256(f"{method}|{prompt.text}|{prompt.seed}".encode()).digest()
    text = f"{digest[0]}</think>{digest[1] % 10}" if digest[2] % 2 else str(digest[1] % 10)
    num_tokens = 1 + digest[3] % (sampling.max_tokens + 2)
    cut = num_tokens > sampling.max_tokens
    return Response(text, min(num_tokens, sampling.max_tokens), "length" if cut else "stop")


class FakeEngine(engine.FakeEngine):
    """Calls no watcher: it does not stream, and finishes every response at once."""

    def __init__(self, *, dies_at: int | None = None) -> None:
        super().__init__(dies_at=dies_at, respond=respond)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        return super().generate(prompts, sampling)


class StreamingEngine(FakeEngine):
    """Finishes one response every ``seconds`` of its own clock, the ``late`` ones last; dies after ``dies_after``."""

    def __init__(self, *, seconds: float = 0.4, dies_after: int | None = None, late: Sequence[int] = ()) -> None:
        super().__init__()
        self.streams, self.now = True, 100.0
        self._seconds, self._dies_after, self._late = seconds, dies_after, late

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        assert watch is not None
        self.batches.append(list(prompts))
        finished: list[Response | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: i in self._late)
        for count, i in enumerate(order):
            if count == self._dies_after:
                raise KeyboardInterrupt
            self.now += self._seconds
            finished[i] = respond(self.merges[-1], prompts[i], sampling)
            assert watch(Progress([each.num_tokens if each else 1 for each in finished], list(finished)))
        return [response for response in finished if response is not None]


def samples(count, prefix):
    return tuple(Sample(f"{prefix}{i}", ({"role": "user", "content": f"{prefix}{i}?"},), "3") for i in range(count))


SLICES = (Slice("one", "number", samples(5, "a"), 2), Slice("two", "exact", samples(3, "b"), 1))
NUM_RESPONSES = 13
OWED = requests_on(SLICES)


@pytest.fixture
def store(tmp_path):
    with closing(Store(f"sqlite:///{tmp_path}/study.db")) as opened:
        opened.create_study("s", config={}, identity={})
        yield opened


def begin(store, key="0", schedule=HALF):
    return store.evaluation("s", kind="trial", key=key, schedule=schedule, num_responses=NUM_RESPONSES)


def run(
    store,
    engine,
    evaluation=None,
    *,
    slices=SLICES,
    seed=0,
    batch_size=4,
    grading=None,
    on_event=None,
    on_seconds=None,
    on_call=None,
    **request,
):
    """Runs what is missing of an evaluation, the one with the key 0 by default."""
    evaluation = evaluation or begin(store)
    job = SimpleNamespace(
        search=slices,
        confirm=slices,
        batch_size=batch_size,
        models=SimpleNamespace(chat=ChatFormat(FakeTokenizer(), "T:"), sampling=SAMPLING),
        config=SimpleNamespace(search=SimpleNamespace(seed=seed)),
    )  # without what opens an engine
    evaluator = Evaluator(
        job,
        EngineSupervisor(job, engine, print),
        store,
        grading or GradingService(),
        study="s",
        on_event=on_event or (lambda event: None),
        on_merge=lambda schedule, engine: None,
        on_seconds=on_seconds or (lambda kind, key, seconds: None),
        on_call=on_call or (lambda kind, key, call: None),
    )
    return evaluator.run(EvaluationRequest("a title", "trial", evaluation.key, evaluation.schedule, **request))


def groups(sizes):
    """A watcher that collects the sizes of the groups that were stored."""
    return lambda event: sizes.append(event.num_responses) if isinstance(event, Generated) else None


def keys(graded):
    return [(g.task, g.sample_id, g.repeat) for g in graded]


def test_the_order_of_work_follows_from_the_slices():
    order = [owed.key for owed in OWED]
    assert [key for key in order if key[0] == "one"] == [
        ("one", f"a{i}", repeat) for repeat in (0, 1) for i in range(5)
    ]
    assert [key for key in order if key[0] == "two"] == [("two", f"b{i}", 0) for i in range(3)]
    assert len(set(order)) == len(order) == sum(part.num_responses for part in SLICES) == NUM_RESPONSES


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=4))
def test_any_number_of_the_first_holds_the_same_share_of_each_task(sizes):
    slices = [Slice(f"t{i}", "number", samples(count, "s"), repeats) for i, (count, repeats) in enumerate(sizes)]
    order = requests_on(slices)
    assert len({owed.key for owed in order}) == len(order) == sum(part.num_responses for part in slices)
    for part in slices:
        places = [owed for owed in order if owed.task == part.task]
        assert [owed.repeat for owed in places] == sorted(
            owed.repeat for owed in places
        )  # each prompt once, then again
        for stop in range(len(order) + 1):
            expected = stop * part.num_responses / len(order)
            assert abs(sum(owed.task == part.task for owed in order[:stop]) - expected) <= len(slices)


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 13), (4, [4, 4, 4, 1]), (13, [13]), (99, [13]), (None, [13])])
def test_the_batches_have_the_given_size(size, sizes):
    assert [len(batch) for batch in batches(OWED, size=size)] == sizes
    assert batches([], size=size) == []


def test_everything_owed_is_generated_graded_and_stored(store):
    engine = FakeEngine()
    evaluation = begin(store)
    graded = run(store, engine, evaluation)
    assert keys(graded) == [owed.key for owed in OWED]
    assert store.graded(evaluation) == graded
    assert engine.merges == [Method.linear(HALF)]
    assert [len(batch) for batch in engine.batches] == [4, 4, 4, 1]
    assert [prompt.text for prompt in engine.batches[0]] == ["T:a0?", "T:a1?", "T:b0?", "T:a2?"]


def test_another_method_is_merged_for_the_schedules_own(store):
    engine, ties = FakeEngine(), Method("ties", base="base")
    run(store, engine, begin(store), merge=ties)
    assert engine.merges == [ties]


def test_grades_follow_the_text_and_the_slices_grader(store):
    graded = run(store, FakeEngine(), begin(store))
    for g in graded:
        right = g.response.text.rpartition("</think>")[2] == "3"
        cut = g.response.finish_reason == "length"
        assert g.grade == (Grade.TRUNCATED if cut else Grade.CORRECT if right else Grade.WRONG)
        assert g.thought == ("</think>" in g.response.text)
    assert {g.thought for g in graded} == {True, False}


def test_an_engine_is_never_opened_where_nothing_is_owed(store):
    evaluation = begin(store)
    first = run(store, FakeEngine(), evaluation)
    assert run(store, None, evaluation) == first


@pytest.mark.parametrize("dies_at", range(4))
def test_a_resumed_evaluation_generates_just_the_missing_batches(store, dies_at):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation = begin(store)
    with pytest.raises(KeyboardInterrupt):
        run(store, FakeEngine(dies_at=dies_at), evaluation)
    assert store.graded(evaluation) == whole[: 4 * dies_at]
    engine, sizes = FakeEngine(), []
    assert run(store, engine, evaluation, on_event=groups(sizes)) == whole
    assert [len(batch) for batch in engine.batches] == [4, 4, 4, 1][dies_at:]
    assert sizes == [4, 4, 4, 1][dies_at:]
    assert store.graded(evaluation) == whole


@pytest.mark.parametrize("engine", [FakeEngine, StreamingEngine])
def test_just_what_a_batch_lacks_is_generated(store, engine):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation, some, sizes = begin(store), engine(), []
    store.add(evaluation, [whole[5], *whole[8:12], whole[0]])
    assert run(store, some, evaluation, on_event=groups(sizes)) == whole
    assert [len(batch) for batch in some.batches] == [3, 3, 1]
    assert sum(sizes) == len([*whole[1:5], *whole[6:8], whole[12]])


def streamed(store, monkeypatch, engine, evaluation, *, batch_size=None):
    """A run on an engine's own clock, and the sizes of the groups that it stored."""
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: engine.now))
    sizes = []
    graded = run(store, engine, evaluation, batch_size=batch_size, on_event=groups(sizes))
    return graded, sizes


@pytest.mark.parametrize(
    ("seconds", "batch_size", "late", "sizes"),
    [
        (0.4, None, (), [3, 3, 3, 3, 1]),  # every third is a second after the last store
        (2.0, None, (), [1] * 13),
        (0.0, None, (), [13]),  # in less than a second: at the end
        (0.4, 4, (), [3, 1, 3, 1, 3, 1, 1]),
        (2.0, None, (0,), [13]),  # those that wait for a long one wait with it
        (2.0, None, (4, 9), [1, 1, 1, 1, 5, 4]),
    ],
)
def test_the_first_responses_are_stored_while_others_still_run(store, monkeypatch, seconds, batch_size, late, sizes):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation, engine = begin(store), StreamingEngine(seconds=seconds, late=late)
    assert streamed(store, monkeypatch, engine, evaluation, batch_size=batch_size) == (whole, sizes)
    assert keys(store.graded(evaluation)) == keys(whole)


@pytest.mark.parametrize("dies_after", [0, 1, 3, 8, 12])
def test_a_stream_that_breaks_loses_a_second_at_most(store, monkeypatch, dies_after):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation = begin(store)
    with pytest.raises(KeyboardInterrupt):
        streamed(store, monkeypatch, StreamingEngine(dies_after=dies_after), evaluation)
    num_stored = len(store.graded(evaluation))
    assert dies_after - 3 < num_stored == dies_after // 3 * 3
    again = StreamingEngine()
    assert streamed(store, monkeypatch, again, evaluation)[0] == whole
    assert [len(batch) for batch in again.batches] == [NUM_RESPONSES - num_stored]
    assert run(store, None, evaluation) == whole


def test_no_response_is_kept_for_having_been_short(store, monkeypatch):
    """What is stored at a crash is the first responses, whichever are long: all others are drawn anew."""
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation = begin(store)
    with pytest.raises(KeyboardInterrupt):
        streamed(store, monkeypatch, StreamingEngine(seconds=2.0, dies_after=11, late=(4, 9)), evaluation)
    assert keys(store.graded(evaluation)) == keys(whole)[:4]


class Abortable(FakeEngine):
    """Ends the first three of a call, then asks; where the answer is no, the others end after a token each."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        whole = super().generate(prompts, sampling)
        lengths = [each.num_tokens if i < 3 else 1 for i, each in enumerate(whole)]
        if watch is None or watch(Progress(lengths, [*whole[:3], *[None] * len(whole[3:])])):
            return whole
        return [each if i < 3 else Response("cut", 1, "aborted") for i, each in enumerate(whole)]


def tokens_of(graded):
    return sum(g.response.num_tokens for g in graded)


def test_a_window_is_a_part_of_the_fixed_order(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation, engine = begin(store), FakeEngine()
    parts = [run(store, engine, evaluation, start=start, stop=stop) for start, stop in ((0, 5), (5, 6), (6, 99))]
    assert [len(part) for part in parts] == [5, 1, 7] and [each for part in parts for each in part] == whole
    assert [len(batch) for batch in engine.batches] == [4, 1, 1, 4, 3]
    assert run(store, None, evaluation, start=3, stop=8) == whole[3:8]


def test_too_many_tokens_abort_what_runs_and_end_the_result(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    limit = tokens_of(whole[:7]) - 1  # reached in the second batch, after its first three
    evaluation, engine = begin(store), Abortable()
    graded = run(store, engine, evaluation, max_tokens=limit)
    assert len(engine.batches) == 2 and graded[:7] == whole[:7] and is_aborted(graded) and not is_aborted(whole)
    assert [g.response for g in graded[7:]] == [Response("cut", 1, "aborted")]
    assert [(g.grade, g.answer, g.thought) for g in graded[7:]] == [(Grade.TRUNCATED, None, False)]
    assert store.graded(evaluation) == graded
    # resumed after a crash it is at its end, and no engine is needed
    assert run(store, None, evaluation, max_tokens=limit) == graded


@pytest.mark.parametrize("dies_at", [0, 1])
def test_an_abort_comes_out_the_same_after_a_crash(store, dies_at):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    limit = tokens_of(whole[:7]) - 1
    expected = run(store, Abortable(), begin(store, "once"), max_tokens=limit)
    evaluation = begin(store)
    with pytest.raises(KeyboardInterrupt):
        run(store, Abortable(dies_at=dies_at), evaluation, max_tokens=limit)
    assert run(store, Abortable(), evaluation, max_tokens=limit) == expected


def test_just_as_many_tokens_as_allowed_abort_nothing(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    graded = run(store, Abortable(), begin(store), max_tokens=tokens_of(whole))
    assert graded == whole


def test_a_batch_is_told_once_it_is_stored(store):
    evaluation, counts = begin(store), []

    def count(event):
        if isinstance(event, Generated):
            counts.append((event.num_responses, len(store.graded(evaluation))))

    run(store, FakeEngine(), evaluation, on_event=count)
    assert counts == [(4, 4), (4, 8), (4, 12), (1, 13)]


class SlowMarking:
    """Grades as the real one does, but hands out a grade only once ``release`` is called, or waits for none."""

    def __init__(self, *, fails: str | None = None) -> None:
        self.owed: list[tuple[Future[Score], Score]] = []
        self._fails = fails

    def score(self, response, target, *, grader, think_end) -> Future[Score]:
        future: Future[Score] = Future()
        if response.text == self._fails:
            future.set_exception(GraderError("my.grader raised ZeroDivisionError: division by zero"))
        else:
            self.owed.append((future, score(response, target, grader=GRADERS[grader], think_end=think_end)))
        return future

    def release(self):
        for future, scored in self.owed:
            future.set_result(scored)
        self.owed = []


class Watching(FakeEngine):
    """Grades of the batches before are handed out in the middle of each call; dies in the call ``fails_at``."""

    def __init__(self, store, evaluation, marking, *, fails_at: int | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self._store, self._evaluation, self._marking, self._fails_at = store, evaluation, marking, fails_at

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        before = len(self._store.graded(self._evaluation))
        self._marking.release()
        if watch:
            assert watch(Progress([1] * len(prompts), [None] * len(prompts)))
        self.seen.append((before, len(self._store.graded(self._evaluation))))
        if len(self.batches) == self._fails_at:
            raise EngineError("out of memory")
        found = super().generate(prompts, sampling)
        if len(self.batches) == 4:  # nobody asks for the last grades later
            self._later()
        return found

    def _later(self):
        score = self._marking.score

        def at_once(*args, **kwargs):
            future = score(*args, **kwargs)
            self._marking.release()
            return future

        self._marking.score = at_once


def test_slow_grades_do_not_hold_up_the_engine(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation, marking = begin(store), SlowMarking()
    engine = Watching(store, evaluation, marking)
    assert run(store, engine, evaluation, grading=marking) == whole
    # a batch is graded during the call after its own, and stored there
    assert engine.seen == [(0, 0), (0, 4), (4, 8), (8, 12)]
    assert store.graded(evaluation) == whole


def test_an_engine_that_fails_loses_no_response_that_still_was_to_be_graded(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation, marking = begin(store), SlowMarking()
    with pytest.raises(EngineError):
        engine = Watching(store, evaluation, marking, fails_at=2)
        run(store, engine, evaluation, grading=marking)
    assert store.graded(evaluation) == whole[:8]


def test_a_grader_that_fails_stops_the_study_and_names_the_sample(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation, marking = begin(store), SlowMarking(fails=whole[5].response.text)
    engine = Watching(store, evaluation, marking)
    with pytest.raises(GraderError) as caught:
        run(store, engine, evaluation, grading=marking)
    assert f"sample '{whole[5].sample_id}': my.grader raised ZeroDivisionError" in str(caught.value)
    assert "on_grader_error" in str(caught.value) and str(caught.value).count("\n") == 0
    assert store.graded(evaluation) == whole[:4]


def test_or_leaves_the_response_unparsed_where_the_task_says_so(store):
    slices = tuple(replace(part, on_grader_error="unparsed") for part in SLICES)
    whole = run(store, FakeEngine(), begin(store, "whole"), slices=slices)
    text = whole[5].response.text
    evaluation, marking, notes = begin(store), SlowMarking(fails=text), []
    engine = Watching(store, evaluation, marking)
    found = run(
        store,
        engine,
        evaluation,
        slices=slices,
        grading=marking,
        on_event=lambda event: notes.append(event.text) if isinstance(event, Noted) else None,
    )
    failed = [i for i, g in enumerate(whole) if g.response.text == text]
    assert (
        [g.grade for i, g in enumerate(found) if i in failed]
        == [Grade.UNPARSED] * len(failed)
        == [Grade.UNPARSED] * len(notes)
    )
    assert [g for i, g in enumerate(found) if i not in failed] == [g for i, g in enumerate(whole) if i not in failed]
    assert all(f"sample '{whole[i].sample_id}'" in note for i, note in zip(failed, notes, strict=True))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.2, 5.0)])
def test_tokens_are_weighed_as_in_the_mean_over_tasks(store, weights):
    slices = tuple(replace(part, weight=weight) for part, weight in zip(SLICES, weights, strict=True))
    graded = run(store, FakeEngine(), begin(store), slices=slices)
    by_task = token_weights(slices)
    shares = task_weights(by_task, weights={"one": weights[0] / sum(weights), "two": weights[1] / sum(weights)})
    weighed = sum(by_task[g.task] * g.response.num_tokens for g in graded)
    assert weighed == pytest.approx(len(graded) * measure(graded, weights=shares).mean_tokens.value)
    assert [owed.weight for owed in requests_on(slices)] == [by_task[owed.task] for owed in requests_on(slices)]


def test_a_guards_tokens_never_abort_anything(store):
    one, guard = SLICES[0], replace(SLICES[1], max_drop=0.02)
    assert token_weights([one]) == {"one": 1.0}
    assert token_weights([one, guard]) == {"one": pytest.approx(1.3), "two": 0.0}
    whole = run(store, FakeEngine(), begin(store, "whole"), slices=[one, guard])
    limit = 1.3 * tokens_of(g for g in whole if g.task == "one")
    assert limit < 1.3 * tokens_of(whole)
    assert run(store, Abortable(), begin(store), slices=[one, guard], max_tokens=limit) == whole


def seeds(store, key, *, schedule=HALF, phase="search", seed=0, batch_size=4):
    engine = FakeEngine()
    run(store, engine, begin(store, key, schedule), phase=phase, seed=seed, batch_size=batch_size)
    return [prompt.seed for batch in engine.batches for prompt in batch]


def test_in_the_confirmation_each_response_has_one_seed_for_all_schedules(store):
    first = seeds(store, "0", phase="confirm")
    assert seeds(store, "1", phase="confirm", schedule=Schedule.uniform(0.9)) == first
    assert seeds(store, "2", phase="confirm", batch_size=5) == first


def test_in_the_search_each_schedule_has_seeds_of_its_own(store):
    first, other = seeds(store, "0"), seeds(store, "1", schedule=Schedule.uniform(0.9))
    assert seeds(store, "2", batch_size=5) == first
    same = Schedule.from_dict(HALF.to_dict())
    assert seeds(store, "3", schedule=same) == first
    every = [*first, *other, *seeds(store, "4", phase="confirm"), *seeds(store, "5", seed=1)]
    assert len(set(every)) == 4 * NUM_RESPONSES


def test_a_parents_own_template_replaces_the_studys(store):
    engine = FakeEngine()
    own = ChatFormat(FakeTokenizer(), "own:")
    run(store, engine, begin(store), phase="confirm", chat=own)
    assert all(prompt.text.startswith("own:") for batch in engine.batches for prompt in batch)


def test_derived_seeds_are_fixed_and_spread():
    assert derive_seed(0, "search", "arithmetic", "search-0000", 0) == 2899212652424817444
    made = [derive_seed(seed, "search", "t", str(i), repeat) for seed in range(3) for i in range(50) for repeat in "01"]
    assert len(set(made)) == len(made)
    assert all(0 <= seed < 2**63 for seed in made)
    assert sum(seed > 2**62 for seed in made) in range(110, 190)


class LateGrading(GradingService):
    """Grades as the real service, but every score comes a moment later."""

    def score(self, *args, **kwargs):
        ready, late = super().score(*args, **kwargs), Future()
        threading.Timer(0.2, lambda: late.set_result(ready.result())).start()
        return late


class FailsAtSecondCall(FakeEngine):
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        if self.batches:
            raise EngineError("out of memory")
        return super().generate(prompts, sampling)


def test_scores_that_come_after_the_engine_failed_are_stored(store):
    whole = run(store, FakeEngine(), begin(store, "whole"))
    evaluation = begin(store)
    with pytest.raises(EngineError):
        run(store, FailsAtSecondCall(), evaluation, grading=LateGrading())
    assert store.graded(evaluation) == whole[:4]


def test_a_call_goes_on_at_its_limit_and_ends_above_it():
    requests = requests_on(SLICES[:1])[:2]
    call = intake.EngineCall(requests, intake.Intake(None, None, None), streams=False, max_tokens=10.0, on_event=print)
    assert call.watch(Progress([4, 6], [None, None])) and not call.watch(Progress([4, 7], [None, None]))


def test_the_seconds_of_generation_add_up_over_a_crash(store, monkeypatch):
    """The clock runs in the engine alone: neither opening it nor waiting for grades counts."""
    seconds, evaluation = [], begin(store)

    def on_seconds(kind, key, more):
        assert (kind, key) == ("trial", "0")
        seconds.append(more)

    for dies_after, stored in ((5, 3), (None, NUM_RESPONSES)):
        engine = StreamingEngine(dies_after=dies_after)
        monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda engine=engine: engine.now))
        with contextlib.suppress(KeyboardInterrupt):
            run(store, engine, evaluation, batch_size=None, on_seconds=on_seconds)
        assert len(store.graded(evaluation)) == stored
        assert sum(seconds) == pytest.approx(0.4 * stored)


def test_each_finished_call_is_timed(store, monkeypatch):
    engine, calls = StreamingEngine(seconds=0.5), []
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: engine.now))
    graded = run(store, engine, batch_size=4, on_call=lambda kind, key, call: calls.append((kind, key, call)))
    assert [(kind, key) for kind, key, _ in calls] == [("trial", "0")] * 4
    assert [call.num_responses for _, _, call in calls] == [4, 4, 4, 1]
    assert sum(call.num_tokens for _, _, call in calls) == sum(each.response.num_tokens for each in graded)
    assert [call.seconds for _, _, call in calls] == pytest.approx([2.0, 2.0, 2.0, 0.5])


def test_a_running_call_tells_what_is_not_stored_yet(store, monkeypatch):
    engine, events = StreamingEngine(seconds=1.5), []
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: engine.now))
    engine.streams = False  # so nothing is stored before the end of a call
    whole = run(store, engine, batch_size=4, on_event=events.append)
    first = events[1 : 1 + 5]  # four responses, one after the other, and then the batch
    lengths = [graded.response.num_tokens for graded in whole[:4]]
    assert first[:4] == [Generating(i + 1, sum(lengths[: i + 1]) + 3 - i) for i in range(4)]
    assert first[4] == Generated(4, sum(lengths))


def test_tokens_that_were_given_to_the_engine_are_not_timed(store, monkeypatch):
    engine, calls, events = StreamingEngine(seconds=1.5), [], []
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: engine.now))
    engine.streams = False
    graded = run(
        store,
        engine,
        num_given=2,
        batch_size=None,
        on_call=lambda kind, key, call: calls.append(call),
        on_event=events.append,
    )
    generated = [max(each.response.num_tokens - 2, 0) for each in graded]
    assert [call.num_tokens for call in calls] == [sum(generated)]
    assert [each.num_tokens for each in events if isinstance(each, Generating)][-1] == sum(generated)


@pytest.mark.parametrize(("mean", "prefill"), [(1000, 0.0), (1000, 1.0), (300, 1.0)])
def test_the_pace_of_an_engine_is_seen_through_lumps_of_tokens(monkeypatch, mean, prefill):
    """A GPU with 6 ms a step and 0.03 ms a row, told every 8 tokens, watched as vLLM's calls are."""
    step, row, every = 6e-3, 3e-5, 8
    lengths = np.maximum(np.random.default_rng(0).lognormal(np.log(mean) - 0.2, 0.63, 64), 1).astype(int)
    now, clock = [0.0], None
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = intake.CallClock()
    now[0] = prefill
    for at in range(1, lengths.max() + 1):
        now[0] += step + row * int((lengths >= at).sum())
        told = np.where(lengths <= at, lengths, at // every * every)
        if at % WATCH_STEPS == 0 or (lengths == at).any():
            clock.look(told.tolist(), [object() if length <= at else None for length in lengths])
    pace = clock.end(lengths.tolist()).pace
    assert pace.step == pytest.approx(step, rel=0.15) and 0.6 < pace.enough / (step / row * pace.longest) < 1.7
