"""Ten episodes whose reward is a person in front of a browser.

Command:  python examples/people/16_a_person_is_the_reward.py
Time:     as long as you take: open the link that is printed, and give each review nought to five stars
Expected: after each of your answers the episode's return, and at the end what was paid, by whom, and how long after

With --smoke a simulated person answers two episodes.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import gymnasium

import lm_gym  # noqa: F401  # registers the environments
from lm_gym import reviews
from lm_gym.agents import LanguageModelPolicy
from lm_gym.assets import REVIEWS_LM
from lm_gym.reward_models.human import LabelStore, SimulatedPerson, StoreTransport, audit, set_guideline


def answer(place: Path, over: threading.Event) -> None:
    """A simulated person of good taste, until the episodes are over."""
    with LabelStore.open(place) as store:
        way = StoreTransport(store, "somebody")
        person = SimulatedPerson(way, lambda prompt, text: reviews.true_score([prompt], [text])[0] or 0.0)
        while not over.is_set():
            if not person.answer_next():
                over.wait(0.05)


def play(place: Path, episodes: int) -> None:
    """The episodes; the environment starts the page and prints its link."""
    env = gymnasium.make(
        "lm_gym/HumanFeedback-v0",
        store=str(place),
        kind="rating",
        timeout_seconds=600,
        action_mode="token_and_log_prob",
        kl_coef=0.1,
        max_new_tokens=48,
    )
    policy = LanguageModelPolicy.from_pretrained(REVIEWS_LM)
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        total, ended = 0.0, False
        while not ended:
            token, log_prob = policy.act(observation, env.get_wrapper_attr("sampling"))
            observation, reward, terminated, truncated, info = env.step({"token": token, "log_prob": log_prob})
            total, ended = total + float(reward), terminated or truncated
        said = f"you gave {info['score']:+.1f}" if info["score_valid"] else "nobody answered"
        print(f"episode {episode}: {said}, return {total:+.2f}")
    env.get_wrapper_attr("reward_model").close()


def main() -> None:
    """Play, and tell what was paid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two episodes, and a simulated person")
    options = parser.parse_args()
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "labels.db"
        with LabelStore.open(place) as store:
            set_guideline(store, "Five stars for a review that says clearly what was good or bad, none for nonsense.")
            person = threading.Thread(target=answer, args=(place, over))
            if options.smoke:
                person.start()
            try:
                play(place, 2 if options.smoke else 10)
            finally:
                over.set()
                if options.smoke:
                    person.join()
            with store.reading() as state:
                for paid in audit(state):
                    print(f"{paid.source}: {paid.value} for {paid.response[:40]!r}, {paid.delay_seconds:.1f} s after")


if __name__ == "__main__":
    main()
