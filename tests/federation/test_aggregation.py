"""Methods of aggregation against results worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.errors import PlanError
from hilum.federation import aggregation
from hilum.federation.aggregation import CommonState
from hilum.planning.plan_sections import FederationSettings

RNG = np.random.default_rng(0)
BEFORE = {"w": RNG.normal(size=(3, 2)).astype(np.float32)}


def pooled(method, sites, before=BEFORE, moments=(), **chosen):
    chosen = FederationSettings(method=method, **chosen)
    common = CommonState(before, dict(moments))
    return aggregation.aggregate(aggregation.make_aggregation(chosen), common, sites)


def site(value, share=1.0):
    return {"w": np.full((3, 2), value, np.float32)}, share


def test_the_mean_of_one_site_and_of_two_alike_is_that_site_bit_for_bit():
    weights = {"w": RNG.normal(size=(50, 40)).astype(np.float32) * 10.0 ** RNG.integers(-8, 8, (50, 40))}
    weights["w"] = weights["w"].astype(np.float32)
    for sites in ({"a": (weights, 7.0)}, {"a": (weights, 7.0), "b": (weights, 7.0)}):
        assert pooled("fedavg", sites, {"w": weights["w"] + 1}).weights["w"].tobytes() == weights["w"].tobytes()


def test_the_mean_counts_training_cases():
    assert_allclose(pooled("fedavg", {"a": site(1, 30), "b": site(5, 10)}).weights["w"], 2.0)


def test_the_order_of_arrival_changes_no_bit():
    sites = {name: ({"w": RNG.normal(size=(3, 2)).astype(np.float32)}, 3.0) for name in "abcde"}
    other = dict(reversed(sites.items()))
    assert pooled("fedavg", sites).weights["w"].tobytes() == pooled("fedavg", other).weights["w"].tobytes()


@pytest.mark.parametrize(("method", "expected"), [("median", 2.0), ("trimmed_mean", 2.5)])
def test_one_wrong_site_moves_neither_median_nor_trimmed_mean_far(method, expected):
    sites = {name: site(value) for name, value in zip("abcde", (1, 2, 2, 3.5, -1e6), strict=True)}
    sites["e"] = site(1e6)
    assert_allclose(pooled(method, sites).weights["w"], expected)


@pytest.mark.parametrize("server", ["adam", "yogi"])
def test_the_servers_own_optimiser_steps_as_in_the_paper(server):
    """Reddi et al., algorithm 2, with tau 1e-3: from m = 0 and v = tau^2."""
    before = {"w": np.zeros((3, 2), np.float32)}
    found = pooled("fedopt", {"a": site(0.5)}, before, server=server, server_rate=0.1)
    first, second = 0.1 * 0.5, 1e-6 * 0.99 + 0.01 * 0.25
    if server == "yogi":
        second = 1e-6 + 0.01 * 0.25
    assert_allclose(found.weights["w"], 0.1 * first / (np.sqrt(second) + 1e-3), rtol=1e-6)
    again = pooled("fedopt", {"a": site(0.5)}, found.weights, found.moments, server=server, server_rate=0.1)
    assert (again.weights["w"] > found.weights["w"]).all()


def test_statistics_of_batch_normalisation_are_those_of_all_samples_together():
    groups = {"a": RNG.normal(3, 2, 400), "b": RNG.normal(-1, 1, 100)}
    sites = {
        name: (
            {
                "norm.running_mean": np.array([own.mean()], np.float32),
                "norm.running_var": np.array([own.var()], np.float32),
                "norm.num_batches_tracked": np.array(count),
            },
            float(len(own)),
        )
        for count, (name, own) in enumerate(groups.items())
    }
    found = pooled("median", sites, sites["a"][0]).weights
    together = np.concatenate([*groups.values()])
    assert_allclose(found["norm.running_mean"], together.mean(), rtol=1e-5)
    assert_allclose(found["norm.running_var"], together.var(), rtol=1e-5)
    assert found["norm.num_batches_tracked"] == 1


@dataclass
class Largest:
    """A toy: of each number the largest."""

    chosen: FederationSettings

    def start(self, common):
        self.common, self.found = common, {}

    def add(self, site, weights, share):
        self.found = {name: np.maximum(one, self.found.get(name, one)) for name, one in weights.items()}

    def finish(self):
        return CommonState(self.found)

    @property
    def of_averages(self):
        return Largest(self.chosen)


def test_a_method_is_one_class_and_a_line_in_the_index(monkeypatch):
    monkeypatch.setitem(aggregation.AGGREGATIONS, "largest", f"{__name__}:Largest")
    assert_allclose(pooled("largest", {"a": site(1), "b": site(4)}).weights["w"], 4.0)
    with pytest.raises(PlanError, match="there is no method 'smallest'"):
        aggregation.make_aggregation(FederationSettings(method="smallest"))
