import pytest

import lm_gym.testing


def test_exported_members() -> None:
    assert lm_gym.testing.__all__ == sorted(lm_gym.testing.__all__, key=lambda name: (not name[0].isupper(), name))
    assert set(lm_gym.testing._HOMES) == set(lm_gym.testing.__all__) == set(dir(lm_gym.testing))
    for name in lm_gym.testing.__all__:
        assert getattr(lm_gym.testing, name).__doc__, name


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'lm_gym.testing' has no attribute 'nothing'"):
        lm_gym.testing.nothing  # noqa: B018
