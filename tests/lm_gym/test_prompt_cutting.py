"""Prompts that are too long: what is cut, and what never is."""

from typing import Any

import numpy as np
import pytest
from tiny_models import make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lm_gym import load_prompts
from lm_gym.errors import PromptError

MARKUP = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "<s>{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STRICT = (
    "{% for m in messages if m['role'] != 'system' %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
SYSTEM = {"role": "system", "content": "be kind"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte is a token, the markup is special, and a plain text gets <s> before it and </s> after it."""
    names = [*MARKUP, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    core.add_special_tokens(MARKUP)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    made.chat_template = TEMPLATE
    return made


def cut(tokenizer: Any, row: Any, limit: int, side: str) -> str:
    """The shortened prompt with its special tokens; its text and its ids say the same."""
    prompt = load_prompts([row], tokenizer, max_prompt_tokens=limit, truncation=side)[0]  # type: ignore[arg-type]
    assert len(prompt.ids) <= limit
    if isinstance(row, dict):
        assert tokenizer(prompt.text, add_special_tokens=False)["input_ids"] == prompt.ids.tolist()
    else:
        assert prompt.text == tokenizer.decode(prompt.ids, skip_special_tokens=True)
    return str(tokenizer.decode(prompt.ids))


@pytest.mark.parametrize(("side", "kept"), [("left", "<s>fg</s>"), ("right", "<s>ab</s>")])
def test_a_text_keeps_the_special_tokens_around_it(side: str, kept: str, tokenizer: Any) -> None:
    assert cut(tokenizer, "abcdefg", 4, side) == kept


@pytest.mark.parametrize(("limit", "left", "right"), [(6, "é!", "aé"), (5, "é!", "aé"), (4, "!", "a"), (3, "!", "a")])
def test_no_character_is_cut_in_two(limit: int, left: str, right: str, tokenizer: Any) -> None:
    assert cut(tokenizer, "aéé!", limit, "left") == f"<s>{left}</s>"
    assert cut(tokenizer, "aéé!", limit, "right") == f"<s>{right}</s>"


def test_special_tokens_that_leave_no_room_are_named(tokenizer: Any) -> None:
    with pytest.raises(
        PromptError, match=r"prompt 1: its 2 special tokens leave no room .* max_prompt_tokens = 2; raise .*'abc'"
    ):
        load_prompts(["abc"], tokenizer, max_prompt_tokens=2, truncation="left")


CHAT = [SYSTEM, user("one"), assistant("two"), user("three"), assistant("four"), user("five")]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", [TEMPLATE, STRICT + TEMPLATE])
@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (38, "<|user|>three<|end|><|assistant|>four<|end|><|user|>five<|end|>"),
        (32, "<|user|>three<|end|><|assistant|>four<|end|><|user|>five<|end|>"),
        (28, "<|user|>five<|end|>"),
        (17, "<|user|>five<|end|>"),
    ],
)
def test_a_chat_loses_its_oldest_turns_first(limit: int, kept: str, template: str, side: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    shown = cut(tokenizer, {"messages": CHAT}, limit, side)
    assert shown == f"<s><|system|>be kind<|end|>{kept}<|assistant|>"


@pytest.mark.parametrize("key", ["messages", "prompt"])
@pytest.mark.parametrize(("side", "kept"), [("left", "ve"), ("right", "fi")])
def test_the_last_turn_of_a_chat_loses_text_on_the_named_side(key: str, side: str, kept: str, tokenizer: Any) -> None:
    shown = cut(tokenizer, {key: CHAT}, 15, side)
    assert shown == f"<s><|system|>be kind<|end|><|user|>{kept}<|end|><|assistant|>"


def test_what_follows_the_last_turn_of_the_user_stays_and_the_longest_is_cut(tokenizer: Any) -> None:
    chat = [user("one"), assistant("two"), user("abc"), assistant("0123456789")]
    assert cut(tokenizer, {"messages": chat}, 13, "right") == (
        "<s><|user|>abc<|end|><|assistant|>0123<|end|><|assistant|>"
    )


def test_text_is_cut_between_whole_characters_and_without_a_fast_tokenizer(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = {"messages": [user("日本語")]}
    assert cut(tokenizer, chat, 9, "left") == "<s><|user|>語<|end|><|assistant|>"
    assert cut(tokenizer, chat, 10, "right") == "<s><|user|>日本<|end|><|assistant|>"
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    assert cut(tokenizer, chat, 9, "left") == "<s><|user|>語<|end|><|assistant|>"


def test_a_system_message_is_never_cut(tokenizer: Any) -> None:
    with pytest.raises(
        PromptError,
        match=r"prompt 1: its system messages, markup and generation prompt take 14 tokens with .* cut to one, which "
        r"is over max_prompt_tokens = 13; raise the limit",
    ):
        load_prompts([{"messages": CHAT}], tokenizer, max_prompt_tokens=13, truncation="left")


@pytest.mark.parametrize("chat", [[SYSTEM], [user([{"type": "text", "text": "abc"}])], [user("")]])
def test_a_chat_without_text_to_cut_is_refused(chat: list[dict[str, Any]], tokenizer: Any) -> None:
    with pytest.raises(PromptError, match="prompt 1: its system messages, markup"):
        load_prompts([{"messages": chat}], tokenizer, max_prompt_tokens=3, truncation="right")


def test_every_limit_either_fits_or_is_refused(tokenizer: Any) -> None:
    """The markup is whole for every limit, and a higher limit never keeps less."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        turns = [(user, assistant)[n % 2]("xé語 "[: rng.integers(1, 5)] * rng.integers(1, 6)) for n in range(5)]
        full = len(load_prompts([{"messages": turns}], tokenizer)[0].ids)
        lengths = []
        for limit in range(1, full):
            try:
                shown = cut(tokenizer, {"messages": turns}, limit, "left")
            except PromptError:
                assert not lengths, "a lower limit fitted"
                continue
            assert shown.startswith("<s><|user|>")
            assert shown.endswith("<|end|><|assistant|>")
            lengths.append(len(shown))
        assert lengths == sorted(lengths)


def test_a_word_is_kept_whole_where_a_word_is_a_token() -> None:
    words = make_tokenizer()
    words.chat_template = "{% for m in messages %}u {{ m['content'] }} {% endfor %}a1"
    loaded = load_prompts([{"messages": [user("b c d a1 e")]}], words, max_prompt_tokens=4, truncation="left")
    assert loaded[0].text == "u a1 e a1"
