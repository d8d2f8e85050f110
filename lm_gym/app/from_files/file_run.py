"""``lm-gym run``: a plan from a user's own files, from the language model on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from lm_gym.agents import PretrainConfig, SupervisedConfig, pretrain
from lm_gym.agents.algorithms.ppo import PPOConfig
from lm_gym.agents.supervised.documents import read_documents
from lm_gym.app.from_files.judgement_files import grouped_by, read_files
from lm_gym.app.options import FileRun
from lm_gym.app.pipeline.loop import run_loop
from lm_gym.app.pipeline.plan import LoopPlan
from lm_gym.app.pipeline.stages import check_prompts
from lm_gym.app.pipeline.story import about_pretraining, told_of_pretraining
from lm_gym.app.pipeline.workspace import Workspace
from lm_gym.app.report.report_data import Report
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import load_tokenizer
from lm_gym.reward_models.judgements.splits import Split, split_by_prompt
from lm_gym.reward_models.scalar.config import RewardTrainingConfig
from lm_gym.sources.transcripts import is_transcript, messages_of
from lm_gym.tools.digests import digest_parts
from lm_gym.tools.files import lies_in, write_jsonl

__all__ = ["HumanJudgements", "read_human_judgements", "run_from_files"]


@dataclass(frozen=True, kw_only=True)
class HumanJudgements:
    """Judgements by people, divided by prompt, as the loop uses them; prompts end in the separator."""

    split: Split
    """Training and held-out judgements."""
    group_of: Callable[[str], str]
    """Group of a prompt; groups are never divided."""

    @property
    def train_prompts(self) -> tuple[str, ...]:
        """Distinct prompts of the training side."""
        return tuple(dict.fromkeys(one.prompt for one in self.split.train))

    @property
    def held_out_prompts(self) -> tuple[str, ...]:
        """Distinct prompts of the other side."""
        return tuple(dict.fromkeys(one.prompt for one in self.split.held_out))

    def documents(self) -> list[dict[str, str]]:
        """Every answer of the training side, once, as a row of prompt and completion."""
        seen = dict.fromkeys((one.prompt, text) for one in self.split.train for text in one.texts)
        return [{"prompt": prompt, "completion": text} for prompt, text in seen if text.strip()]

    def best_answers(self, share: float) -> list[dict[str, str]]:
        """The best-placed share of every training judgement that compares answers, at least one answer each."""
        rows: dict[tuple[str, str], None] = {}
        for one in self.split.train:
            if (places := one.places) is None or not one.compares:
                continue
            order = sorted(range(len(places)), key=places.__getitem__)
            for place in order[: max(1, round(share * len(order)))]:
                if one.texts[place].strip():
                    rows[one.prompt, one.texts[place]] = None
        return [{"prompt": prompt, "completion": text} for prompt, text in rows]


def read_human_judgements(
    paths: Sequence[Path],
    *,
    separator: str,
    group_separator: str | None,
    held_out: float,
    seed: int,
    model: str | None = None,
    skip_bad: bool = False,
    console: Console,
) -> HumanJudgements:
    """Read files of judgements and hold out whole groups of prompts.

    Args:
        paths: files in any form that ``load_judgements`` reads.
        separator: put after every prompt that is no chat, so that a language model sees where the answer begins.
        group_separator: prompts alike before this text belong together; None groups by the whole prompt.
        held_out: share of the groups, in (0, 1).
        seed: of the draw of groups.
        model: language model that is to answer; its chat template writes the chats, which are transcripts without it.
        skip_bad: leave rows out that cannot be used.
        console: to tell on of rows that are left out, and of what is not learned from.

    Raises:
        DataError: a file cannot be used, or a row that is not to be left out.
        ConfigError: no files, or too few groups.
    """
    if not paths:
        raise ConfigError("run: needs at least one file of judgements (--data), got none")
    found = read_files(paths, skip_bad, console)
    written = _chat_writer(model) if any(is_transcript(one.prompt) for one in found) else None
    ended = [replace(one, prompt=_ended(one.prompt, separator, written)) for one in found]
    group_of = grouped_by(group_separator)
    split = split_by_prompt(ended, held_out=held_out, seed=seed, group_of=group_of)
    return HumanJudgements(split=split, group_of=group_of)


def _ended(prompt: str, separator: str, written: Callable[[str], str] | None) -> str:
    if written is not None and is_transcript(prompt):
        return written(prompt)
    return prompt.removesuffix(separator) + separator


def _chat_writer(model: str | None) -> Callable[[str], str]:
    """How a language model reads a transcript: by its chat template, or as it is where it has none."""
    tokenizer = None if model is None else load_tokenizer(model)
    if tokenizer is None or not tokenizer.chat_template:
        return lambda transcript: transcript
    # These prompts are texts from here on, and a tokenizer that begins a text with BOS does so once more.
    begins = tokenizer.bos_token is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    doubled = tokenizer.bos_token if begins else ""

    def written(transcript: str) -> str:
        turns = messages_of(transcript)
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return text.removeprefix(doubled)

    return written


def run_from_files(
    options: FileRun, out: Path, *, resume: bool = False, overwrite: bool = False, console: Console, command: str
) -> Report:
    """Language model from scratch (unless one is given), then the loop with fixed judgements.

    Every file is read, and every setting checked, before the folder is touched.

    Raises:
        ConfigError: neither texts nor a base model, or a setting that is out of range.
        DataError: a file cannot be used.
        OutputExistsError: see :func:`lm_gym.runs.folder.open_run`.
    """
    human = read_human_judgements(
        options.data,
        separator=options.separator,
        group_separator=options.group_separator,
        held_out=options.held_out,
        seed=options.seed,
        model=options.model,
        skip_bad=options.skip_bad,
        console=console,
    )
    if options.model is not None:
        if overwrite and lies_in(options.model, out):
            raise ConfigError(
                f"--out: must not hold the model that the run starts from, which --overwrite would delete, got {out}, "
                f"and the model is {options.model}; choose another folder, or copy the model out of this one"
            )
        plan = _plan(options, human, Path(options.model))
        check_prompts(options.model, [*plan.train_prompts, *plan.held_out_prompts], plan.sampling)
        flags = {"resume": resume, "overwrite": overwrite}
        with Workspace(out, plan.identity(), console=console, stages=plan.stage_count, **flags) as workspace:
            workspace.tell_plan(plan.title, plan.summary)
            return run_loop(plan, workspace, command=command, prompts_fit=True)
    if not options.texts:
        raise ConfigError("run: needs --texts to train a language model on, or --model to start from one; got neither")
    plan = _plan(options, human, out / "pretrain" / "model")
    config = PretrainConfig(max_steps=options.pretrain_steps, seed=options.seed)
    identity = plan.identity(
        settings={"pretrain": asdict(config)},
        base="pretrained on the texts",
        texts=digest_parts(repr(one) for one in read_documents(list(options.texts))),
    )
    flags = {"resume": resume, "overwrite": overwrite}
    with Workspace(out, identity, console=console, stages=1 + plan.stage_count, **flags) as workspace:
        workspace.tell_plan(plan.title, plan.summary)
        _pretrain(options, human, config, workspace)
        return run_loop(plan, workspace, command=command)


def _pretrain(options: FileRun, human: HumanJudgements, config: PretrainConfig, workspace: Workspace) -> None:
    def make(folder: Path) -> str:
        # Only the training side: a held-out answer must be new to every model that is measured on it.
        answers = write_jsonl(folder / "answers.jsonl", human.documents())
        found = pretrain([*options.texts, answers], folder / "model", config, resume=True)
        return told_of_pretraining(found)

    workspace.stage("pretrain", make, lambda folder: None, about=about_pretraining(len(options.texts)))


def _plan(options: FileRun, human: HumanJudgements, base: Path) -> LoopPlan:
    responses = sum(len(one.responses) for one in human.split.train)
    return LoopPlan(
        title="RLHF from people's judgements",
        summary=(
            f"A language model is fine-tuned on the best-ranked answers, a reward model is fitted to "
            f"{len(human.split.train)} judgements ({responses} answers) and measured on {len(human.split.held_out)} "
            f"judgements of other prompts, and PPO learns against it under a KL penalty."
        ),
        base=base,
        train_prompts=human.train_prompts,
        held_out_prompts=human.held_out_prompts,
        demonstrations=tuple(human.best_answers(options.best_share)),
        judgements=Split(*(list(dict.fromkeys(side)) for side in human.split)),
        sampling=SamplingConfig(max_new_tokens=options.max_new_tokens, temperature=options.temperature),
        reward=RewardConfig(kl_coef=options.kl_coef),
        kl_target=options.kl_target,
        kl_horizon=2.0 * options.episodes,
        supervised=SupervisedConfig(epochs=3, batch_size=16, learning_rate=3e-4, on_long_row="truncate"),
        reward_training=RewardTrainingConfig(epochs=options.reward_epochs, learning_rate=1e-4),
        iterations=options.iterations,
        ppo=PPOConfig(
            episodes_per_iteration=options.episodes,
            minibatches=min(4, options.episodes),
            learning_rate=options.learning_rate,
        ),
        group_of=human.group_of,
        seed=options.seed,
    )
