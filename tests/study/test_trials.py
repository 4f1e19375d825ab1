"""Studies: a crash at any step changes nothing, one driver at a time, and a changed config is refused by name."""

import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import optuna
import pytest
import sqlalchemy
from made_up import aims, evidence, point, settings_of
from optuna.trial import TrialState

from autolambda.errors import StorageError, StudyError
from autolambda.optimizer.observations import Proposal
from autolambda.optimizer.propose import Stop, propose
from autolambda.optimizer.space import ranges, uniform_params
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Estimate
from autolambda.statistics.metrics import Measured
from autolambda.statistics.quantiles import Quantile, Quantiles
from autolambda.study.database import driver_lock
from autolambda.study.places import check_name, default_storage, studies_under
from autolambda.study.store import Store
from autolambda.study.trials import (
    Counts,
    Study,
    driver_errors,
)

CONFIG = settings_of(trials=5, ladder=3, seed=5, min_gain=0.0, max_tokens_generated=10**6)
NUM_KNOTS = 3


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def store(url):
    with closing(Store(url)) as opened:
        for name in ("one", "two"):
            opened.create_study(name, config={}, identity={})
        yield opened


def open_study(store, url, name="one"):
    return Study(store, name=name)


def measured(schedule: Schedule) -> Measured:
    """A made-up truth, from the schedule alone; values that no short decimal holds."""
    lam = (schedule.attention.mean() + schedule.ffn.mean()) / 2

    def exactly(value):
        return Estimate(value, 0.01, value, value, 10, 10)

    lengths = Quantiles(*(Quantile(10.0, False) for _ in range(4)))
    shares = exactly(lam), exactly(0.0), exactly(0.0)
    return Measured(exactly(lam / 3), exactly(10 + 70 * lam / 3), *shares, lengths, 10, {})


def proposal_of(study, config=CONFIG):
    """Proposes from what the study holds, as if every trial had measured the made-up truth."""
    ended = study.ended()
    points = [point(each.trial.params) for each in ended if not each.is_failed]
    return propose(evidence(points, [each.trial.params for each in ended if each.is_failed]), config, aims())


def ask(study, config=CONFIG):
    """The next trial as a run asks for it: the interrupted one, or a new one; ``None`` if the search is over."""
    if (interrupted := study.interrupted()) is not None:
        return interrupted
    proposal = proposal_of(study, config)
    return None if isinstance(proposal, Stop) else study.start(proposal, ranges=ranges(NUM_KNOTS))


def drive(store, url, *, name="one", config=CONFIG, num_trials=None):
    """Runs a study for ``num_trials`` trials or to its end; each trial's schedule."""
    schedules = []
    with closing(open_study(store, url, name)) as study:
        while len(schedules) != num_trials and (trial := ask(study, config)) is not None:
            schedules.append(trial.schedule)
            study.tell(trial, measured(trial.schedule))
    return schedules


def contents(study):
    """All that Optuna holds of a study's trials, but for the times."""
    return [(t.number, t.state, t.params, t.values, t.user_attrs) for t in study._study.get_trials()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('whole')}/study.db"
    with closing(Store(url)) as store:
        store.create_study("one", config={}, identity={})
        schedules = drive(store, url)
        return schedules, contents(open_study(store, url))


def die_before_the_proposal(study):
    assert study.interrupted() is None


def die_after_ask(study):
    ask(study)


def die_after_the_numbers(study):
    """Between those that are told beside the values and the values."""
    trial = ask(study)
    storage = study._study
    study._study = Dying(storage)
    with pytest.raises(KeyboardInterrupt):
        study.tell(trial, measured(trial.schedule))


class Dying:
    """Optuna's study, which dies when a trial is told."""

    def __init__(self, study):
        self._real = study

    def __getattr__(self, name):
        return getattr(self._real, name)

    def tell(self, *args, **kwargs):
        raise KeyboardInterrupt


def die_after_tell(study):
    trial = ask(study)
    study.tell(trial, measured(trial.schedule))


DEATHS = [die_before_the_proposal, die_after_ask, die_after_the_numbers, die_after_tell]


@pytest.mark.parametrize("num_done", [0, 4])
@pytest.mark.parametrize("die", DEATHS)
def test_a_crash_at_any_step_changes_nothing(store, url, uninterrupted, die, num_done):
    drive(store, url, num_trials=num_done)
    die(open_study(store, url))
    drive(store, url)
    study = open_study(store, url)
    assert contents(study) == uninterrupted[1]
    assert [trial.number for trial in study._study.get_trials()] == list(range(CONFIG.trials))


def test_a_trial_left_running_is_gone_on_with_under_its_number(store, url):
    drive(store, url, num_trials=2)
    first = ask(open_study(store, url))
    again = open_study(store, url)
    assert again.counts() == Counts(complete=2, pruned=0, failed=0, running=1)
    second = ask(again)
    assert (second.number, second.schedule) == (first.number, first.schedule) == (2, Schedule.uniform(0.5))


def test_one_that_crashes_again_and_again_stays_one_trial(store, url):
    for _ in range(3):
        trial = ask(open_study(store, url))
    assert trial.number == 0
    assert open_study(store, url).counts().running == 1


def test_a_finished_study_asks_for_nothing_and_grows_with_its_trials(store, url, uninterrupted):
    first = drive(store, url)
    assert ask(open_study(store, url)) is None
    assert drive(store, url) == []
    more = drive(store, url, config=replace(CONFIG, trials=7))
    assert len(more) == 2
    assert first == uninterrupted[0]
    assert open_study(store, url).counts() == Counts(complete=7, pruned=0, failed=0, running=0)


def test_failed_trials_are_not_among_the_points_and_keep_their_reason(store, url):
    study = open_study(store, url)
    study.fail(ask(study), "the GPU is gone")
    assert study.counts() == Counts(complete=0, pruned=0, failed=1, running=0)
    [ended] = study.ended()
    assert ended.is_failed and ended.failure == "the GPU is gone"
    assert ended.stopped is None and ended.trial.params == uniform_params(0.0, num_knots=3)
    [stored] = open_study(store, url)._study.get_trials()
    assert stored.state == TrialState.FAIL and stored.user_attrs["failure"] == "the GPU is gone"


def test_what_failed_is_passed_over_and_does_not_count(store, url):
    """In the ladder and after it, in the same process and in another."""
    failing, proposed = {0, 3, 4, 6}, []
    study = open_study(store, url)
    while (trial := ask(study)) is not None:
        proposed.append(trial.schedule)
        if trial.number in failing:
            study.fail(trial, "no")
            study = open_study(store, url)
        else:
            study.tell(trial, measured(trial.schedule))
    assert study.counts() == Counts(complete=CONFIG.trials, pruned=0, failed=4, running=0)
    assert len(set(proposed)) == len(proposed) == CONFIG.trials + 4
    assert proposed[:5] == [Schedule.uniform(lam) for lam in (0.0, 1.0, 0.5, 0.75, 0.625)]


def test_a_trial_holds_what_was_told_to_the_bit(store, url):
    (schedule,) = drive(store, url, num_trials=1)
    told = measured(schedule)
    [stored] = optuna.load_study(study_name="one", storage=url).trials
    assert stored.values == [told.accuracy.value, told.mean_tokens.value]
    assert stored.user_attrs["measured"] == {
        "accuracy": [told.accuracy.value, told.accuracy.standard_error],
        "mean_tokens": [told.mean_tokens.value, told.mean_tokens.standard_error],
        "think_ratio": [told.think_ratio.value, told.think_ratio.standard_error],
        "num_responses": 10,
    }


def test_a_trial_knows_its_responses_again_after_a_crash(store, url):
    proposal = Proposal(uniform_params(0.25, num_knots=3), 128, 512)
    first = open_study(store, url).start(proposal, ranges=ranges(3))
    again = open_study(store, url)
    second = again.interrupted()
    assert first == second and (second.start, second.stop) == (128, 512) and second.schedule == Schedule.uniform(0.25)
    again.tell(second, measured(second.schedule))
    [ended] = open_study(store, url).ended()
    assert ended.trial == first and not ended.is_failed and ended.stopped is None


def test_a_trial_that_lost_the_race_is_pruned_with_its_reason(store, url):
    study = open_study(store, url)
    study.prune(ask(study), "over the budget")
    [ended] = open_study(store, url).ended()
    assert ended.stopped == "over the budget" and not ended.is_failed
    assert study.counts() == Counts(complete=0, pruned=1, failed=0, running=0)
    assert optuna.load_study(study_name="one", storage=url).trials[0].state == TrialState.PRUNED


def test_why_the_search_stopped_is_kept_until_it_goes_on(store, url):
    assert open_study(store, url).stopped_for is None
    for reason in ("gain", "tokens", None, "trials"):
        open_study(store, url).stopped_for = reason
        assert open_study(store, url).stopped_for == reason


def test_two_studies_in_one_database_are_apart(store, url):
    drive(store, url, num_trials=3)
    drive(store, url, name="two", num_trials=1)
    assert [open_study(store, url, name).counts().complete for name in ("one", "two")] == [3, 1]


def test_what_has_ended_is_in_the_order_of_the_numbers_and_no_more(store, url):
    drive(store, url, num_trials=3)
    ask(open_study(store, url))  # still running
    assert [ended.trial.number for ended in open_study(store, url).ended()] == [0, 1, 2]


def test_optuna_holds_the_study_under_its_name(store, url):
    drive(store, url, num_trials=2)
    loaded = optuna.load_study(study_name="one", storage=url)
    assert [direction.name for direction in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(loaded.trials) == 2


HOLD = """
import sys
from autolambda.study.database import driver_lock
with driver_lock(sys.argv[1], "one"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_refused_until_the_first_has_died(store, url):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match="'one' is being run by process"), driver_lock(url, "one"):
            pass
        with driver_lock(url, "two"):  # another study of the same database
            assert store.names()
        first.kill()
    with driver_lock(url, "one"):
        pass


def test_a_lock_is_let_go_after_an_error(url):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), driver_lock(url, "one"):
            raise KeyboardInterrupt


def test_a_lock_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be opened"), driver_lock(f"sqlite:///{tmp_path}/file/study.db", "one"):
        pass


@pytest.mark.parametrize("name", ["a", "Qwen3-4B_thinking.v2", "0", "x" * 64])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "a/b", "/a", "../a", "a\\b", "-a", ".a", "a b", "a\n", "ä", "x" * 65, "a\x00"]
)
def test_bad_names_are_refused_in_one_line(name):
    with pytest.raises(StudyError, match="use up to 64 letters") as caught:
        check_name(name)
    assert "\n" not in str(caught.value)


def test_studies_of_a_folder(tmp_path):
    for name in ("b", "a"):
        Store(default_storage(name).replace("studies", str(tmp_path))).close()
    (tmp_path / "empty").mkdir()
    assert studies_under(tmp_path) == [(name, f"sqlite:///{tmp_path}/{name}/study.db") for name in ("a", "b")]
    assert studies_under(tmp_path / "gone") == []


def test_a_database_that_fails_under_optuna_is_one_line():
    full = sqlalchemy.exc.OperationalError("", {}, Exception("database or disk is full"))
    with pytest.raises(StorageError, match=r"\(database or disk is full\)"), driver_errors():
        raise optuna.exceptions.StorageInternalError("during the commit") from full


def test_optunas_log_is_muted_while_a_study_is_driven_and_then_as_before(store, url, caplog):
    level = optuna.logging.get_verbosity()
    optuna.logging.enable_propagation()
    try:
        with driver_errors():
            open_study(store, url)
        assert not caplog.records and optuna.logging.get_verbosity() == level
        open_study(store, url, "two")
        assert "A new study created" in caplog.text
    finally:
        optuna.logging.disable_propagation()


def test_seconds_of_an_evaluation_add_up_and_are_its_own(store, url):
    with closing(open_study(store, url)) as study, closing(open_study(store, url, "two")) as other:
        assert study.seconds_of("trial", "0") is None
        for seconds in (1.5, 2.0):
            study.add_seconds("trial", "0", seconds)
        study.add_seconds("confirm", "0", 4.0)
        assert (study.seconds_of("trial", "0"), study.seconds_of("confirm", "0")) == (3.5, 4.0)
        assert study.seconds_of("trial", "1") is None and other.seconds_of("trial", "0") is None
