"""Plain text for pretraining: documents from files, a tokenizer learned from them, and blocks of tokens.

Knows: files, documents, bytes, the tokenizers library. Does not know: the model or the loop.
Shapes: N = tokens of a corpus.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lm_gym.errors import DataError
from lm_gym.sources.rows import SUFFIXES, is_row_file, read_rows
from lm_gym.tools.json_values import require_unicode

from .rows import TokenizedText

__all__ = [
    "END_OF_TEXT",
    "Document",
    "DocumentRule",
    "PackedBlocks",
    "Texts",
    "encode_documents",
    "read_documents",
    "split_documents",
    "train_tokenizer",
]

Texts = str | Path | Sequence[str | Path | Mapping[str, Any]]
"""Files, texts and rows, one or many."""
END_OF_TEXT = "<|endoftext|>"
"""The one special token of a tokenizer made here: begins, ends and pads."""
DocumentRule = Literal["paragraph", "file"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text that ends with the end-of-text token."""

    parts: tuple[str, ...]
    """Pieces that are tokenised apart: one text, or a prompt and its response."""
    group: str
    """Documents of one group are held out together: the prompt, or the text itself."""

    def size_bytes(self) -> int:
        """Count the bytes of the text in UTF-8."""
        return sum(len(part.encode()) for part in self.parts)


def read_documents(sources: Texts, *, rule: DocumentRule = "paragraph") -> list[Document]:
    """Read documents from files, texts and rows.

    Args:
        sources: one or many. A ``Path``, or a string without a line break that ends in .txt or as a file of
            rows does (:mod:`lm_gym.sources.rows`), is a file; any other string is a text. Rows, in a file, a
            list or a ``datasets.Dataset``, have ``text``, or ``prompt`` and ``completion``, or ``prompt`` and
            ``responses`` (each response becomes a document after its prompt).
        rule: division of a .txt file or a text. "paragraph" makes a document of each run of lines between
            blank lines; "file" makes one of the whole.

    Raises:
        DataError: a file is missing, empty or not readable, or a row has none of the forms.
    """
    given: list[Any] = [sources] if isinstance(sources, str | Path) else []
    if not given:
        given = list(sources) if isinstance(sources, list | tuple) else read_rows(sources, name="texts")
    documents: list[Document] = []
    for number, source in enumerate(given, start=1):
        found = list(_from_source(source, rule, f"text {number}"))
        if not found:
            name = source if isinstance(source, str | Path) and _is_file(source) else f"text {number}"
            raise DataError(f"{name}: must hold some text, got none but white space; remove it or fill it")
        documents += found
    if not documents:
        raise DataError("pretraining: must be given at least one text or file, got none")
    return documents


def _is_file(source: str | Path) -> bool:
    return isinstance(source, Path) or ("\n" not in source and (source.endswith(".txt") or is_row_file(source)))


def _from_source(source: Any, rule: DocumentRule, name: str) -> Iterator[Document]:
    if isinstance(source, Mapping):
        yield from _from_row(source, name)
    elif not isinstance(source, str | Path):
        raise DataError(f"{name}: must be a string, a path or a row, got {type(source).__name__}")
    elif not _is_file(source):
        require_unicode(str(source), name)
        yield from _cut(str(source), rule)
    elif str(source).endswith(".txt"):
        yield from _cut(_read_text(Path(source)), rule)
    elif is_row_file(str(source)):
        for number, row in enumerate(read_rows(source), start=1):
            yield from _from_row(row, f"{source}, row {number}")
    else:
        raise DataError(f"{source}: must end in .txt, {', '.join(SUFFIXES)}; rename the file")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: must be a text file in UTF-8; reading it failed: {error}") from error


def _cut(text: str, rule: DocumentRule) -> Iterator[Document]:
    if rule == "file":
        if text.strip():
            yield Document(parts=(text,), group=text)
        return
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            paragraph = "\n".join(lines)
            lines = []
            yield Document(parts=(paragraph,), group=paragraph)


def _from_row(row: Mapping[str, Any], name: str) -> Iterator[Document]:
    if "text" in row:
        pairs: list[tuple[Any, ...]] = [(row["text"],)]
    elif "prompt" in row and "completion" in row:
        pairs = [(row["prompt"], row["completion"])]
    elif "prompt" in row and isinstance(row.get("responses"), list):
        pairs = [(row["prompt"], response) for response in row["responses"]]
    else:
        raise DataError(
            f"{name}: must have the keys {{text}}, {{prompt, completion}} or {{prompt, responses (a list)}}, "
            f"got {sorted(map(str, row))}; rename the keys of the data"
        )
    for parts in pairs:
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise DataError(f"{name}: every text must be a non-empty string, got {parts!r}; fix or remove the row")
        require_unicode("".join(parts), name)
        yield Document(parts=parts, group=parts[0])


def split_documents(
    documents: Sequence[Document], *, validation_fraction: float, seed: int
) -> tuple[list[Document], list[Document]]:
    """Hold documents out, whole groups at a time, in an order drawn by ``seed``.

    Groups are taken until their bytes reach ``validation_fraction`` of all, and at least one is left to train
    on. If all documents are of one group, they are held out one by one; if there is only one, its end is.

    Returns: training documents and held-out documents, each in the order given.
    """
    if validation_fraction == 0:
        return list(documents), []
    if len(documents) == 1:
        return _cut_off_end(documents[0], validation_fraction)
    keys: list[Any] = [document.group for document in documents]
    if len(set(keys)) == 1:
        keys = list(range(len(documents)))
    sizes: dict[Any, int] = {}
    for key, document in zip(keys, documents, strict=True):
        sizes[key] = sizes.get(key, 0) + document.size_bytes()
    names = list(sizes)
    wanted = validation_fraction * sum(sizes.values())
    held_out: set[Any] = set()
    taken = 0
    for index in np.random.default_rng(seed).permutation(len(names))[:-1]:
        if taken >= wanted:
            break
        held_out.add(names[index])
        taken += sizes[names[index]]
    train = [document for key, document in zip(keys, documents, strict=True) if key not in held_out]
    return train, [document for key, document in zip(keys, documents, strict=True) if key in held_out]


def _cut_off_end(document: Document, fraction: float) -> tuple[list[Document], list[Document]]:
    text = "".join(document.parts)
    cut = len(text) - max(1, math.ceil(fraction * len(text)))
    parts = (text[:cut], text[cut:])
    if not all(parts):
        raise DataError("pretraining: one text of one character cannot be split for validation; give more text")
    first, last = (Document(parts=(part,), group=part) for part in parts)
    return [first], [last]


def train_tokenizer(documents: Sequence[Document], *, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE tokenizer (Sennrich et al. 2016; over bytes as in Radford et al. 2019).

    Every text can be encoded, and decodes to itself. :data:`END_OF_TEXT` is its only special token; text that
    spells it out is encoded as that token.

    Args:
        documents: the text to learn from.
        vocab_size: the most tokens there may be, >= 257; a small corpus gives fewer.
        max_length: written into the tokenizer as the model's limit, in tokens.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((part for document in documents for part in document.parts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def encode_documents(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Encode documents into one row, each ended by the end-of-text token. Returns: ids. Shape: (N,), int32."""
    parts = [part for document in documents for part in document.parts]
    if not parts:
        return np.zeros(0, dtype=np.int32)
    encoded = iter(tokenizer(parts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"])
    ids: list[np.ndarray] = []
    end = np.array([tokenizer.eos_token_id], dtype=np.int32)
    for document in documents:
        ids += [np.asarray(next(encoded), dtype=np.int32) for _ in document.parts]
        ids.append(end)
    return np.concatenate(ids)


class PackedBlocks(Sequence[TokenizedText]):
    """A corpus as blocks of equal length, cut without regard to where documents end.

    Neighbouring blocks share one token, so that every token but the very first is learned exactly once per
    pass. A block is attended to as a whole, over document ends too.
    """

    def __init__(self, ids: np.ndarray, *, length: int) -> None:
        """Args: ids of the corpus, Shape: (N,), N >= 2; length of a block in tokens, >= 2 (the last may be
        shorter)."""
        if len(ids) < 2:
            raise DataError(f"pretraining: a corpus must have at least 2 tokens, got {len(ids)}; give more text")
        self.ids = ids
        self.length = length

    def __len__(self) -> int:
        return math.ceil((len(self.ids) - 1) / (self.length - 1))

    @overload
    def __getitem__(self, index: int) -> TokenizedText: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenizedText]: ...
    def __getitem__(self, index: int | slice) -> TokenizedText | list[TokenizedText]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = (index % len(self)) * (self.length - 1)
        ids = self.ids[start : start + self.length]
        return TokenizedText(input_ids=ids, loss_mask=np.arange(len(ids)) > 0)
