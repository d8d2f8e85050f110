"""One side of a conversation that is a language model: its history, its prompts and its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from lm_gym.config import SamplingConfig
from lm_gym.errors import ConfigError, PromptError
from lm_gym.models.decoder import decoder_for
from lm_gym.models.language_model import LanguageModel
from lm_gym.models.sampling import with_stop_ids
from lm_gym.models.streaming import Streamed, stream_text
from lm_gym.prompts import Prompt, ScoredChat, load_prompts

__all__ = ["Heard", "Speaker"]


class Exchange(NamedTuple):
    """A message and its answer."""

    message: str
    answer: str


class Heard(NamedTuple):
    """A message as it is put to the model."""

    message: str
    """What was said."""
    prompt: Prompt
    """What the model continues: the history that fits, and the message."""
    kept: tuple[Exchange, ...]
    """The history in the prompt."""
    dropped: int
    """Exchanges at the beginning of the history that no longer fitted."""


class Speaker:
    """A language model with the history of one conversation.

    A model whose tokenizer has a chat template is told the turns in it. Any other continues text: every message starts
    a new text, and an empty one goes on with the text so far; an encoder-decoder has no text to go on with.
    """

    def __init__(
        self,
        name: str,
        model: LanguageModel,
        sampling: SamplingConfig,
        *,
        separator: str = "",
        scored_chat: ScoredChat = "template",
    ) -> None:
        """Args:
        name: what it is called.
        model: the language model.
        sampling: rules; the seed is that of the whole conversation.
        separator: put after every message that starts a text.
        scored_chat: text of a chat that is scored.

        Raises:
            ConfigError: a separator for a model that has a chat template.
        """
        self.name = name
        self.model = model
        self.is_chat = bool(getattr(model.tokenizer, "chat_template", None))
        if separator and self.is_chat:
            raise ConfigError(f"chat: --separator is for models that continue text, and {name} has a chat template")
        self.sampling = with_stop_ids(sampling, model.eos_ids, model.vocab_size)
        self.system: str | None = None
        self._separator, self._scored_chat = separator, scored_chat
        self._history: tuple[Exchange, ...] = ()
        self._generator = torch.Generator().manual_seed(sampling.seed or 0)

    @property
    def kind(self) -> str:
        """How it takes messages, in words."""
        if self.is_chat:
            return "has a chat template, and is told the turns so far in it"
        if self.model.is_encoder_decoder:
            return "is an encoder-decoder without a chat template: it answers each text by itself"
        return "has no chat template: it continues each text; an empty line goes on with the last one"

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        self._history = ()

    def set_temperature(self, temperature: float) -> None:
        """Raises: ConfigError: it is not a positive number."""
        self.sampling = replace(self.sampling, temperature=temperature)

    def hear(self, message: str) -> Heard:
        """Turn a message into a prompt; the oldest exchanges that leave no room for the answer are left out whole.

        Raises:
            PromptError: an empty message without a text before it, one that is too long by itself, or one that the
                chat template does not take.
        """
        history = self._history
        if not self.is_chat and (message or self.model.is_encoder_decoder):
            history = ()
        if not message.strip() and not history:
            raise PromptError("chat: must be given a text, got an empty line; there is nothing yet to go on with")
        for dropped in range(len(history) + (1 if message else 0)):
            kept = history[dropped:]
            prompt = self._prompt(kept, message)
            if decoder_for(self.model).fits(len(prompt.ids), self.sampling.max_new_tokens):
                return Heard(message, prompt, kept, dropped)
        raise PromptError(
            f"chat: message and answer must fit the {self.model.positions} of {self.name}, got "
            f"{len(prompt.ids)} tokens and --max-new-tokens {self.sampling.max_new_tokens}; shorten the message, or "
            "lower --max-new-tokens"
        )

    def answer(self, heard: Heard) -> Iterator[Streamed]:
        """Sample an answer; yield it after every token."""
        return stream_text(self.model, heard.prompt.ids, self.sampling, generator=self._generator)

    def remember(self, heard: Heard, answer: str) -> None:
        """Take a message and its answer, or what there is of it, into the history."""
        message = heard.message + self._separator if heard.message and not self.is_chat else heard.message
        self._history = (*heard.kept, Exchange(message, answer))

    def _prompt(self, history: Sequence[Exchange], message: str) -> Prompt:
        row: dict[str, Any]
        if self.is_chat:
            turns = [] if self.system is None else [{"role": "system", "content": self.system}]
            for one in history:
                turns.append({"role": "user", "content": one.message})
                turns.append({"role": "assistant", "content": one.answer})
            row = {"messages": [*turns, {"role": "user", "content": message}]}
        else:
            told = message + self._separator if message else ""
            row = {"prompt": "".join(one.message + one.answer for one in history) + told}
        model, scored = self.model, self._scored_chat
        return load_prompts([row], model.tokenizer, scored_chat=scored, vocab_size=model.vocab_size)[0]
