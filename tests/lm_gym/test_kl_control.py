"""The adaptive KL coefficient, by hand."""

import pytest

from lm_gym import AdaptiveKL
from lm_gym.errors import ConfigError


@pytest.mark.parametrize(
    ("kl", "num_episodes", "expected"),
    [
        (6.0, 100, 0.1),  # on target
        (6.6, 100, 0.1 * (1 + 0.1 * 100 / 1000)),  # 10 % over
        (5.4, 100, 0.1 * (1 - 0.1 * 100 / 1000)),
        (60.0, 100, 0.1 * (1 + 0.2 * 100 / 1000)),  # the error is clipped at 20 %
        (0.0, 100, 0.1 * (1 - 0.2 * 100 / 1000)),
        (-3.0, 100, 0.1 * (1 - 0.2 * 100 / 1000)),  # an estimate may be negative
        (60.0, 1000, 0.12),
        (60.0, 0, 0.1),
    ],
)
def test_the_coefficient_moves_by_the_clipped_relative_error(kl: float, num_episodes: int, expected: float) -> None:
    control = AdaptiveKL(target=6.0, horizon=1000)
    assert control.next_coef(0.1, kl, num_episodes) == pytest.approx(expected)


def test_a_whole_horizon_of_small_steps_changes_it_by_about_a_fifth() -> None:
    control, beta = AdaptiveKL(target=6.0, horizon=1000), 0.1
    for _ in range(10):
        beta = control.next_coef(beta, 100.0, 100)
    assert beta == pytest.approx(0.1 * 1.02**10)


@pytest.mark.parametrize("num_episodes", [50, 64, 10_000])
def test_the_coefficient_never_leaves_the_positive_numbers(num_episodes: int) -> None:
    # A short horizon against many episodes: 1 - .2 * 64 / 10 is negative.
    assert AdaptiveKL(target=6.0, horizon=10).next_coef(0.1, 0.0, num_episodes) > 0


def test_a_kl_that_is_no_number_is_refused_and_not_passed_on() -> None:
    with pytest.raises(ConfigError, match="kl"):
        AdaptiveKL(target=6.0).next_coef(0.1, float("nan"), 64)


@pytest.mark.parametrize("field", ["target", "horizon"])
@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_must_be_positive(field: str, wrong: float) -> None:
    with pytest.raises(ConfigError, match=rf"AdaptiveKL.{field}: must be a finite number > 0, got"):
        AdaptiveKL(**({"target": 6.0} | {field: wrong}))
