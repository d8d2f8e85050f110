"""``import lm_gym`` is light, and the public names are the documented ones."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lm_gym

HEAVY = ("torch", "transformers", "datasets", "stable_baselines3", "rich", "scipy")
PROBE = "import sys; print(sorted({name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])))"


def loaded_by(code: str) -> list[str]:
    """The heavy packages in a fresh interpreter after some code."""
    command = [sys.executable, "-c", f"{code}\n{PROBE}", *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[str] = ast.literal_eval(done.stdout)
    return found


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import lm_gym; dir(lm_gym); lm_gym.__version__") == []


def test_the_check_above_would_see_a_heavy_import() -> None:
    assert loaded_by("import lm_gym.envs.rendering") == ["rich"]
    assert "torch" in loaded_by("import lm_gym, torch")


def test_settings_need_no_torch() -> None:
    assert loaded_by("import lm_gym; lm_gym.RewardConfig(); lm_gym.SamplingConfig(); lm_gym.AdaptiveKL(target=1)") == []


def test_importing_the_package_warns_of_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import lm_gym"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


PUBLIC = [
    "AdaptiveKL",
    "Episodes",
    "Evaluation",
    "FunctionRewardModel",
    "LanguageModel",
    "LmGymError",
    "LoraSettings",
    "Policy",
    "PolicyHandle",
    "PolicyLogProb",
    "Reference",
    "RewardConfig",
    "RewardModel",
    "SamplingConfig",
    "ScoreNormalizer",
    "Scores",
    "TextGenerationEnv",
    "TextGenerationVectorEnv",
    "TextTask",
    "VectorPolicyLogProb",
    "__version__",
    "evaluate",
    "load_language_model",
    "load_prompts",
    "load_reward_model",
    "token_rewards",
]


def test_the_public_names_are_these() -> None:
    assert lm_gym.__all__ == PUBLIC
    assert dir(lm_gym) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(lm_gym, name)
    if name != "__version__":
        assert inspect.getdoc(value)
        home = importlib.import_module(value.__module__)
        assert name in home.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lm_gym' has no attribute 'nonesuch'"):
        lm_gym.nonesuch  # noqa: B018


ROOT = Path(lm_gym.__file__).parent
FOLDERS = (".", "envs", "models", "runs", "scoring", "tools")
CORE = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_core_module_lists_its_public_names(path: Path) -> None:
    module = importlib.import_module(".".join(("lm_gym", *path.relative_to(ROOT).with_suffix("").parts)))
    assert len(set(module.__all__)) == len(module.__all__)
    for each in module.__all__:
        assert getattr(module, each) is not None
    assert module.__doc__


def test_every_error_is_of_one_tree_and_says_what_it_means() -> None:
    from lm_gym import errors

    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.LmGymError)
        assert error.__doc__
    bases = {"ConfigError": ValueError, "ActionError": ValueError, "EpisodeOverError": RuntimeError}
    for name, base in bases.items():
        assert issubclass(getattr(errors, name), base)


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert lm_gym.__version__ == version("lm-gym")


def test_a_missing_extra_names_what_to_install() -> None:
    from lm_gym.errors import MissingExtraError
    from lm_gym.tools.extras import require

    assert require("json", extra="x", purpose="y").dumps
    with pytest.raises(
        MissingExtraError,
        match=r"^plots: needs the package 'no_such_package', .* install it with: pip install 'lm-gym\[report\]'",
    ):
        require("no_such_package.sub", extra="report", purpose="plots")
