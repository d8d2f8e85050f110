"""Write a reward model in ten lines, hold it to the contract, mix it with others, and read what each part pays.

Command:  python examples/06_your_own_reward_model.py
Time:     a few seconds
Expected: the checks pass, a broken model is caught, and a table shows the parts of each score
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

import numpy as np

from lm_gym import Scores, reviews
from lm_gym.errors import RewardModelError
from lm_gym.reward_models import LengthReward, RepetitionPenalty, WeightedSum
from lm_gym.testing import check_reward_model


class StaysOnTopic:
    """Share of the prompt's longer words that the response takes up; it abstains where the prompt has none."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Scores of shape (B,)."""
        topics = [{word for word in re.findall(r"\w+", prompt.lower()) if len(word) > 3} for prompt in prompts]
        shares = [sum(w in text.lower() for w in t) / max(len(t), 1) for t, text in zip(topics, responses, strict=True)]
        return Scores(value=np.array(shares, dtype=np.float32), valid=np.array([bool(t) for t in topics], dtype=bool))


class ForgetsTheMask(StaysOnTopic):
    """Broken on purpose: its scores depend on what else is in the batch."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Scores of shape (B,)."""
        longest = max(map(len, responses), default=0)
        return Scores.of([len(text) / max(longest, 1) for text in responses])


def main() -> None:
    """Check, break, mix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="nothing is shortened: it takes seconds")
    parser.parse_args()
    rng = np.random.default_rng(0)
    prompts = reviews.prompts("train")[:4]
    texts = [reviews.sample_review(prompt, rng) for prompt in prompts]

    check_reward_model(StaysOnTopic(), prompts=prompts, responses=texts)
    print("StaysOnTopic keeps the contract")
    try:
        check_reward_model(ForgetsTheMask(), prompts=prompts, responses=texts)
    except RewardModelError as error:
        print(f"caught: {error}")

    mixed = WeightedSum(
        {
            "topic": (1.0, StaysOnTopic()),
            "length": (0.5, LengthReward(target=25, tolerance=20)),
            "repetition": (2.0, RepetitionPenalty(ngram=2)),
        }
    )
    for row in mixed.table(prompts, texts):
        parts = ", ".join(f"{name} {value:+.2f}" for name, value in row["terms"].items())
        print(f"{row['total']:+.2f} = {parts}  {row['response']}")


if __name__ == "__main__":
    main()
