"""The loop on your own files, from Python: demonstrations, judgements and prompts in, a tuned model out.

Command:  python examples/08_your_own_files.py [--files FOLDER] [--model FOLDER_OR_HUB_ID] [--out FOLDER]
Time:     about 2 minutes on two CPU cores
Expected: the accuracy of the reward model on prompts it has not seen, then score and KL before and after

FOLDER holds ``demonstrations.jsonl`` ({"prompt", "completion"}), ``pairs.jsonl`` ({"prompt", "chosen", "rejected"}; any
other form of judgement will do too) and ``prompts.jsonl`` ({"prompt"}). Without it the example writes such files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import gymnasium
import numpy as np

from lm_gym import AdaptiveKL, evaluate, reviews
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, SupervisedConfig, supervised_finetune, train
from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models import (
    PreferenceRewardModel,
    RewardTrainingConfig,
    evaluate_reward_model,
    load_judgements,
    split_by_prompt,
)


def write_files(folder: Path, count: int) -> None:
    """Files as users have them, about the built-in reviews."""
    rng = np.random.default_rng(0)
    prompts = reviews.prompts("train")[:count]
    rows: dict[str, list[dict[str, str]]] = {"demonstrations": [], "pairs": [], "prompts": []}
    for prompt in prompts:
        texts = sorted((reviews.sample_review(prompt, rng) for _ in range(4)), key=lambda text: _truth(prompt, text))
        rows["demonstrations"].append({"prompt": prompt, "completion": texts[-1]})
        rows["pairs"].append({"prompt": prompt, "chosen": texts[-1], "rejected": texts[0]})
        rows["prompts"].append({"prompt": prompt})
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _truth(prompt: str, text: str) -> float:
    return float(reviews.true_score([prompt], [text])[0])


def main() -> None:
    """Fine-tune, fit a reward model, train against it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="folder of the three files")
    parser.add_argument("--model", default=str(REVIEWS_LM), help="language model to start from")
    parser.add_argument("--out", type=Path, help="new folder of the tuned model; without it nothing is kept")
    parser.add_argument("--smoke", action="store_true", help="a few rows and episodes")
    options = parser.parse_args()
    count, iterations, episodes = (16, 1, 4) if options.smoke else (192, 15, 64)

    with tempfile.TemporaryDirectory() as temporary:
        files = options.files or Path(temporary)
        if options.files is None:
            write_files(files, count)
        start = Path(temporary) / "sft"
        supervised_finetune(options.model, files / "demonstrations.jsonl", start, SupervisedConfig(epochs=1))

        parts = split_by_prompt(load_judgements(files / "pairs.jsonl").judgements, held_out=0.2)
        config = RewardTrainingConfig(epochs=1 if options.smoke else 3, learning_rate=5e-4, progress=False)
        reward_model = PreferenceRewardModel.train(parts.train, start, config)
        found = evaluate_reward_model(reward_model, parts.held_out)
        print(
            f"reward model: {found.accuracy:.3f} right on {found.pairs} pairs; length alone {found.length_accuracy:.3f}"
        )

        env = gymnasium.make_vec(
            "lm_gym/TextGeneration-v0",
            num_envs=1,
            model=str(start),  # the frozen reference
            prompts=str(files / "prompts.jsonl"),
            action_mode="token_and_log_prob",
            max_new_tokens=64,
        )
        env.reward_model = reward_model
        policy = LanguageModelPolicy.from_pretrained(start)
        held_out = [one.prompt for one in parts.held_out][:48]
        before = evaluate(policy, env, held_out)
        agent = PPO(policy, PPOConfig(episodes_per_iteration=episodes, learning_rate=3e-4))
        train(agent, env, iterations=iterations, adaptive_kl=AdaptiveKL(target=4.0, horizon=600))
        after = evaluate(policy, env, held_out, reference_episodes=before.reference_episodes)
        for name, one in (("before", before), ("after", after)):
            print(f"{name:>6}: score {one.score:+.3f}, KL {one.kl:.2f} nats")
        print(f"on {after.win_rate:.0%} of the held-out prompts the policy's answer beats the start's")
        if options.out is not None:
            print("saved in", policy.save_pretrained(options.out))


if __name__ == "__main__":
    main()
