"""Time GRPO of TRL 1.16.0 (its newest release) on the workload of this library's benchmark.

TRL lives in an environment of its own (Linux, Python 3.11 or newer); from the repository root:

    python3 -m venv .cache/trl-grpo-venv
    .cache/trl-grpo-venv/bin/pip install -r benchmarks/peers/trl-grpo-requirements.txt
    .cache/trl-grpo-venv/bin/python benchmarks/peers/trl_grpo.py --iterations 5 --threads 2

The last line on stdout is one JSON object; TRL's own output goes to stderr. Nothing is downloaded. Start it
from a small process such as a shell: on Linux a child's peak RSS starts at that of the process it came from.

Workload: a random-weight GPT-2 on the CPU in fp32 without dropout, prompts of random tokens (32, or what
`--prompt-tokens` says), 4 prompts with 8 answers each in an iteration, answers of exactly 48 tokens at
temperature 1, a KL of .05 to a frozen reference model in the loss, one epoch in `--steps` optimizer steps.

Measured: the wall time of an iteration, from the end of its predecessor's last optimizer step to that of its own,
so rollout, scoring, training and TRL's own logging, and the process's CPU time of the same, which other work on
the machine does not lengthen; the first iteration is left out. `peak_rss_bytes` is
`ru_maxrss`, `baseline_rss_bytes` the RSS just before `train()`, `imports_rss_bytes` that before the models are built.

Departures from TRL's defaults, each the most favourable to it that keeps the workload:
- Off: gradient checkpointing, bf16, trackers, saving, evaluation, progress bar.
- The batch of an optimizer step is one forward pass: no gradient accumulation. With one step an iteration TRL
  skips the pass for the old log-probabilities; with two it makes it, as it must.
- `loss_type="grpo"`, as the other side has it; `beta=0.05`, without which TRL would hold no reference.
- The learning rate is 1e-5 and constant.
- No stop token: the tokenizer's pad and EOS ids are just past the model's vocabulary.
- The reward is 1 if the last token's id is even, else 0: a function of the text, as on the other side.

The run checks itself after the timed part (`verify`) and fails rather than report a smaller workload.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
import transformers
import trl  # type: ignore[import-not-found]
from datasets import Dataset
from timed import timed
from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from trl import GRPOConfig, GRPOTrainer

BETA = 0.05


class Watch(transformers.TrainerCallback):
    """Times the iterations and keeps the sizes of every pass, for `verify` to look at afterwards."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.ticks: list[float] = []
        self.cpu_ticks: list[float] = []
        self.decoded: list[tuple[int, ...]] = []
        self.old: list[tuple[int, ...]] = []
        self.trained: list[tuple[int, ...]] = []
        self.reference: list[tuple[int, ...]] = []

    def attach(self, trainer: Any) -> None:
        """Hook the models, to see what really runs through them."""

        def of_policy(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            shape = tuple(kwargs["input_ids"].shape)
            if torch.is_grad_enabled():
                self.trained.append(shape)
            elif "labels" in kwargs:
                self.old.append(shape)
            else:
                self.decoded.append(shape)

        def of_reference(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            self.reference.append(tuple(kwargs["input_ids"].shape))

        trainer.model.register_forward_pre_hook(of_policy, with_kwargs=True)
        trainer.ref_model.register_forward_pre_hook(of_reference, with_kwargs=True)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Note the time, and the process's own."""
        self.ticks.append(time.perf_counter())
        self.cpu_ticks.append(time.process_time())

    def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
        """Note the time at the end of each iteration."""
        if state.global_step % self.steps == 0:
            self.on_train_begin()


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Threads 0: PyTorch's choice.")
    numbers = {"layers": 4, "width": 256, "heads": 4, "vocab": 4096, "episodes": 32, "group": 8, "steps": 2}
    numbers |= {"prompt-tokens": 32, "response-tokens": 48, "iterations": 5, "threads": 0, "seed": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    options = parser.parse_args()
    if options.iterations < 2 or options.episodes % options.group or options.episodes % options.steps:
        parser.error("--iterations must be at least 2, --episodes a multiple of --group and of --steps")
    return options


def make_tokenizer(vocab: int) -> transformers.PreTrainedTokenizerFast:
    """Build a tokenizer of `vocab` words whose pad and EOS ids come after them, out of the model's reach."""
    words = {str(i): i for i in range(vocab)} | {"<pad>": vocab, "<eos>": vocab + 1}
    core = Tokenizer(models.WordLevel(words, unk_token="0"))
    core.pre_tokenizer = WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def make_model(options: argparse.Namespace, folder: str) -> Any:
    """Build the policy, with random weights and no dropout; TRL loads its reference from the same folder."""
    config = transformers.GPT2Config(
        vocab_size=options.vocab,
        n_positions=options.prompt_tokens + options.response_tokens,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        bos_token_id=None,
        eos_token_id=None,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def last_is_even(completions: list[str], **_: Any) -> list[float]:
    """1 if the last token's id is even, else 0."""
    return [float(int(text.split()[-1]) % 2 == 0) for text in completions]


def make_trainer(options: argparse.Namespace, folder: str, watch: Watch) -> Any:
    """Build the models, the data and TRL's trainer."""
    count = options.episodes // options.group * options.iterations
    ids = torch.randint(options.vocab, (count, options.prompt_tokens)).tolist()
    arguments = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        seed=options.seed,
        max_steps=options.iterations * options.steps,
        per_device_train_batch_size=options.episodes // options.steps,
        gradient_accumulation_steps=1,
        steps_per_generation=options.steps,
        num_generations=options.group,
        num_iterations=1,
        max_completion_length=options.response_tokens,
        temperature=1.0,
        beta=BETA,
        loss_type="grpo",
        scale_rewards="group",
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=options.steps,
        disable_tqdm=True,
    )
    return GRPOTrainer(
        model=make_model(options, folder),
        reward_funcs=last_is_even,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [" ".join(map(str, row)) for row in ids]}),
        processing_class=make_tokenizer(options.vocab),
        callbacks=[watch],
    )


def verify(options: argparse.Namespace, trainer: Any, watch: Watch) -> None:
    """Fail unless every iteration did it all: every answer at full length, the steps, a reference, a KL that moves."""

    def expect(fact: bool, what: str) -> None:
        if not fact:
            raise RuntimeError(f"this run is not the workload: {what}")

    def rows(passes: list[tuple[int, ...]]) -> int:
        expect({shape[1] for shape in passes} == {length}, f"passes of {set(passes)}")
        return sum(shape[0] for shape in passes)

    length = options.prompt_tokens + options.response_tokens
    episodes = options.episodes * options.iterations
    decoded = sum(shape[0] * shape[1] for shape in watch.decoded)
    expect(decoded == episodes * (length - 1), "with a KV cache, all tokens but the last pass once")
    expect(rows(watch.trained) == episodes, "every episode trained on once")
    expect({shape[0] for shape in watch.trained} == {options.episodes // options.steps}, "episodes per step")
    expect(rows(watch.reference) == episodes, "every episode under the reference once")
    expect(options.steps == 1 or rows(watch.old) == episodes, "old log-probabilities once")
    steps = {int(state["step"]) for state in trainer.optimizer.optimizer.state.values()}
    expect(steps == {options.iterations * options.steps}, f"optimizer steps {steps}")
    logs = [entry for entry in trainer.state.log_history if "kl" in entry]
    expect(logs[0]["kl"] < 1e-3 and logs[-1]["kl"] > 0, f"a KL to the reference that moves: {logs}")
    lengths = {entry["completions/mean_length"] for entry in logs}
    expect(lengths == {options.response_tokens}, f"answers of {lengths} tokens")
    expect(all(p.dtype == torch.float32 for p in trainer.model.parameters()), "fp32 weights")


def main() -> None:
    """Train for a few iterations and print the JSON line."""
    options = parse_options()
    report, _ = timed(options, Watch(options.steps), make_trainer, verify)
    print(json.dumps({"peer": f"trl {trl.__version__}", **report, "config": vars(options)}))


if __name__ == "__main__":
    main()
