"""Fit a reward model to rankings by noisy annotators, measure it, and swap it into a running environment.

Command:  python examples/03_reward_model_from_rankings.py
Time:     about 1 minute on two CPU cores
Expected: accuracy well above the length-only baseline on prompts that the model has not seen
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import gymnasium
import numpy as np

from lm_gym import load_reward_model, reviews
from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models import (
    AnnotatorPool,
    BradleyTerryAnnotator,
    PreferenceRewardModel,
    Question,
    RewardTrainingConfig,
    evaluate_reward_model,
)


def main() -> None:
    """Rank, fit, measure, save, load by its folder, swap in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few rankings")
    options = parser.parse_args()
    train_count, held_out_count = (8, 4) if options.smoke else (192, 48)

    rng = np.random.default_rng(0)
    prompts = reviews.prompts("train")[:train_count] + reviews.prompts("held_out")[:held_out_count]
    items = [Question.of(prompt, [reviews.sample_review(prompt, rng) for _ in range(4)]) for prompt in prompts]
    people = [BradleyTerryAnnotator(reviews.true_score, temperature=0.1, seed=number) for number in range(5)]
    judgements = AnnotatorPool(people).ask(items)

    with tempfile.TemporaryDirectory() as folder:
        config = RewardTrainingConfig(epochs=1 if options.smoke else 4, learning_rate=5e-4)
        PreferenceRewardModel.train(judgements[:train_count], REVIEWS_LM, config, output_dir=Path(folder) / "reward")
        reward_model = load_reward_model(Path(folder) / "reward")
    found = evaluate_reward_model(reward_model, judgements[train_count:])
    print(f"accuracy {found.accuracy:.3f} on {found.pairs} held-out pairs; length alone {found.length_accuracy:.3f}")

    env = gymnasium.make("lm_gym/Reviews-v0", max_new_tokens=4)
    env.set_wrapper_attr("reward_model", reward_model)  # between episodes, at any time
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(env.action_space.sample())
    print(f"the environment now pays this model's score: {info['score']:.3f} for {info['response']!r}, random tokens")


if __name__ == "__main__":
    main()
