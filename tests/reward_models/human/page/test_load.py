"""Twenty annotators at once: every answer is there, once, and each is told of it soon enough."""

from __future__ import annotations

import pytest

from benchmarks.labelling_page import measure


def test_a_few_people_at_once() -> None:
    load = measure(people=5, questions=60, think_seconds=0.0)
    assert (load.labels, load.refused) == (60, 0)
    assert len(load.seconds["/api/answers"]) == 60


@pytest.mark.slow
def test_twenty_people_and_two_thousand_labels() -> None:
    load = measure(people=20, questions=2000, think_seconds=0.0)
    assert (load.labels, load.refused) == (2000, 0)
    load = measure(people=20, questions=400, think_seconds=0.5)
    assert (load.labels, load.refused) == (400, 0)
    assert load.quantile("/api/answers", 0.95) < 0.2
