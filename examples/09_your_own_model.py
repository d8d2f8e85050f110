"""Prompts of your own, a language model from a folder or the hub, and a reward of your own.

Command:  python examples/09_your_own_model.py [--model FOLDER_OR_HUB_ID] [--device cuda]
Time:     about 1 minute on two CPU cores with the built-in model
Expected: answers before and after; the share of training responses that say "love" rises from about .1

A model with a chat template is given its prompts as chats (``{"messages": [...]}``), another one as text.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium

from lm_gym import AdaptiveKL, evaluate
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.assets import REVIEWS_LM

QUESTIONS = (
    "Review of a desk lamp:",
    "Review of a kettle:",
    "Review of a pillow:",
    "Review of a backpack:",
)


def warm(prompts: list[str], completions: list[str]) -> list[float]:
    """1 for saying "love" once, 0 otherwise."""
    return [float(text.count("love") == 1) for text in completions]


def prompts_for(tokenizer: Any) -> list[dict[str, Any]]:
    """Rows in the form that the model was trained on."""
    if tokenizer.chat_template is None:
        return [{"prompt": question} for question in QUESTIONS]
    return [{"messages": [{"role": "user", "content": question}]} for question in QUESTIONS]


def main() -> None:
    """Load, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(REVIEWS_LM), help="folder or hub id of a causal language model")
    parser.add_argument("--device", default="auto", help="of policy and reference")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="1e-5 for 100 million weights and more")
    parser.add_argument("--smoke", action="store_true", help="one iteration of a few episodes")
    options = parser.parse_args()
    iterations, episodes = (1, 4) if options.smoke else (options.iterations, 64)

    policy = LanguageModelPolicy.from_pretrained(options.model, device=options.device)
    prompts = prompts_for(policy.tokenizer)
    env = gymnasium.make_vec(
        "lm_gym/TextGeneration-v0",
        num_envs=1,
        model=options.model,  # the frozen reference; loaded once, and the policy learns on a copy
        device=options.device,
        prompts=prompts,
        reward_model=warm,
        action_mode="token_and_log_prob",
        max_new_tokens=16 if options.smoke else 48,
    )
    env.reset(seed=0)
    before = evaluate(policy, env, prompts)
    config = PPOConfig(episodes_per_iteration=episodes, learning_rate=options.learning_rate)
    train(PPO(policy, config), env, iterations=iterations, adaptive_kl=AdaptiveKL(target=4.0, horizon=600))
    after = evaluate(policy, env, prompts, reference_episodes=before.reference_episodes)
    for name, found in (("before", before), ("after", after)):
        print(f"\n{name}: score {found.score:.2f}, KL {found.kl:.2f} nats")
        for prompt, response in zip(QUESTIONS, found.episodes.responses, strict=True):
            print(f"  {prompt!r} -> {response!r}")


if __name__ == "__main__":
    main()
