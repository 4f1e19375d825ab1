"""The report in a real browser: drawn, filtered, inert, at two widths and in both colour schemes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser, opened
from hostile import NAME as HOSTILE
from hostile import hostile, hostile_storage
from small_search import NAME, finished, finished_storage

from autolambda import StudyView, open_study
from autolambda.report.answer.budgets import slider
from autolambda.report.figures import FIGURES
from autolambda.report.figures.base import CONFIRMED, DARK

WIDTHS = (1280, 390)
# of the column with fewer tokens and of the one with more
RIGHT = {"helped": (False, True), "hurt": (True, False), "both right": (True, True), "both wrong": (False, False)}


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def study(started: Any) -> StudyView:
    finished()
    return open_study(NAME, storage=finished_storage())


@pytest.fixture(scope="module")
def file(study: StudyView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    study.save(path)
    return path


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        (1280, False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(1280, True), (390, False), (390, True)]),
    ],
)
def test_every_figure_is_drawn_without_an_error_or_a_request(started: Any, file: Path, width: int, dark: bool) -> None:
    with opened(started, file, width=width, dark=dark) as found:
        for name in FIGURES:
            place = found.page.locator(f"#figure-{name}")
            assert place.locator("svg.main-svg").count() > 0
            assert place.locator(".trace, .hm image").count() > 0, name
            box = place.bounding_box()
            assert box["width"] <= width and box["height"] > 100
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
        assert found.messages == [] and found.requests == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_colours_follow_the_readers_scheme(started: Any, file: Path, dark: bool) -> None:
    def colour(page: Any) -> str:
        find = "document.getElementById('figure-front').data.find(t => t.name === 'confirmed front')"
        return str(page.evaluate(f"{find}.line.color"))

    with opened(started, file, dark=dark) as found:
        assert colour(found.page) == (DARK[CONFIRMED] if dark else CONFIRMED)
        ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(ground.split("(")[1].split(",")[0]) < 60) == dark
        found.page.emulate_media(color_scheme="light" if dark else "dark")
        found.page.wait_for_timeout(300)
        assert colour(found.page) == (CONFIRMED if dark else DARK[CONFIRMED])


def test_hovering_shows_the_trial(started: Any, file: Path) -> None:
    with opened(started, file) as found:
        place = found.page.locator("#figure-front")
        place.scroll_into_view_if_needed()
        point = place.locator(".scatterlayer .trace .point").first.bounding_box()
        found.page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
        found.page.wait_for_selector("#figure-front .hoverlayer .hovertext")
        assert "accuracy" in found.texts("#figure-front .hoverlayer")[0] or place.locator(".hovertext").count()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_filters_leave_what_they_say(started: Any, study: StudyView, file: Path, width: int) -> None:
    comparison = study.comparison
    assert comparison is not None
    rows, pick = comparison.rows, comparison.pick
    with opened(started, file, width=width) as found:
        page = found.page

        def count() -> int:
            return int(page.locator("#count").inner_text().split()[0])

        assert count() == len(rows) and page.locator(".row").count() == min(10, len(rows))
        page.locator("#more").click()
        assert page.locator(".row").count() == min(20, len(rows))
        for grade in ("correct", "wrong"):
            page.select_option("[name=grade]", grade)
            assert count() == sum((cell := row.cells[pick]) is not None and cell.grade == grade for row in rows)
            assert set(found.texts(".cell.pick .grade")) <= {grade}
        page.select_option("[name=grade]", "")
        for contrast in comparison.contrasts:
            page.select_option("[name=other]", str(contrast.other))
            for kind in RIGHT:
                page.select_option("[name=where]", kind)
                first, last = sorted((pick, contrast.other))
                expected = [
                    row
                    for row in rows
                    if (a := row.cells[first])
                    and (b := row.cells[last])
                    and (a.grade == "correct", b.grade == "correct") == RIGHT[kind]
                ]
                assert count() == len(expected)
        page.select_option("[name=where]", "")
        prompt = rows[3].prompt or ""
        page.fill("[name=text]", prompt)
        assert 1 <= count() < len(rows) and prompt in found.texts(".asked .prompt")
        page.fill("[name=text]", "no response says this")
        assert count() == 0 and page.locator(".row").count() == 0
        assert found.messages == [] and found.requests == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_answers_other_budgets_at_any_price(started: Any, study: StudyView, file: Path, width: int) -> None:
    with opened(started, file, width=width) as found:
        page = found.page
        answer = page.locator("#budget-answer")
        assert study.pick is not None and f"Within 30 tokens: {study.pick.schedule} (trial " in answer.inner_text()
        last = page.evaluate("Number(document.forms['budget-form'].elements.step.max)")
        page.evaluate(
            "last => { const step = document.forms['budget-form'].elements.step; step.value = last;"
            " step.dispatchEvent(new Event('input', { bubbles: true })); }",
            last,
        )
        best = slider(study.report())[-1].result
        assert best is not None and f"{100 * best.score.accuracy:.1f} % (" in answer.inner_text()
        page.fill("[name=price]", "10")
        assert f"1,000 responses cost ${float(f'{best.score.mean_tokens / 100:.3g}'):g} " in answer.inner_text()
        first = page.locator(".cost").first
        assert float(first.inner_text()) == float(f"{float(first.get_attribute('data-mean')) / 100:.3g}")
        page.fill("[name=price]", "")
        assert "cost $0 " in answer.inner_text() and found.messages == []


def test_a_wide_table_on_a_phone_says_that_it_can_be_moved(started: Any, file: Path) -> None:
    for width, is_hinted in ((390, True), (1280, False)):
        with opened(started, file, width=width) as found:
            before = "[...document.querySelectorAll('#budgets .scroll, #front > .scroll')]"
            is_hint = "e => (e = e.previousElementSibling).className === 'swipe' && e.innerText.includes('→')"
            hints = found.page.evaluate(f"{before}.map({is_hint})")
            assert hints and all(hint == is_hinted for hint in hints)


def test_thinking_is_folded_until_it_is_asked_for(started: Any, study: StudyView, file: Path) -> None:
    with opened(started, file) as found:
        folded = found.page.locator(".cell details").first
        assert not folded.locator(".body").is_visible()
        folded.locator("summary").click()
        assert folded.locator(".body").is_visible() and folded.locator(".body").inner_text()


def test_the_page_prints_in_light_colours(started: Any, file: Path) -> None:
    with opened(started, file, dark=True) as found:
        printed = found.page.pdf(format="A4")
        assert printed.startswith(b"%PDF") and len(printed) > 50_000
        found.page.emulate_media(media="print", color_scheme="light")
        assert not found.page.locator("nav").is_visible() and found.messages == []


@pytest.mark.parametrize("width", [1280, pytest.param(390, marks=pytest.mark.slow)])
def test_hostile_text_is_inert(started: Any, tmp_path: Path, width: int) -> None:
    hostile()
    open_study(HOSTILE, storage=hostile_storage()).save(tmp_path / "report.html")
    with opened(started, tmp_path / "report.html", width=width) as found:
        page = found.page
        while page.locator("#more").is_visible():
            page.locator("#more").click()
        for each in page.locator("details").all():
            each.evaluate("element => element.open = true")
        for name in ("front", "curve", "progress"):
            page.evaluate(f"Plotly.Fx.hover('figure-{name}', [{{curveNumber: 0, pointNumber: 0}}])")
        page.wait_for_timeout(500)
        assert page.evaluate("window.hacked") is None
        assert page.locator("#rows img, #rows svg, #rows script, #rows a").count() == 0
        shown = page.locator("#rows").inner_text()
        assert "<script>window.hacked=1</script>" in shown and "</script><script>" in shown and "\\x1b[2J" in shown
        assert "{{ 7 * 191 }}" in shown and "1337" not in shown and "javascript:" in shown
        assert found.messages == [] and found.requests == []


def test_what_a_script_would_ask_of_the_network_is_refused(started: Any, study: StudyView, tmp_path: Path) -> None:
    """The page's policy holds even if something got in: a test of the test, and of the last line of defence."""
    page = study.page.replace("<main>", "<main><script>window.hacked=1</script><img src='https://example.com/x.png'>")
    (tmp_path / "broken.html").write_text(page, encoding="utf-8")
    with opened(started, tmp_path / "broken.html") as found:
        assert found.page.evaluate("window.hacked") is None and found.requests == []
        assert len(found.messages) == 2 and all("Content Security Policy" in message for message in found.messages)
