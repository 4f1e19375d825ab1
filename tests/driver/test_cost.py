"""What validate tells of a config: how much a slice can tell, and the most that a search can cost."""

from types import SimpleNamespace

import pytest

from autolambda.config import parse_config
from autolambda.driver import cost
from autolambda.driver.cost import BYTES_PER_TOKEN, cost_lines, proof_sentence, slice_lines
from autolambda.responses import Sample
from autolambda.statistics.estimates import wilson
from autolambda.tasks.base import Slice


def part(num, repeats=1, **keys):
    samples = tuple(Sample(str(i), ({"role": "user", "content": f"q{i}"},), "1") for i in range(num))
    return Slice("some", "number", samples, repeats, **keys)


@pytest.mark.parametrize(
    ("num_correct", "num", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (80, 100, 0.7112, 0.8666), (12, 15, 0.5481, 0.9295), (10, 10, 0.7225, 1.0)],
)
def test_half_of_wilsons_interval(num_correct, num, low, high):
    """The bounds are of Wilson's interval as tables and other software have it."""
    assert wilson(num_correct / num, num)[1] == pytest.approx((high - low) / 2, abs=1e-4)


def test_a_slice_tells_what_it_can():
    assert slice_lines("search", part(1024)) == [
        "search: some, 1024 prompts x 1",
        "  accuracy to ±3.1 points at 50 % and ±2.4 points at 80 % (95 % intervals)",
    ]
    assert slice_lines("confirm", part(15, 8))[0] == "confirm: some, 15 prompts x up to 8"
    assert slice_lines("confirm", part(15)) == [
        "confirm: some, 15 prompts x 1",
        "  accuracy to ±22.6 points at 50 % and ±19.1 points at 80 % (95 % intervals)",
        "  15 prompts can hardly tell apart schedules that differ by less than 22.6 points",
    ]


def test_repeats_leave_a_range_between_the_same_answers_and_independent_ones():
    assert slice_lines("search", part(15, max_drop=0.0))[0].endswith("guard: at most 0 points below the better parent")
    first, second, third = slice_lines("search", part(15, repeats=8, max_drop=0.02))
    assert first == "search: some, 15 prompts x 8, guard: at most 2 points below the better parent"
    assert second == ("  accuracy to ±8.8 to ±22.6 points at 50 % and ±7.1 to ±19.1 points at 80 % (95 % intervals)")
    assert third.endswith("differ by less than 8.8 to 22.6 points")
    assert len(slice_lines("search", part(30))) == 2


@pytest.mark.parametrize(
    ("num", "repeats", "tokens", "share", "accuracy"),
    [(133, 8, 9, "0.91", 6), (133, 1, 12, "0.89", 8), (1024, 8, 5, "0.95", 4), (13, 8, 40, "0.71", 18)],
)
def test_the_plan_says_what_it_can_prove(num, repeats, tokens, share, accuracy):
    guard = part(5, 8, max_drop=0.1)
    said = proof_sentence([part(67, 4), guard], [part(num, repeats), guard])
    assert said.startswith(f"what {num} prompts in the confirmation can prove: tokens are known to about {tokens} %")
    assert f"below about {share} B;" in said and said.endswith(f"about ±{accuracy} points")


def test_the_plan_says_that_a_few_rows_prove_hardly_anything():
    assert proof_sentence([part(9)], [part(20)]).startswith(
        "with 29 rows hardly anything can be proven; give at least 30"
    )
    assert proof_sentence([part(10)], [part(20)]).startswith("what 20 prompts")


def costs(search, *, max_tokens=1000, **keys):
    models = SimpleNamespace(sampling=SimpleNamespace(max_tokens=max_tokens), pair=SimpleNamespace(num_bytes=8.04e9))
    return cost_lines(parse_config({"search": keys}), models, [search], [part(10)])


@pytest.mark.parametrize(
    ("search", "tokens"),
    [
        (part(3), "130,000"),  # 18 merges on 3 prompts, 6 finalists and both parents on 10: 134 responses
        (part(10), "260,000"),
        (part(300), "4,100,000"),  # both parents' 1,000 tokens on 2,048 responses, the least
        (part(4096), "8,200,000"),
        (part(1024, repeats=4), "8,200,000"),
    ],
)
def test_the_most_that_a_search_may_generate_goes_by_rows(search, tokens):
    first, second = costs(search)
    assert first == (
        f"tokens: at most {tokens}, if every response ran to the cap of 1,000 tokens; "
        "the search says what to expect once both models are measured"
    )
    assert second.endswith("for the study, 8.04 GB for an export")


@pytest.mark.parametrize(("device", "hours"), [("cuda", True), ("cpu", False)])
def test_hours_are_of_a_gpu_and_said_where_there_is_one(monkeypatch, device, hours):
    monkeypatch.setattr(cost, "vllm_device", lambda: SimpleNamespace(type=device))
    said = "; at most 0.46 GPU hours at 5,000 tokens/s, an assumption;"
    assert (said in costs(part(4096))[0]) == hours and ("GPU" in costs(part(4096))[0]) == hours


def test_a_cap_of_ones_own_on_the_tokens_is_what_it_costs():
    first, second = costs(part(4096), max_tokens_generated=36_000_000)
    assert first.startswith("tokens: at most 36,000,000, search.max_tokens_generated; the search says")
    assert second.startswith(f"disk: at most {36 * BYTES_PER_TOKEN:g} MB for the study")
    assert costs(part(10), max_tokens_generated=36_000_000)[0].startswith("tokens: at most 260,000, if every")


@pytest.mark.parametrize(
    ("max_drop", "expected"),
    [
        (0.02, "lose no more than 2 points from about 3,100 prompts on"),
        (0.05, "lose no more than 5 points from about 490 prompts on"),
        (0.0, "no number of prompts can show that nothing at all is lost"),
    ],
)
def test_a_guard_says_how_many_prompts_it_takes(max_drop, expected):
    assert any(expected in line for line in slice_lines("confirm", part(270, max_drop=max_drop)))
    assert not any("lose no more" in line for line in slice_lines("search", part(270, max_drop=max_drop)))
