"""Options of the commands that have many: the docstring under a field is its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from lm_gym.prompts import ScoredChat
from lm_gym.tools.settings import Bounds, Count, NotNegative, Positive, Probability, Seed, Whole, options

__all__ = [
    "FileRun",
    "MaybeFloat",
    "MaybeInt",
    "MaybePath",
    "MaybeText",
    "PromptOptions",
    "ResponseOptions",
    "RewardOptions",
    "SampleOptions",
    "Tracker",
    "TrainOptions",
    "TrainResponseOptions",
    "UpdateOptions",
]

ShareHeldOut = Annotated[float, Bounds(above=0, below=1)]
NoneGiven = tyro.conf.arg(help_behavior_hint="(default: none)")
Tracker = Literal["auto", "none", "tensorboard", "wandb", "trackio"]
"""Where metrics go: "auto" is TensorBoard where it is installed."""
AgentName = Literal[
    "ppo",
    "a2c",
    "vine-ppo",
    "reinforce",
    "reinforce++",
    "remax",
    "rloo",
    "grpo",
    "dr-grpo",
    "dapo",
    "gspo",
    "cispo",
    "soft-q",
    "a-star-po",
    "vimpo",
    "dpo",
    "rejection",
]
"""Names of the algorithms (``lm_gym.agents.algorithms.names``, which is not loaded for a line of help)."""
AGENTS = "(default: the agent's)"
AgentsInt = Annotated[Count | None, tyro.conf.arg(metavar="INT", help_behavior_hint=AGENTS)]
AgentsFloat = Annotated[Positive | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=AGENTS)]
AgentsNumber = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=AGENTS)]
AgentsShare = Annotated[Probability | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=AGENTS)]
MaybeInt = Annotated[Count | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: none)")]
MaybeFloat = Annotated[Positive | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: none)")]
MaybePath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: none)")]
MaybeText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: none)")]


@options
class ResponseOptions:
    """Settings of sampling, under the names of ``SamplingConfig``."""

    max_new_tokens: Count = 64
    """Longest response, in tokens."""
    temperature: Positive = 1.0
    """Softmax temperature, for every model alike."""
    top_k: MaybeInt = None
    """Draw among the k most likely tokens only."""
    top_p: MaybeFloat = None
    """Draw among the most likely tokens that together reach this probability (nucleus sampling)."""
    min_p: MaybeFloat = None
    """Draw among the tokens at least this many times as likely as the likeliest one."""
    stop_strings: Annotated[tuple[str, ...], NoneGiven] = ()
    """Texts that end a response, which is scored and shown without them."""


@options
class PromptOptions:
    """Treatment of prompts."""

    system: MaybeText = None
    """System message of every chat that has none; with it a text is the user's turn of a chat."""
    scored_chat: ScoredChat = "template"
    """Text of a chat that is scored: as the chat template wrote it, as judged chats are written, or its last
    message."""


@options
class SampleOptions(ResponseOptions, PromptOptions):
    """Settings of sampling, and of the stream that is drawn from."""

    seed: Seed = 0
    """Seed of the draws."""


@options
class TrainResponseOptions(ResponseOptions):
    """Settings of sampling in training."""

    max_new_tokens: Count = 48
    """Longest response, in tokens (also --response-length)."""
    temperature: Positive = 1.0
    """Softmax temperature, for policy and reference alike."""


@options
class RewardOptions:
    """Settings of the fit of a reward model."""

    model: str
    """Folder, GGUF file, hub id or run of what gets a head: a language model, an encoder, or a sentence encoder
    (embedding)."""
    data: tuple[Path, ...]
    """Files of judgements: pairs, rankings, votes, thumbs, ratings, rewards, mixed at will (.jsonl, .csv, .parquet)."""
    kind: Literal["preference", "embedding", "cross-encoder"] = "preference"
    """All weights of a model; a small head on a frozen sentence encoder (seconds); a model that reads pairs."""
    eval_data: Annotated[tuple[Path, ...], NoneGiven] = ()
    """Files of judgements to measure on; none keeps a share of the data for that."""
    held_out: ShareHeldOut = 0.1
    """Share of the prompt groups that is kept for measuring, where there is no eval data."""
    group_separator: MaybeText = None
    """Prompts that are alike before this text form a group, which is never divided."""
    skip_bad: bool = False
    """List rows that cannot be read instead of stopping at the first."""
    also: Annotated[tuple[Path, ...], NoneGiven] = ()
    """Further files of judgements to measure on, each beside the main numbers: adversarial pairs, say."""
    fail_on_probes: bool = False
    """End with an error if a text that should never win does; the model is written all the same."""
    debias: Probability = 0.0
    """Pairs that are added in which a preferred answer beats its own padded, cut or empty form, as a share of the
    comparisons; 0 adds none."""
    epochs: Count | None = None
    """Passes over the judgements (not embedding); None: one, up to three where they are few."""
    learning_rate: Positive | None = None
    """Peak learning rate (not embedding); None: 1e-4 for an encoder of 22 million weights, less for larger models."""
    items_per_step: Count | None = None
    """Rankings, or prompts with all else that was said, per forward pass (not embedding); None: about 16 texts."""
    max_responses: Count | None = None
    """Most responses of one prompt in one forward pass (not embedding); None: 16."""
    max_length: Count | None = None
    """Longest text, in tokens; the left end of a longer one is cut (not embedding)."""
    reference_samples: MaybePath = None
    """Responses of the language model that RL starts from ({"prompt", "response"} rows, as generate --out writes): a
    normaliser is fitted on their scores, which are paid with mean 0 and deviation 1. Without them none is fitted."""
    lora_rank: Whole = 0
    """Rank of the low-rank updates of a frozen model; 0 trains every weight (not embedding)."""
    tie_model: Literal["half", "rao_kupper", "davidson"] = "half"
    """Reading of a tie: half a win for each side, or an outcome of its own with a learned frequency."""
    checkpoint_every_steps: Count | None = None
    """Updates between checkpoints, for --resume (not embedding, whose texts are embedded once anyway); None: 200."""
    learning_curve: bool = False
    """Also fit to an eighth, a quarter and half of the judgements, to see what more of them would bring."""
    l2: NotNegative | None = None
    """Penalty on the head's weights (embedding); None: 1."""
    surface: bool = False
    """Also read surface features: lengths, punctuation, repetition, overlap with the prompt (embedding)."""
    reads: Literal["response", "prompt_and_response", "interaction"] | None = None
    """Embed the response alone, both as one text, or the response and how it stands to the prompt (embedding); None:
    the response alone, so that a linear head does not see the prompt."""
    hidden: Count | None = None
    """Width of a hidden layer of the head (embedding); None: a linear head."""
    cache_dir: MaybePath = None
    """Folder that keeps embeddings between runs (embedding)."""
    seed: Seed = 0
    """Seed of head, order and split."""


@options
class TrainOptions(PromptOptions):
    """What is trained, on what, and what is kept of it."""

    model: str
    """Folder, GGUF file, hub id or run; it is both the start and the frozen reference."""
    reward_model: str
    """Folder, hub id, run, registered name, module:attribute or file.py:attribute of the reward model or function."""
    data: Path
    """File of prompts: rows with "prompt" or "messages"; other columns ("answer", ...) go to a reward function by
    name."""
    eval_data: MaybePath = None
    """Held-out prompts; the best checkpoint is chosen on them."""
    pairs: Annotated[tuple[Path, ...], NoneGiven] = ()
    """Files of judgements that --agent dpo learns from in place of its own responses; every comparison is a pair."""
    iterations: Count = 100
    """Iterations: rollouts, each with its update."""
    eval_every: Count = 10
    """Iterations between evaluations on the held-out prompts; there is one after the last iteration too."""
    save_every: Count = 10
    """Iterations between checkpoints, for --resume."""
    tracker: Tracker = "auto"
    """Where metrics go beside metrics.jsonl; auto is TensorBoard where it is installed (also --report-to)."""
    device: str = "auto"
    """Device of policy and reference: auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of policy and reference: auto computes in bfloat16 where the hardware has it, on float32 weights;
    bfloat16 stores the weights so, and the optimiser keeps float32 copies of those that learn."""
    score_timeout: MaybeFloat = None
    """Most seconds that one call of the reward model may take; without a limit it is waited for."""
    seed: Seed = 0
    """Seed of prompts, draws and minibatches."""


@options
class UpdateOptions:
    """Settings of the agent and of the KL penalty."""

    agent: AgentName = "ppo"
    """Algorithm; those from rloo to cispo, vimpo, dpo and rejection compare several responses to each prompt."""
    episodes: Count = 64
    """Responses per iteration."""
    samples_per_prompt: AgentsInt = None
    """Responses to each prompt that is drawn: 8 for most methods that compare them, 4 for rloo, 2 for dpo, else 1 (also
    --num-generations)."""
    minibatches: AgentsInt = None
    """Optimiser steps per pass over an iteration's responses: 4 for ppo."""
    epochs: AgentsInt = None
    """Passes over each iteration's responses: 4 for ppo, 1 for most others (also --n-epochs)."""
    learning_rate: Positive = 1e-5
    """Adam's step size at the start; it falls to 0 over the run (also --lr)."""
    clip: AgentsFloat = None
    """Farthest that a step may move the probability ratio from 1: .2 for most (also --clip-range)."""
    gamma: AgentsShare = None
    """Discount per token: 1."""
    gae_lambda: AgentsShare = None
    """Lambda of the advantage estimate: .95 for ppo, 1 for a2c (also --lam)."""
    entropy_coef: AgentsNumber = None
    """Weight of an entropy bonus in the loss; the KL penalty holds the entropy already (also
    --ent-coef)."""
    kl_coef: NotNegative = 0.05
    """Price of a nat of KL to the reference, in units of the score; the start value with --kl-target (also --beta)."""
    kl_target: MaybeFloat = None
    """KL per response, in nats, that an adaptive controller of --kl-coef holds."""
    missing_eos_penalty: NotNegative = 0.0
    """Taken off the pay of a response that --max-new-tokens cut, in units of the score."""
    separate_critic: bool = False
    """Give the value head a trunk of its own."""
    lora_rank: Whole = 0
    """Rank of low-rank updates of a frozen model, which is its own reference without them; 0 trains every weight."""
    gradient_checkpointing: bool = False
    """Run each layer again in the backward pass instead of keeping what it computed: less memory, the same result."""


@options
class FileRun:
    """The whole loop on a user's own files."""

    data: tuple[Path, ...]
    """Files of judgements by people, in any form that reward training reads."""
    texts: Annotated[tuple[Path, ...], NoneGiven] = ()
    """Text files to train a language model from scratch on, together with the answers of the training judgements."""
    model: MaybeText = None
    """Folder, GGUF file, hub id or run of a language model to start from, instead of training one."""
    separator: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: a line break)")] = "\n"
    """Text between a prompt and its answer; a chat has none."""
    group_separator: MaybeText = None
    """Prompts that are alike before this text are held out together."""
    skip_bad: bool = False
    """List rows that cannot be read instead of stopping at the first."""
    held_out: ShareHeldOut = 0.25
    """Share of the prompt groups that is kept for measuring."""
    best_share: Annotated[float, Bounds(above=0, most=1)] = 0.25
    """Share of each ranking, from the top, that fine-tuning learns from."""
    pretrain_steps: Count = 750
    """Steps of training the language model, of 2,048 tokens each: about four minutes on two cores, less with fewer."""
    reward_epochs: Count = 8
    """Passes of the reward model over the judgements."""
    iterations: Count = 30
    """PPO iterations."""
    episodes: Count = 32
    """Responses per PPO iteration."""
    max_new_tokens: Count = 96
    """Longest response, in tokens."""
    temperature: Positive = 0.8
    """Softmax temperature, for policy and reference alike."""
    kl_target: Positive = 10.0
    """KL per response that the adaptive controller holds, in nats."""
    kl_coef: NotNegative = 0.05
    """Start value of the price of a nat of KL, in units of the score (also --beta)."""
    learning_rate: Positive = 1e-4
    """Adam's step size in PPO (also --lr)."""
    seed: Seed = 0
    """Seed of every stage."""
