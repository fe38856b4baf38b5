"""The store on disk is, step by step, what a store in memory is; gate 9 of the faults takes many more steps."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from support.store_model import StoreModel

TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
