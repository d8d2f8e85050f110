"""Where prompts come from, and what is refused before anything runs."""

import gzip
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import PROMPTS, make_tokenizer, single_env
from transformers.utils import logging as hf_logging

from lm_gym import load_prompts
from lm_gym.errors import ConfigError, DataError, PromptError

CHAT = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}a1{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def chat_tokenizer() -> Any:
    made = make_tokenizer()
    made.chat_template = TEMPLATE
    return made


def texts(source: Any, tokenizer: Any, **settings: Any) -> list[str]:
    return [prompt.text for prompt in load_prompts(source, tokenizer, **settings).prompts]


def test_a_list_of_strings_is_tokenised_once(tokenizer: Any) -> None:
    loaded = load_prompts(list(PROMPTS), tokenizer)
    assert [prompt.text for prompt in loaded.prompts] == list(PROMPTS)
    assert loaded[0].ids.tolist() == [1, 2, 3]
    assert loaded[0].ids.dtype == np.int64
    assert loaded.max_prompt_tokens == 6
    assert len(loaded) == 4
    assert loaded.truncated_count == 0
    assert load_prompts(loaded, tokenizer) is loaded


def test_rows_have_a_prompt_and_other_columns_do_not_matter(tokenizer: Any) -> None:
    assert texts([{"prompt": "a b", "label": 3}, {"prompt": "c"}], tokenizer) == ["a b", "c"]


@pytest.mark.parametrize("key", ["messages", "prompt"])
def test_chat_messages_are_rendered_with_the_generation_prompt(key: str, chat_tokenizer: Any) -> None:
    loaded = load_prompts([{key: CHAT}], chat_tokenizer)
    assert loaded[0].text == "u a b a c u d a1"
    assert loaded[0].ids.tolist() == chat_tokenizer.convert_tokens_to_ids(loaded[0].text.split())


def test_a_template_places_the_special_tokens_and_plain_text_gets_the_tokenizers(chat_tokenizer: Any) -> None:
    from tokenizers import processors

    chat_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="z $A", special_tokens=[("z", 26)]
    )
    loaded = load_prompts([{"messages": CHAT[:1]}, {"prompt": "a"}], chat_tokenizer)
    assert loaded[0].ids[0] != 26
    assert loaded[1].ids.tolist() == [26, 1]


def test_a_chat_is_read_in_every_form_of_messages(chat_tokenizer: Any) -> None:
    plain = texts([{"messages": CHAT}], chat_tokenizer)
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in CHAT]
    shared = [{"from": {"user": "human"}.get(turn["role"], "gpt"), "value": turn["content"]} for turn in CHAT]
    assert texts([{"messages": parts}], chat_tokenizer) == plain
    assert texts([{"prompt": shared}], chat_tokenizer) == plain
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "look"}}]}
    tools = [CHAT[0], call, {"role": "tool", "content": "b"}]
    assert texts([{"messages": tools}], chat_tokenizer) == ["u a b a  t b a1"]


def test_a_template_that_refuses_a_chat_is_named(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(PromptError, match="prompt 1: the chat template refused the messages: roles must alternate"):
        load_prompts([{"messages": CHAT}], chat_tokenizer)


SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("roles", "turns", "settings", "lost"),
    [
        (("user",), [CHAT[0]], {"system_prompt": "s"}, "'system'"),
        (("user",), [SYSTEM, CHAT[0]], {}, "'system'"),
        (("system", "user"), [SYSTEM, CHAT[0], {"role": "tool", "content": "z"}], {}, "'tool'"),
    ],
)
def test_a_template_that_leaves_a_message_out_is_refused(
    roles: tuple[str, ...], turns: Any, settings: Any, lost: str, chat_tokenizer: Any
) -> None:
    chat_tokenizer.chat_template = (
        "{% for m in messages if m['role'] in " + repr(roles) + " %}{{ m['content'] | trim }} {% endfor %}a1"
    )
    with pytest.raises(PromptError, match=f"prompt 1: the chat template must write .* that of the role {lost}"):
        load_prompts([{"messages": turns}], chat_tokenizer, **settings)


def test_a_template_may_rewrite_a_message(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | trim | lower }} {% endfor %}a1"
    turns = [{"role": "system", "content": " S "}, {"role": "user", "content": "A  B "}]
    assert texts([{"messages": turns}], chat_tokenizer) == ["s a  b a1"]


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.parquet"])
def test_prompts_come_from_every_file_of_rows(name: str, tokenizer: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([{"prompt": "a b", "n": 1}, {"prompt": "c", "n": 2}])
    getattr(made, f"to_{name[2:]}")(tmp_path / name)
    for source in (tmp_path / name, str(tmp_path / name), made):
        loaded = load_prompts(source, tokenizer)
        assert [(prompt.text, prompt.columns) for prompt in loaded.prompts] == [("a b", {"n": 1}), ("c", {"n": 2})]
    with pytest.raises(DataError, match=r"prompts: must be a file, .* got DataFrame"):
        load_prompts(made.to_pandas(), tokenizer)


def test_chat_messages_without_a_template_are_refused(tokenizer: Any) -> None:
    with pytest.raises(PromptError, match=r"prompt 2: chat messages need .* set tokenizer.chat_template, or give"):
        load_prompts([{"prompt": "a"}, {"messages": CHAT}], tokenizer)


def write_lines(path: Path, lines: list[str]) -> Path:
    text = "".join(line + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
@pytest.mark.parametrize("kind", [str, Path])
def test_json_lines_are_read_plain_and_compressed(name: str, kind: Any, tokenizer: Any, tmp_path: Path) -> None:
    path = write_lines(tmp_path / name, [json.dumps({"prompt": "a b"}), "", json.dumps({"prompt": "c"})])
    assert texts(kind(path), tokenizer) == ["a b", "c"]


def test_a_datasets_dataset_is_read(tokenizer: Any) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"prompt": "a b", "n": 1}, {"prompt": "c", "n": 2}])
    assert texts(table, tokenizer) == ["a b", "c"]


def test_a_dataset_of_chats_is_read(chat_tokenizer: Any) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"messages": CHAT[:1]}])
    assert texts(table, chat_tokenizer) == ["u a b a1"]


@pytest.mark.parametrize(("truncation", "kept"), [("left", "e f g"), ("right", "a b c")])
def test_truncation_keeps_one_end_and_counts(
    truncation: str, kept: str, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="lm_gym"):
        loaded = load_prompts(
            ["a b c d e f g", "a b c", "d"],
            tokenizer,
            max_prompt_tokens=3,
            truncation=truncation,  # type: ignore[arg-type]
        )
    assert [prompt.text for prompt in loaded.prompts] == [kept, "a b c", "d"]
    assert [len(prompt.ids) for prompt in loaded.prompts] == [3, 3, 1]
    assert loaded.truncated_count == 1
    assert f"1 of 3 prompts were cut on the {truncation} to 3 tokens" in caplog.text


def test_a_prompt_over_the_limit_is_refused_by_number(tokenizer: Any) -> None:
    with pytest.raises(
        PromptError,
        match=r"prompt 2: must have at most max_prompt_tokens = 2 tokens, got 3 \('a b c'\); raise the limit, shorten",
    ):
        load_prompts(["a", "a b c"], tokenizer, max_prompt_tokens=2)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_token_is_refused(limit: int, tokenizer: Any) -> None:
    with pytest.raises((ConfigError, PromptError), match=r"max_prompt_tokens.* must be .*1"):
        load_prompts(["a b c"], tokenizer, max_prompt_tokens=limit, truncation="left")


def test_an_unknown_truncation_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match='must be "error", "left" or "right", got \'middle\''):
        load_prompts(["a"], tokenizer, truncation="middle")  # type: ignore[arg-type]


def test_a_finished_set_longer_than_the_limit_is_not_taken_as_it_is(tokenizer: Any) -> None:
    loaded = load_prompts(["a b c d"], tokenizer)
    with pytest.raises((ConfigError, PromptError), match="max_prompt_tokens = 2"):
        load_prompts(loaded, tokenizer, max_prompt_tokens=2)


def test_a_finished_set_takes_a_wider_limit(tokenizer: Any) -> None:
    loaded = load_prompts(load_prompts(["a b c d"], tokenizer), tokenizer, max_prompt_tokens=9)
    assert loaded.max_prompt_tokens == 9


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ([], "prompts: must hold at least one prompt, got none"),
        (["a", ""], "prompt 2: must be a non-empty string, got ''"),
        (["  "], "prompt 1: must be a non-empty string"),
        ([None], "prompt 1: must be a non-empty string, got None"),
        ([3], "prompt 1: must be a non-empty string, got 3"),
        ([{"text": "a", "n": 1}], r"prompt 1: a row must have the key 'prompt' or 'messages', got \['n', 'text'\]"),
        ([{"prompt": None}], "prompt 1: must be a non-empty string, got None"),
        (["a", "b \ud800"], "prompt 2: must be Unicode text, got half of a surrogate pair"),
        (3, "prompts: must be strings, rows, a file of rows, a Dataset or a hub id, got int"),
        ({"train": ["a"]}, "prompts: must be strings, rows, .* got dict"),
    ],
)
def test_sources_without_usable_prompts_are_refused(source: Any, text: str, tokenizer: Any) -> None:
    with pytest.raises(PromptError, match=text):
        load_prompts(source, tokenizer)


def test_a_dataset_dict_is_refused_and_not_read_as_its_split_names(tokenizer: Any) -> None:
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list([{"prompt": "a"}]))
    with pytest.raises(PromptError, match="DatasetDict"):
        load_prompts(splits, tokenizer)


@pytest.mark.parametrize("messages", [[], "a", {"role": "user"}, ["a"], [{"content": "a"}], [{"role": "user"}]])
def test_messages_that_are_no_turns_are_refused(messages: Any, chat_tokenizer: Any) -> None:
    with pytest.raises(PromptError, match="prompt 1: 'messages'"):
        load_prompts([{"messages": messages}], chat_tokenizer)


def test_a_prompt_of_no_tokens_is_refused(tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("x", "")
    with pytest.raises(PromptError, match=r"prompt 1: must not be empty, got 'x' \(no tokens\)"):
        load_prompts(["x"], tokenizer)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (['{"prompt": "a"}', "", '{"prompt": '], r"p\.jsonl, line 3: must be one JSON object, got '\{\"prompt\":'"),
        (['{"prompt": "a"}', "[1]"], r"p\.jsonl, line 2: must be a JSON object, got list"),
        ([], r"p\.jsonl: must hold at least one row, got an empty file"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(lines: list[str], text: str, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        load_prompts(write_lines(tmp_path / "p.jsonl", lines), tokenizer)


def test_a_missing_file_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: must be a .jsonl or .jsonl.gz file, and there is no such file"):
        load_prompts(tmp_path / "gone.jsonl", tokenizer)


def test_an_existing_file_of_another_kind_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a")
    with pytest.raises(PromptError, match=r"a file of prompts must end in .jsonl, .json, .csv"):
        load_prompts(str(path), tokenizer)


def test_a_hub_id_without_network_is_refused_with_a_remedy(tokenizer: Any) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(PromptError, match=r"prompts 'nobody/nothing': .* Give a local file if there is no network"):
        load_prompts("nobody/nothing", tokenizer)


def test_a_prompt_token_that_the_model_does_not_know_is_refused(reference: Any) -> None:
    from lm_gym import LanguageModel, Reference
    from lm_gym.errors import LmGymError

    wide = make_tokenizer(40)
    word = wide.convert_ids_to_tokens(38)
    with pytest.raises(LmGymError, match="38"):
        single_env(Reference(LanguageModel(reference.model, wide)), [word], max_new_tokens=3).reset(seed=0)


@pytest.mark.parametrize("truncation", ["error", "left", "right"])
def test_only_this_library_tells_of_a_prompt_that_is_too_long(
    truncation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 4
    theirs, verbosity = hf_logging.get_logger(), hf_logging.get_verbosity()
    hf_logging.set_verbosity_warning()
    theirs.addHandler(caplog.handler)
    try:
        settings: dict[str, Any] = {"max_prompt_tokens": 3, "truncation": truncation}
        with nullcontext() if truncation != "error" else pytest.raises(PromptError, match="must have at most"):
            load_prompts(["a b c d e f"], tokenizer, **settings)
    finally:
        theirs.removeHandler(caplog.handler)
        hf_logging.set_verbosity(verbosity)
    assert "Token indices" not in caplog.text


DIALOGUE = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]}


@pytest.mark.parametrize(
    ("scored_chat", "text"),
    [
        ("template", "u hello a yes a1"),
        ("transcript", "\n\nHuman: hello\n\nAssistant: yes\n\nAssistant:"),
        ("last_message", "yes"),
    ],
)
def test_the_text_of_a_chat_that_is_scored_is_a_choice_and_its_tokens_are_not(
    scored_chat: Any, text: str, chat_tokenizer: Any
) -> None:
    (found,) = load_prompts([DIALOGUE], chat_tokenizer, scored_chat=scored_chat).prompts
    (plain,) = load_prompts([DIALOGUE], chat_tokenizer).prompts
    assert found.text == text
    assert found.ids.tolist() == plain.ids.tolist()
    assert texts(["a text"], chat_tokenizer, scored_chat=scored_chat) == ["a text"]


def test_a_system_prompt_goes_before_every_chat_that_has_none(chat_tokenizer: Any) -> None:
    with_its_own = {"messages": [{"role": "system", "content": "mine"}, *DIALOGUE["messages"]]}
    assert texts([DIALOGUE, with_its_own, "hello"], chat_tokenizer, system_prompt="be short") == [
        "s be short u hello a yes a1",
        "s mine u hello a yes a1",
        "s be short u hello a1",
    ]
    (kept,) = load_prompts([{"prompt": "hello", "answer": 3}], chat_tokenizer, system_prompt="be short").prompts
    assert kept.columns == {"answer": 3}
    with pytest.raises(PromptError, match="prompt 1: must be a non-empty string"):
        load_prompts([" "], chat_tokenizer, system_prompt="be short")
    with pytest.raises(PromptError, match="need a tokenizer with a chat template"):
        load_prompts(["hello"], make_tokenizer(), system_prompt="be short")


def test_a_chat_that_was_cut_is_scored_as_it_was_asked(chat_tokenizer: Any) -> None:
    long = {
        "messages": [
            {"role": "user", "content": "old words"},
            *DIALOGUE["messages"],
            {"role": "user", "content": "now"},
        ]
    }
    limit = len(chat_tokenizer("u hello a yes u now a1", add_special_tokens=False)["input_ids"])
    settings: dict[str, Any] = {"max_prompt_tokens": limit, "truncation": "left", "scored_chat": "transcript"}
    (found,) = texts([long], chat_tokenizer, **settings)
    assert "old words" not in found
    assert found.endswith("\n\nHuman: now\n\nAssistant:")


def test_other_prompts_are_loaded_by_the_rules_of_a_set(chat_tokenizer: Any) -> None:
    settings: dict[str, Any] = {"system_prompt": "be short", "scored_chat": "last_message", "truncation": "left"}
    one = load_prompts([DIALOGUE], chat_tokenizer, **settings)
    more = one.load_alike(["why"], chat_tokenizer, max_prompt_tokens=None, vocab_size=one[0].ids.max() + 100)
    expected = load_prompts(["why"], chat_tokenizer, **settings)
    assert more[0].text == "why"
    assert more[0].ids.tolist() == expected[0].ids.tolist()
    with pytest.raises(PromptError, match="must be left out with prompts that are tokenised already"):
        load_prompts(one, chat_tokenizer, system_prompt="be long")
