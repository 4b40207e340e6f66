from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hilum.planning import plan_checks, plan_file
from hilum.training.length import step_probe
from hilum.training.length.schedule import FEWEST_STEPS
from hilum.training.length.step_probe import Probe
from hilum.training.processes import Ranks
from hilum.training.session_length import Length
from hilum.training.step.computation import Compute
from hilum.training.training_state import CommandClock

PLAIN, LAST, COMPILED = Compute(), Compute(channels_last=True), Compute(compiled=True)


@pytest.fixture(scope="session")
def chosen(segmented):
    """How a small run was trained, with nothing decided about how steps are computed."""
    return replace(
        plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml")).training, compute=None
    )


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.InstanceNorm2d(4))


def test_what_is_left_becomes_steps_and_validations():
    found = step_probe.fitting_budget([0.5] * 6, 2.0, 106.0, 10)
    assert found.validations == 5  # a tenth of the time
    assert found.steps == int((106 - 5 * 2) / (0.5 * step_probe.STEP_OVERHEAD))
    assert "106 s are left for steps of 0.530 s, measured over 6, and 5 validations of 2.0 s" in found.because


def test_one_slow_step_of_the_probe_decides_nothing():
    assert (
        step_probe.fitting_budget([0.5, 0.5, 0.5, 0.5, 30.0], 0.0, 100.0, 10).steps
        == step_probe.fitting_budget([0.5] * 5, 0.0, 100.0, 10).steps
    )


def test_without_time_a_few_steps_are_taken_and_it_is_said():
    found = step_probe.fitting_budget([1.0], 5.0, -3.0, 10)
    assert (found.steps, found.validations) == (FEWEST_STEPS, 1)
    assert "0 s are left" in found.because
    assert "longer than was asked for" in found.because


def test_time_for_more_steps_than_there_may_be_is_left_over_and_it_is_said():
    usual, capped = (
        step_probe.fitting_budget([0.5] * 6, 2.0, 106.0, 10),
        step_probe.fitting_budget([0.5] * 6, 2.0, 106.0, 10, most=50),
    )
    assert (capped.steps, capped.validations) == (50, usual.validations)
    assert f"for {usual.steps} steps; 50 are all that there may be" in capped.because
    assert step_probe.fitting_budget([0.5] * 6, 2.0, 106.0, 10, most=usual.steps) == usual


def slow_probe(module, chosen, seconds, taken=lambda compute: None):
    """A probe of steps that take so long on a clock of its own."""
    now = [0.0]

    def step(compute, number):
        now[0] += seconds
        taken(compute)

    return Probe(module, step, chosen, lambda: now[0])


@pytest.mark.parametrize(("seconds", "processes", "batch"), [(0.1, 1, None), (1.0, 1, 8), (9.0, 1, 1), (9.0, 4, 4)])
def test_where_there_is_time_for_few_steps_they_are_of_fewer_samples(chosen, seconds, processes, batch):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.InstanceNorm2d(4))
    found = slow_probe(module, replace(chosen, batch=16), seconds).fewer_samples(100.0, processes)
    assert (None if found is None else found.value) == batch
    if found is not None:
        assert f"a step with the planned 16 samples takes {seconds:.1f} s, and only" in found.because
        assert "fit into the 100 s that are left" in found.because


def test_what_normalises_over_a_batch_keeps_samples_to_do_it_by(chosen, module):
    assert slow_probe(module, replace(chosen, batch=36), 9.0).fewer_samples(100.0).value == 9
    assert slow_probe(module, replace(chosen, batch=8), 9.0).fewer_samples(100.0) is None
    plain = torch.nn.Conv2d(2, 4, 3)
    assert slow_probe(plain, replace(chosen, batch=48), 9.0).fewer_samples(100.0, fewest=10).value == 12


@pytest.mark.parametrize(("longest", "rounds"), [(0.0, 3), (6.5, 7), (1e9, 60)])
def test_a_race_is_as_long_as_it_may_be(longest, rounds):
    """Two ways of which each step takes half a second, on a clock of its own."""
    now = [0.0]

    def timed(compute, number):
        now[0] += 0.5
        return 0.5

    times = step_probe.race_candidates([PLAIN, LAST], timed, longest, lambda: now[0])
    assert {method: len(taken) for method, taken in times.items()} == dict.fromkeys([PLAIN, LAST], rounds - 2)


def test_a_way_that_is_far_slower_is_given_up_after_its_first_warm_step():
    tried = []

    def timed(compute, number):
        tried.append(compute)
        return 5.0 if number == 0 else 1.5 if compute is LAST else 1.0  # the first step of both only warms up

    times = step_probe.race_candidates([PLAIN, LAST], timed, 1e9)
    assert tried.count(LAST) == 2
    assert times[LAST] == [1.5]
    assert tried.count(PLAIN) == step_probe.MOST_PROBE_STEPS


def test_what_is_hardly_faster_is_noise_and_the_simpler_way_stays():
    assert step_probe.fastest_of({PLAIN: [1.0, 1.0, 9.0], LAST: [0.98, 0.98, 0.98]}) is PLAIN
    assert step_probe.fastest_of({PLAIN: [1.0, 1.0, 1.0], LAST: [0.9, 0.9, 9.0], COMPILED: [0.95] * 3}) is LAST


def test_what_a_person_set_is_not_put_to_the_test(chosen, module):
    assert step_probe.compute_candidates(module, replace(chosen, compute="channels-last", precision="float32")) == [
        LAST
    ]


def test_a_deterministic_training_is_computed_in_one_way_on_any_day(chosen, module):
    assert step_probe.compute_candidates(module, replace(chosen, deterministic=True, precision="float32")) == [PLAIN]
    assert len(step_probe.compute_candidates(module, chosen)) > 1


@pytest.mark.parametrize(("device", "looks"), [("cpu", [3]), ("cuda:0", [1, 3])])
def test_a_gpu_chooses_its_kernels_before_its_look_at_validation_cases_is_timed(device, looks, module):
    now, seen = [0.0], []

    def validated(cases, compute, windows):
        now[0] += len(cases) + 12 * (not seen and device != "cpu")
        seen.append(len(cases))

    known = {"ranks": Ranks(), "averaged": module, "device_settings": SimpleNamespace(device=device), "shown_cases": ()}
    known["settings"] = SimpleNamespace(inference=SimpleNamespace(patch=(20, 20), overlap=0.5))
    cases = [SimpleNamespace(shape=(20, 30))] * 9
    length = Length(CommandClock(0.0, now=lambda: now[0]))
    assert length._validation(SimpleNamespace(validate=validated, val_cases=cases, **known), PLAIN, 100.0) == (
        None,
        9.0,
    )
    assert seen == looks


def test_a_look_at_validation_cases_takes_as_much_longer_as_they_are_larger_than_those_that_were_timed(module):
    now = [0.0]

    def validated(cases, compute, windows):
        now[0] += sum(np.prod(case.shape) for case in cases) / 100

    sizes = [(10, 10), (20, 10), (10, 10), (50, 40), (30, 10)]
    cases = [SimpleNamespace(shape=size) for size in sizes]
    known = {
        "ranks": Ranks(),
        "averaged": module,
        "device_settings": SimpleNamespace(device="cpu"),
        "val_cases": cases,
        "shown_cases": (),
        "settings": SimpleNamespace(inference=SimpleNamespace(patch=(20, 20), overlap=0.5)),
    }
    length = Length(CommandClock(0.0, now=lambda: now[0]))
    windows, seconds = length._validation(SimpleNamespace(validate=validated, **known), PLAIN, 100.0)
    assert (windows, seconds) == (None, pytest.approx(27.0))


@pytest.mark.parametrize(("left", "windows"), [(100.0, 1), (1000.0, 12), (100_000.0, None)])
def test_a_look_at_large_validation_cases_sees_so_many_windows_that_several_looks_fit(left, windows, module):
    now = [0.0]

    def validated(cases, compute, most):
        now[0] += sum(most for case in cases)  # a second a window

    cases = [SimpleNamespace(shape=(200, 200))] * 2
    inference = SimpleNamespace(patch=(20, 20), overlap=0.5)
    known = {"ranks": Ranks(), "averaged": module, "device_settings": SimpleNamespace(device="cpu"), "shown_cases": ()}
    session = SimpleNamespace(validate=validated, val_cases=cases, settings=SimpleNamespace(inference=inference))
    session.__dict__.update(known)
    length = Length(CommandClock(0.0, now=lambda: now[0]))
    every = 19 * 19
    assert length._validation(session, PLAIN, left) == (windows, 2 * (windows or every))
    assert now[0] == 2  # two windows are enough to know


@pytest.mark.parametrize("left", [10.0, 100.0])
def test_a_probe_leaves_no_trace_but_the_order_in_memory(chosen, module, left):
    before = copy.deepcopy(module.state_dict())
    images = torch.randn(3, 2, 12, 12)
    found = Probe(module, lambda compute, step: module(images).square().sum().backward(), chosen).fastest(left)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    decision = found.decision
    assert Compute.from_name(decision.value, chosen) == found.compute
    assert "eager 0." in decision.because
    assert "channels-last 0." in decision.because
    assert "too few to try torch.compile" in decision.because
    assert (found.work is not None) == (left >= step_probe.PEAK_FROM)


def test_a_training_of_few_steps_is_not_probed_for_as_long_as_its_minutes_would_allow(chosen):
    flat, taken = torch.nn.Linear(2, 2), []
    probing = slow_probe(flat, replace(chosen, deterministic=True), 0.002, taken.append)
    probing.fastest(3600.0, most=100)
    few = len(taken)
    assert few == step_probe.PROBE_WARMUP + step_probe.PROBE_STEPS
    probing.fastest(3600.0)
    steps_of_the_peak = 1
    assert len(taken) - few == step_probe.MOST_PROBE_STEPS + steps_of_the_peak


@pytest.mark.whole
def test_a_compiler_that_fails_costs_nothing_but_its_time(chosen, module):
    def step(compute, number):
        if compute.compiled:
            raise RuntimeError("no compiler for C++\nwas found")
        module(torch.randn(3, 2, 12, 12)).square().sum().backward()

    found = Probe(module, step, chosen).fastest(step_probe.COMPILING / step_probe.COMPILE_SHARE + 1)
    assert not found.compute.compiled
    assert "torch.compile failed (no compiler for C++)" in found.because
    assert module._compiled_call_impl is None
