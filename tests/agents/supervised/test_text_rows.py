import re

import pytest

from lm_gym.agents.supervised.rows import prompt_and_completion, tokenize_rows
from lm_gym.errors import DataError, UnsupportedModelError

CHAT = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
MARKED_CHAT = (
    "{% for m in messages %}<{{ m.role[0] }}>{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\\n' }}{% endfor %}"
)
TURNS = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "so"},
    {"role": "assistant", "content": "ok"},
]


def learned(text, tokenizer):
    """The tokens that count, in order, with what does not count as dots."""
    words = [tokenizer.decode([i]).replace("<eos>", "$") for i in text.input_ids]
    return "".join(w if counts else "." * len(w) for w, counts in zip(words, text.loss_mask, strict=True))


def one(row, tokenizer, **options):
    return tokenize_rows([row], tokenizer, **options).rows[0]


def test_prompt_and_completion_by_hand(tokenizer, letters):
    text = one({"prompt": "ab", "completion": "cd"}, tokenizer)
    assert list(text.input_ids) == letters("abcd$")
    assert list(text.loss_mask) == [False, False, True, True, True]


def test_prompt_and_completion_are_tokenised_apart(merging_tokenizer):
    """The model in the environment sees "a" and must continue with "b": the joint token "ab" never occurs there."""
    assert merging_tokenizer("ab")["input_ids"] == [len(merging_tokenizer) - 1]
    text = one({"prompt": "a", "completion": "b"}, merging_tokenizer)
    assert list(text.input_ids) == [1, 2, 0]


def test_the_prompt_is_tokenised_as_the_environment_does(tokenizer):
    from lm_gym.prompts import load_prompts

    row = {"prompt": "so: ", "completion": "ok"}
    prompt = load_prompts([row], tokenizer)[0].ids.tolist()
    assert list(one(row, tokenizer).input_ids)[: len(prompt)] == prompt


def test_instruction_row_without_and_with_input(tokenizer):
    options = {"instruction_template": "do: {instruction}\nsay: "}
    plain = one({"instruction": "add", "output": "ok"}, tokenizer, **options)
    assert tokenizer.decode(plain.input_ids) == "do: add\nsay: ok<eos>"
    assert learned(plain, tokenizer) == "." * len("do: add\nsay: ") + "ok$"
    both = {"instruction": "add {x}", "input": "1 2", "output": "3"}
    prompt, output = prompt_and_completion(both, tokenizer, **options)
    assert (prompt, output) == ("do: add {x}\n\n1 2\nsay: ", "3")
    assert one(both | {"input": ""}, tokenizer, instruction_template="{instruction}:")


def test_chat_learns_the_last_turn_and_ends_at_its_stop_token(tokenizer, letters):
    tokenizer.chat_template = CHAT
    text = one({"messages": TURNS}, tokenizer)
    prompt = "<u>hi$\n<a>yo$\n<u>so$\n<a>"
    assert list(text.input_ids) == letters(prompt + "ok$"), "the line break after the last stop token is dropped"
    assert learned(text, tokenizer) == "." * (len(prompt)) + "ok$"


def test_chat_with_generation_blocks_learns_every_assistant_turn(tokenizer, letters):
    tokenizer.chat_template = MARKED_CHAT
    text = one({"messages": TURNS}, tokenizer)
    assert list(text.input_ids) == letters("<u>hi\n<a>yo$\n<u>so\n<a>ok$")
    assert learned(text, tokenizer) == "." * len("<u>hi\n<a>") + "yo$" + "." * len("\n<u>so\n<a>") + "ok$"


def test_stop_token_is_learned_where_the_template_writes_none(tokenizer):
    tokenizer.chat_template = MARKED_CHAT.replace("{{ eos_token }}", "")
    assert learned(one({"messages": TURNS}, tokenizer), tokenizer).endswith("ok.$")
    tokenizer.chat_template = CHAT.replace("{{ eos_token }}\n", "")
    assert learned(one({"messages": TURNS}, tokenizer), tokenizer).endswith(".ok$")


def test_stop_token_is_not_doubled(tokenizer, letters):
    text = one({"prompt": "a", "completion": "b<eos>"}, tokenizer)
    assert list(text.input_ids) == letters("ab$")


def test_pad_equal_to_eos_does_not_unlearn_the_stop_token(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    text = one({"prompt": "a<eos>b", "completion": "c"}, tokenizer)
    assert list(text.loss_mask) == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("limit", "kept", "counts"),
    [
        (7, "abcdef$", 4),
        (6, "bcdef$", 4),
        (5, "cdef$", 4),
        (4, "cdef", 3),
        (2, "cd", 1),
    ],
)
def test_truncation_cuts_the_prompt_left_then_the_completion_right(tokenizer, letters, limit, kept, counts):
    tokenized = tokenize_rows(
        [{"prompt": "abc", "completion": "def"}], tokenizer, max_length=limit, on_long_row="truncate"
    )
    assert list(tokenized.rows[0].input_ids) == letters(kept)
    assert sum(tokenized.rows[0].loss_mask) == counts
    assert tokenized.truncated_count == (limit < 7)


def test_long_rows_are_an_error_or_dropped_and_counted(tokenizer):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "abc", "completion": "def"}]
    with pytest.raises(DataError, match=r"data\.jsonl, row 2: must have at most max_length = 6 tokens, got 7; raise"):
        tokenize_rows(rows, tokenizer, max_length=6, source="data.jsonl")
    tokenized = tokenize_rows(rows, tokenizer, max_length=6, on_long_row="drop")
    assert (len(tokenized.rows), tokenized.dropped_count, tokenized.truncated_count) == (1, 1, 0)
    with pytest.raises(DataError, match="rows: must leave at least one row to train on, got 2 and dropped 2"):
        tokenize_rows(rows, tokenizer, max_length=2, on_long_row="drop")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "answer": "b"}, "row 1: must have the keys {prompt, completion}, {instruction"),
        ({"question": "a", "answer": "b"}, "got ['answer', 'question']; rename the keys"),
        ({"question": "a", 1: "b"}, "got ['1', 'question']; rename the keys"),
        ({"prompt": "a", "completion": ""}, "row 1: 'completion' must be non-empty text, got ''"),
        ({"prompt": " ", "completion": "b"}, "row 1: 'prompt' must be non-empty text, got ' '"),
        ({"prompt": "a", "completion": None}, "'completion' must be non-empty text, got None"),
        ({"instruction": "a", "output": 3}, "'output' must be non-empty text, got 3"),
        ("a text", "row 1: must be an object with the keys"),
        (
            {"prompt": "a", "completion": "b\ud83d"},
            "row 1: must be Unicode text, got half of a surrogate pair, '\\ud83d'",
        ),
        ({"messages": []}, "must hold at least one message, got none; fix or remove the row"),
        ({"messages": TURNS[:3]}, "must end with an assistant turn"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": ""}]}, "every assistant turn must have content, got"),
        ({"messages": "hi"}, "'messages' must be a list"),
    ],
)
def test_bad_rows_are_named(tokenizer, row, message):
    tokenizer.chat_template = CHAT
    with pytest.raises(DataError, match=re.escape(message)):
        one(row, tokenizer)


def test_a_chat_is_read_in_every_form_of_messages(tokenizer):
    tokenizer.chat_template = CHAT
    plain = one({"messages": TURNS}, tokenizer)
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TURNS]
    assert one({"messages": parts}, tokenizer) == plain
    names = {"user": "human", "assistant": "gpt"}
    shared = [{"from": names.get(turn["role"], turn["role"]), "value": turn["content"]} for turn in TURNS]
    assert one({"conversations": shared}, tokenizer) == plain
    assert one({"prompt": TURNS[:-1], "completion": TURNS[-1:]}, tokenizer) == plain
    with pytest.raises(DataError, match="content parts must be text, got one of type 'image_url'"):
        one({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, TURNS[1]]}, tokenizer)


def test_template_that_refuses_or_rewrites_is_named(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="row 1: the chat template refused the messages: roles must alternate"):
        one({"messages": TURNS}, tokenizer)
    tokenizer.chat_template = "{{ messages | length }}" + CHAT
    with pytest.raises(DataError, match="must write a conversation as a continuation of its beginning"):
        one({"messages": TURNS}, tokenizer)


def test_tokenizer_without_eos_or_chat_template(tokenizer):
    with pytest.raises(UnsupportedModelError, match=r"chat rows need a chat template, and it has none \(rows, row 1\)"):
        one({"messages": TURNS}, tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(UnsupportedModelError, match="must have an EOS token, since the stop token is learned"):
        one({"prompt": "a", "completion": "b"}, tokenizer)


def test_no_rows(tokenizer):
    with pytest.raises(DataError, match="must leave at least one row to train on, got 0"):
        tokenize_rows([], tokenizer)
