import gzip
import json
import re

import pytest
from transformers import AutoTokenizer

from lm_gym.agents.supervised.documents import (
    Document,
    PackedBlocks,
    encode_documents,
    read_documents,
    split_documents,
    train_tokenizer,
)
from lm_gym.errors import DataError


def texts(documents):
    return ["|".join(document.parts) for document in documents]


def documents_of(groups):
    return [Document(parts=(f"{group} {i}",), group=group) for group, count in groups.items() for i in range(count)]


def test_text_is_cut_at_blank_lines_or_kept_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n  \n\nthree\n")
    assert texts(read_documents(path)) == ["one\ntwo", "three"]
    assert texts(read_documents([path, "four\n\nfive"], rule="file")) == ["one\ntwo\n\n  \n\nthree\n", "four\n\nfive"]


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "three"}\r\n')
    assert texts(read_documents([tmp_path / "a.txt", tmp_path / "b.jsonl"])) == ["one", "two", "three"]


def test_rows_of_every_form(tmp_path):
    rows = [
        {"text": "a"},
        {"prompt": "p", "completion": "c"},
        {"prompt": "q", "responses": ["r", "s"], "ranks": [1, 2]},
    ]
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(json.dumps(row) for row in rows))
    documents = read_documents(str(path))
    assert texts(documents) == ["a", "p|c", "q|r", "q|s"]
    assert [document.group for document in documents] == ["a", "p", "q", "q"]


def test_rows_and_data_sets_are_documents_too():
    rows = [{"text": "one"}, {"prompt": "p ", "completion": "c"}]
    assert texts(read_documents(rows)) == ["one", "p |c"]
    datasets = pytest.importorskip("datasets")
    assert texts(read_documents(datasets.Dataset.from_list(rows[1:]))) == ["p |c"]
    for wrong in (3, None, {"text": "one"}, b"one"):
        with pytest.raises(DataError, match=r"texts: must be a file, a datasets\.Dataset or a list of rows, got"):
            read_documents(wrong)
    with pytest.raises(DataError, match=r"text 1: must have the keys .*, got \['3'\]"):
        read_documents([{3: "x"}])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"body": "x"}', "a.jsonl, row 1: must have the keys {text}, {prompt, completion} or"),
        ("a.jsonl", '{"prompt": "x", "responses": "y"}', "got ['prompt', 'responses']"),
        ("a.jsonl", '{"text": "x"}\n{"text": ""}', "a.jsonl, row 2: every text must be a non-empty string, got ('',)"),
        ("a.jsonl", '{"text": "x"}\n{"te', "a.jsonl, line 2: must be one JSON object"),
        (
            "a.jsonl",
            '{"text": "x\\ud83d"}',
            "a.jsonl, line 1: 'text': must be Unicode text, got half of a surrogate pair",
        ),
        ("a.txt", " \n\n", "a.txt: must hold some text, got none but white space"),
        ("a.txt", "", "a.txt: must hold some text"),
        ("a.pdf", "x", "a.pdf: must end in .txt, .jsonl, .json, .csv"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_documents([path])


def test_other_bad_input(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt: must be a text file in UTF-8; reading it failed"):
        read_documents("nowhere.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="must be a text file in UTF-8"):
        read_documents(tmp_path / "a.txt")
    with pytest.raises(DataError, match="must be given at least one text or file"):
        read_documents([])
    with pytest.raises(DataError, match="text 1: must be a string, a path or a row, got int"):
        read_documents([3])
    with pytest.raises(DataError, match="text 1: must be Unicode text, got half of a surrogate pair"):
        read_documents("a\ud83d")
    with pytest.raises(DataError, match="text 2: must hold some text"):
        read_documents(["a", " "])


def test_groups_are_held_out_whole():
    documents = documents_of({f"g{i}": 5 for i in range(10)})
    train, held_out = split_documents(documents, validation_fraction=0.3, seed=0)
    assert len(held_out) == 15
    assert len(train) == 35
    assert not {d.group for d in train} & {d.group for d in held_out}
    again = split_documents(documents, validation_fraction=0.3, seed=0)
    assert again == (train, held_out)
    assert split_documents(documents, validation_fraction=0.3, seed=1) != (train, held_out)


def test_something_is_left_to_train_on_and_to_hold_out():
    two = documents_of({"a": 1, "b": 1})
    assert [len(part) for part in split_documents(two, validation_fraction=0.99, seed=0)] == [1, 1]
    one_group = documents_of({"a": 4})
    assert [len(part) for part in split_documents(one_group, validation_fraction=0.2, seed=0)] == [3, 1]
    single = [Document(parts=("0123456789",), group="x")]
    assert [texts(part) for part in split_documents(single, validation_fraction=0.2, seed=0)] == [["01234567"], ["89"]]
    assert split_documents(single, validation_fraction=0, seed=0) == (single, [])


def test_tokenizer_keeps_every_text_and_loads_as_a_fast_one(tmp_path):
    documents = read_documents(["the cat and the hat\n\nthat is the end of the cat"] * 3)
    tokenizer = train_tokenizer(documents, vocab_size=270, max_length=32)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast
    assert len(loaded) == 270
    assert loaded.eos_token == loaded.bos_token == loaded.pad_token == "<|endoftext|>"
    assert loaded.eos_token_id == 0
    text = " ünï “code” \n\t 文字 the cat "
    ids = loaded(text)["input_ids"]
    assert ids == tokenizer(text)["input_ids"]
    assert loaded.decode(ids) == text
    assert len(loaded(" the cat")["input_ids"]) < 8, "common words are merged"
    assert loaded("a<|endoftext|>")["input_ids"][-1] == 0


def test_documents_end_with_end_of_text_and_parts_are_tokenised_apart(merging_tokenizer):
    documents = [Document(parts=("a", "b"), group="a"), Document(parts=("ab",), group="ab")]
    joint = len(merging_tokenizer) - 1
    assert encode_documents(documents, merging_tokenizer).tolist() == [1, 2, 0, joint, 0]
    assert encode_documents([], merging_tokenizer).tolist() == []


@pytest.mark.parametrize(("count", "sizes"), [(2, [2]), (4, [4]), (5, [4, 2]), (7, [4, 4]), (8, [4, 4, 2])])
def test_blocks_learn_every_token_but_the_first_once(count, sizes):
    import numpy as np

    blocks = PackedBlocks(np.arange(count, dtype=np.int32), length=4)
    assert [len(block.input_ids) for block in blocks] == sizes
    learned = [int(i) for block in blocks for i, counts in zip(block.input_ids, block.loss_mask, strict=True) if counts]
    assert learned == list(range(1, count))
    assert blocks[-1].input_ids.tolist() == blocks[len(sizes) - 1].input_ids.tolist()


def test_a_corpus_of_one_token_is_refused():
    import numpy as np

    with pytest.raises(DataError, match="must have at least 2 tokens, got 1"):
        PackedBlocks(np.zeros(1, dtype=np.int32), length=4)
