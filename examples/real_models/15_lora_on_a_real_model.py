"""PPO with low-rank updates on a real pretrained model: one copy of it in memory, and brief answers as the aim.

Command:  LM_GYM_REAL_LM=FOLDER_OR_GGUF_FILE python examples/real_models/15_lora_on_a_real_model.py [--iterations 20]
Needs:    lm-gym[lora], and lm-gym[gguf] for a GGUF file; the built-in model stands in where none is named
Time:     see docs/log.md for a model of 135 million weights; --smoke takes seconds
Expected: answers before and after; the share of brief whole answers rises

The model answers English questions, in its chat template if it has one. The reward is a rule, so that no second model
is needed: 1 for an answer of at most 25 words that ends by itself in a full stop, less the farther it is from that.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import gymnasium

from lm_gym import AdaptiveKL, LoraSettings, evaluate
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, train
from lm_gym.assets import REVIEWS_LM

QUESTIONS = (
    "Why is the sky blue?",
    "How do I boil an egg?",
    "What is a good name for a grey cat?",
    "Why do leaves change their colour in autumn?",
    "How can I sleep better?",
    "What should I cook for two friends tonight?",
    "How does a bicycle stay upright?",
    "What makes bread rise?",
    "How do I remove a coffee stain from a shirt?",
    "Why do we have leap years?",
    "What is the best way to learn a new language?",
    "How far away is the Moon?",
    "How do I write a thank-you note to a neighbour?",
    "Why does ice float on water?",
    "What can I do on a rainy Sunday?",
    "How do bees make honey?",
)
HELD_OUT = ("Why is the sea salty?", "How do I keep a houseplant alive?", "What is a rainbow?", "How do magnets work?")
MOST_WORDS = 25


def brief(prompts: list[str], completions: list[str]) -> list[float]:
    """1 for a whole sentence or two of at most 25 words; a tenth less for every five words above; 0 for nothing."""
    return [_score(text.strip()) for text in completions]


def _score(text: str) -> float:
    words = len(text.split())
    if words < 4:
        return 0.0
    ended = 1.0 if text.endswith((".", "!", "?")) else 0.5
    return ended * max(0.0, 1.0 - max(0, words - MOST_WORDS) / 50)


def rows_for(questions: tuple[str, ...], tokenizer: Any) -> list[dict[str, Any]]:
    """Prompts in the form that the model was trained on."""
    if tokenizer.chat_template is None:
        return [{"prompt": f"{question}\n"} for question in questions]
    return [{"messages": [{"role": "user", "content": question}]} for question in questions]


def main() -> None:
    """Load, train, compare, and merge if a folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=os.environ.get("LM_GYM_REAL_LM", str(REVIEWS_LM)), help="folder or GGUF file"
    )
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="ten times that of whole weights")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, help="folder for the merged model")
    parser.add_argument("--smoke", action="store_true", help="one iteration of a few episodes")
    options = parser.parse_args()
    iterations, episodes, longest = options.iterations, options.episodes, options.max_new_tokens
    if options.smoke:
        iterations, episodes, longest = 1, 4, 8

    policy = LanguageModelPolicy.from_pretrained(options.model, lora=LoraSettings(rank=options.rank))
    learned, held = (sum(weight.numel() for weight in part) for part in (policy.parameters(), policy.weights()))
    print(f"{learned:,} of {held:,} weights learn; the rest is policy and reference at once")
    env = gymnasium.make_vec(
        "lm_gym/TextGeneration-v0",
        num_envs=1,
        model=policy.reference(),  # the same weights with the adapter off
        prompts=rows_for(QUESTIONS, policy.tokenizer),
        reward_model=brief,
        action_mode="token_and_log_prob",
        kl_coef=0.02,
        max_new_tokens=longest,
    )
    env.reset(seed=0)
    questions = rows_for(HELD_OUT, policy.tokenizer)
    before = evaluate(policy, env, questions)
    config = PPOConfig(episodes_per_iteration=episodes, learning_rate=options.learning_rate, epochs=2)
    train(PPO(policy, config), env, iterations=iterations, adaptive_kl=AdaptiveKL(target=6.0, horizon=600))
    after = evaluate(policy, env, questions, reference_episodes=before.reference_episodes)
    for name, found in (("before", before), ("after", after)):
        print(f"\n{name}: score {found.score:.2f}, KL {found.kl:.2f} nats, {found.response_length:.0f} tokens")
        for question, response in zip(HELD_OUT, found.episodes.responses, strict=True):
            print(f"  {question} -> {response.strip()!r}")
    if options.out is not None:
        print(f"\nmerged, a folder that AutoModelForCausalLM loads: {policy.merged().save_pretrained(options.out)}")


if __name__ == "__main__":
    main()
