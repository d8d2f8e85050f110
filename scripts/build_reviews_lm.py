"""Build a language model of the kind that ships with the built-in task, from nothing but the task's grammar.

Command:  python scripts/build_reviews_lm.py --out reviews_lm
Time:     --reviews 40000: six minutes on one busy core; the default is ten times as many
Expected: a folder for from_pretrained (2 x 128 GPT-2, 1,024 tokens); of 40,000 reviews it learned to write .52 of its
          own grammatically (the model that ships: .93)

The weights that ship (``lm_gym.assets.REVIEWS_LM``) came from a loop of their own. What that loop did, and the
library's own training does otherwise:

- It drew and tokenised reviews while it trained. Here too each review is seen once, but all are held in memory (about
  2.5 kB each).
- It learned completions only, from the first step. Here the second stage does; the first, which also makes the
  tokenizer, learns packed text with its prompts.
- It divided the summed loss of each batch by a constant; the library takes the mean over the batch's tokens. Batches
  hold reviews of like length, so a token of a short review, its end-of-text token above all, counts for more here, and
  the model tends to write shorter.
- AdamW's second moment decayed by .98; the library's by .99 (pretraining) and .999 (fine-tuning).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym import reviews
from lm_gym.agents import PretrainConfig, SupervisedConfig, pretrain, supervised_finetune
from lm_gym.tools.files import write_jsonl


def build(out: Path, *, review_count: int, seed: int, smoke: bool) -> None:
    """Make tokenizer and model from a first part of the reviews, then learn the completions of the others."""
    size = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 600} if smoke else {}
    shape = {"n_layer": 2, "n_embd": 128, "n_head": 4, "vocab_size": 1024} | size
    first = review_count // 20
    with tempfile.TemporaryDirectory() as folder:
        text = write_jsonl(Path(folder) / "reviews.jsonl", reviews.corpus(first, seed))
        config = PretrainConfig(
            **shape, context=192, epochs=1, batch_size=8, learning_rate=4e-3, validation_fraction=0, seed=seed
        )
        pretrain(text, Path(folder) / "model", config)
        result = supervised_finetune(
            Path(folder) / "model",
            reviews.corpus(review_count - first, seed + 1),
            out,
            SupervisedConfig(
                epochs=1, batch_size=32, learning_rate=4e-3, warmup_fraction=0.05, weight_decay=0.01, seed=seed
            ),
        )
    print(f"{result.steps:,} steps over {result.rows:,} reviews: {result.train_loss:.3f} nats per token")


def grammatical_share(folder: Path, count: int) -> float:
    """Share of grammatical reviews among ``count`` samples, and the first of them printed."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompts = (reviews.prompts("held_out") * count)[:count]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    torch.manual_seed(0)
    tokens = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=96)
    texts = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    print(prompts[0] + texts[0])
    return float(np.mean([reviews.is_grammatical(*pair) for pair in zip(prompts, texts, strict=True)]))


def main() -> None:
    """Build the model, save it where asked, and sample from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="new folder of the model; without it nothing is kept")
    parser.add_argument("--reviews", type=int, default=400_000, help="reviews to learn from, each once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a tiny model and a few reviews")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "reviews_lm"
        build(out, review_count=400 if options.smoke else options.reviews, seed=options.seed, smoke=options.smoke)
        share = grammatical_share(out, 4 if options.smoke else 200)
    print(f"grammatical: {share:.2f} of the samples at temperature 1 (of the model that ships: .93)")


if __name__ == "__main__":
    main()
