"""Time PPO of TRL 1.12.0 (the last release that ships it) on the workload of this library's benchmark.

TRL lives in an environment of its own (Linux, Python 3.11 or newer); from the repository root:

    python3 -m venv .cache/trl-venv
    .cache/trl-venv/bin/pip install -r benchmarks/peers/trl-ppo-requirements.txt
    .cache/trl-venv/bin/python benchmarks/peers/trl_ppo.py --iterations 5 --threads 2
    .cache/trl-venv/bin/python benchmarks/peers/trl_ppo.py --layers 12 --width 768 --heads 12 \
        --vocab 50257 --episodes 8 --iterations 4 --threads 2

The last line on stdout is one JSON object; TRL's own output goes to stderr. Nothing is downloaded. Start it
from a small process such as a shell: on Linux a child's peak RSS starts at that of the process it came from.

Workload: a random-weight GPT-2 on the CPU in fp32 without dropout, prompts of 32 random tokens, responses of
exactly 48 at temperature 1, KL to a frozen reference model, a separate value model of the same size (TRL
requires one), then 4 epochs of 4 minibatches over all episodes, one optimizer step a minibatch.

Measured: the wall time from one `on_step_end` of TRL's loop to the next, so rollout, scoring, training and
TRL's own logging and garbage collections; the first iteration is left out. `peak_rss_bytes` is `ru_maxrss`,
`baseline_rss_bytes` the RSS just before `train()` (models built, no gradients or optimizer state yet),
`imports_rss_bytes` the RSS before the models are built.

Departures from TRL's defaults, each the most favourable to it that keeps the workload:
- Off: gradient checkpointing, bf16, wandb/tensorboard, saving, evaluation, sample generation, progress bar.
- `local_rollout_forward_batch_size` is all episodes (`--rollout-batch`): one `generate` call a rollout.
- `per_device_train_batch_size` is all episodes, gradient accumulation 1: TRL splits by `num_mini_batches`.
  With accumulation 4 its loop would step the optimizer once in 4 minibatches instead of after each.
- `use_cache` is set to false in the models' configs after they are built, as no scoring or training pass
  needs a KV cache. `generate` has its own setting, made from the config at building time: it stays true.
- The learning rate is 1e-5 and constant. (TRL's loop clips no gradients, whatever `max_grad_norm` says, and
  always computes the entropy of all logits; nothing here changes that.)
- No stop token. The tokenizer's pad and EOS ids are just past the model's vocabulary: TRL needs both and
  masks wherever it sees pad, but neither can be sampled, so every response has its full length.
- The reward model is no network: reward 1 if the last token's id is even, else 0, as on the other side.

The run checks itself after the timed part (`verify`) and fails rather than report a smaller workload.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

import torch
import transformers
import trl  # type: ignore[import-not-found]
from datasets import Dataset
from timed import timed
from tokenizers import Tokenizer, models
from torch import nn
from trl.experimental.ppo import PPOConfig, PPOTrainer  # type: ignore[import-not-found]

EPOCHS = 4
MINIBATCHES = 4


class ParityReward(nn.Module):
    """A reward model that costs next to nothing; TRL takes its score at each sequence's last token."""

    base_model_prefix = "backbone"  # where TRL's `get_reward` looks for a transformer

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Identity()

    def backbone(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        """Return what TRL reads of a transformer: a hidden state of 1 at even token ids, 0 at odd ones."""
        return SimpleNamespace(hidden_states=(((input_ids + 1) % 2).float().unsqueeze(-1),))


class Watch(transformers.TrainerCallback):
    """Times the iterations and keeps the token ids of every pass, for `verify` to look at afterwards."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.cpu_ticks: list[float] = []
        self.generated: list[torch.Tensor] = []
        self.scored: list[torch.Tensor] = []
        self.trained: list[torch.Tensor] = []

    def attach(self, trainer: Any) -> None:
        """Hook the models, to see what really runs through them."""

        def keep(inputs: list[torch.Tensor], training: bool) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
                if torch.is_grad_enabled() == training:
                    inputs.append(kwargs["input_ids"])

            return hook

        trainer.policy_model.register_forward_pre_hook(keep(self.generated, training=False), with_kwargs=True)
        trainer.ref_model.register_forward_pre_hook(keep(self.scored, training=False), with_kwargs=True)
        trainer.model.register_forward_pre_hook(keep(self.trained, training=True), with_kwargs=True)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Note the time, and the process's own: at the start, then at the end of each iteration."""
        self.ticks.append(time.perf_counter())
        self.cpu_ticks.append(time.process_time())

    on_step_end = on_train_begin


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Rollout batch 0: all at once; threads 0: PyTorch's choice.")
    numbers = {"layers": 4, "width": 256, "heads": 4, "vocab": 4096, "episodes": 32, "prompt-tokens": 32}
    numbers |= {"response-tokens": 48, "iterations": 5, "rollout-batch": 0, "threads": 0, "seed": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    options = parser.parse_args()
    if options.iterations < 2 or options.episodes < 2 * MINIBATCHES or options.episodes % MINIBATCHES:
        parser.error("--iterations must be at least 2, --episodes a multiple of 4 and at least 8")
    options.rollout_batch = options.rollout_batch or options.episodes
    return options


def make_tokenizer(vocab: int) -> transformers.PreTrainedTokenizerFast:
    """Build a tokenizer of `vocab` words whose pad and EOS ids come after them, out of the model's reach."""
    words = {str(i): i for i in range(vocab)} | {"<pad>": vocab, "<eos>": vocab + 1}
    core = Tokenizer(models.WordLevel(words, unk_token="0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def make_models(options: argparse.Namespace) -> tuple[Any, Any]:
    """Build the policy and the value model, with random weights and no dropout."""
    config = transformers.GPT2Config(
        vocab_size=options.vocab,
        n_positions=options.prompt_tokens + options.response_tokens,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.0),
        eos_token_id=None,
        num_labels=1,
    )
    policy = transformers.AutoModelForCausalLM.from_config(config)
    value = transformers.AutoModelForSequenceClassification.from_config(config)
    for model in (policy, value):
        model.config.use_cache = False
    return policy, value


def make_trainer(options: argparse.Namespace, output_dir: str, watch: Watch) -> Any:
    """Build the models, the data and TRL's trainer, all in memory."""
    policy, value = make_models(options)
    prompts = torch.randint(options.vocab, (options.episodes * options.iterations, options.prompt_tokens))
    off = {"bf16": False, "gradient_checkpointing": False, "num_sample_generations": 0, "report_to": "none"}
    arguments = PPOConfig(
        output_dir=output_dir,
        use_cpu=True,
        seed=options.seed,
        total_episodes=options.episodes * options.iterations,
        per_device_train_batch_size=options.episodes,
        gradient_accumulation_steps=1,
        num_mini_batches=MINIBATCHES,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=options.rollout_batch,
        response_length=options.response_tokens,
        temperature=1.0,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        **off | {"save_strategy": "no", "eval_strategy": "no", "disable_tqdm": True},
    )
    return PPOTrainer(
        args=arguments,
        processing_class=make_tokenizer(options.vocab),
        model=policy,
        ref_model=None,  # TRL makes a frozen copy of the policy
        reward_model=ParityReward(),
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": prompts.tolist()}),
        callbacks=[watch],
    )


def verify(options: argparse.Namespace, trainer: Any, watch: Watch) -> None:
    """Fail unless every iteration did it all: every episode at full length, 4 x 4 minibatches, KL."""

    def expect(fact: bool, what: str) -> None:
        if not fact:
            raise RuntimeError(f"this run is not the workload: {what}")

    length = options.prompt_tokens + options.response_tokens
    episodes = torch.cat(watch.scored)
    expect(tuple(episodes.shape) == (options.episodes * options.iterations, length), "the rollouts' size")
    expect(int(episodes.max()) < options.vocab, "pad or EOS in a rollout")
    generated = sum(ids.numel() for ids in watch.generated)
    expect(generated == episodes[:, 1:].numel(), "with a KV cache, all tokens but the last pass once")
    sizes = {ids.shape[0] for ids in watch.trained}
    expect(sizes == {options.episodes // MINIBATCHES}, f"episodes per minibatch {sizes}")
    epochs = torch.cat(watch.trained).split(options.episodes)
    rollouts = [rollout for rollout in episodes.split(options.episodes) for _ in range(EPOCHS)]
    for epoch, rollout in zip(epochs, rollouts, strict=True):
        expect(sorted(epoch.tolist()) == sorted(rollout.tolist()), "every episode once in an epoch")
    steps = {int(state["step"]) for state in trainer.optimizer.optimizer.state.values()}
    expect(steps == {options.iterations * EPOCHS * MINIBATCHES}, f"optimizer steps {steps}")
    kl = [abs(entry["objective/kl"]) for entry in trainer.state.log_history]
    expect(kl[0] < 1e-3 < min(kl[1:]), f"a KL to the reference that starts at 0 and moves: {kl}")
    expect(all(p.dtype == torch.float32 for p in trainer.model.parameters()), "fp32 weights")


def main() -> None:
    """Train for a few iterations and print the JSON line."""
    options = parse_options()
    report, trainer = timed(options, Watch(), make_trainer, verify)
    kl = [entry["objective/kl"] for entry in trainer.state.log_history]
    config = vars(options) | {"epochs": EPOCHS, "minibatches": MINIBATCHES}
    print(json.dumps({"peer": f"trl {trl.__version__}", **report, "kl": kl, "config": config}))


if __name__ == "__main__":
    main()
