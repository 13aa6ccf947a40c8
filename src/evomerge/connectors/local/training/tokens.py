"""The token cache: a corpus tokenised once, kept in files that are mapped into memory.

One folder a (tokenizer, documents, shares), named by the hash of the three. In it, for each part,
`<part>.tokens` has the tokens of its documents one behind the other, an end-of-text token behind
each, and `<part>.ends` where each document ends. It is written under another name and renamed, so
that it is whole or not there, however many runs write it at once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.training.errors import ChangedCorpusError
from evomerge.connectors.local.training.progress import Tick
from evomerge.evaluation.corpus import (
    PARTS,
    Corpus,
    Document,
    Part,
    Shares,
    documents,
)
from evomerge.merging.storing import to_disk

_FORMAT = 1
_ENDS = np.dtype("<i8")
# Documents that are tokenised at once: so many characters, or a single longer document.
_BATCH_CHARACTERS = 2**20
_BATCH_DOCUMENTS = 256


@dataclass(frozen=True, eq=False)
class TokenCache:
    """The tokens of a domain.

    Attributes:
        domain: its name.
        corpus_hash: sha256 over its documents, in order.
        folder: where the files are.
        dtype: of a token: uint16 where the vocabulary fits, uint32.
    """

    domain: str
    corpus_hash: str
    folder: Path
    dtype: np.dtype[Any]

    def tokens(self, part: Part) -> NDArray[np.unsignedinteger[Any]]:
        """(tokens,) of the part, mapped into memory and read-only."""
        return _mapped(self.folder / f"{part}.tokens", self.dtype)

    def ends(self, part: Part) -> NDArray[np.int64]:
        """(documents,) int64: where each document of the part ends, its end token included."""
        return _mapped(self.folder / f"{part}.ends", _ENDS)


def token_cache(
    corpus: Corpus,
    known_hash: str,
    tokenizer: PreTrainedTokenizerBase,
    shares: Shares,
    folder: Path,
    tick: Tick,
) -> TokenCache:
    """The tokens of a corpus, from the cache or written to it now.

    Held in memory are some documents at a time. Text that spells a special token is tokenised
    as text.

    Args:
        corpus: the domain.
        known_hash: its content hash (`read_content`).
        tokenizer: a fast one with an end-of-text token.
        shares: which documents are set aside.
        folder: of all caches.
        tick: called for each batch of documents.

    Raises:
        CorpusError: a document cannot be read.
        ChangedCorpusError: the documents are others than those hashed.
        StoppedTrainingError: `tick` was told to stop; nothing was left behind.
    """
    key = _key(known_hash, tokenizer, shares)
    dtype = np.dtype("<u2" if len(tokenizer) <= 2**16 else "<u4")
    home = folder / key
    cache = TokenCache(corpus.domain, known_hash, home, dtype)
    if home.is_dir():
        return cache
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=folder) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        if _write(corpus, tokenizer, shares, fresh, dtype, tick) != known_hash:
            raise ChangedCorpusError(corpus.domain, corpus.path)
        to_disk(fresh)
        try:
            fresh.rename(home)
        except OSError:
            if not home.is_dir():  # Otherwise another run was first, with the same content.
                raise
    return cache


def _key(known_hash: str, tokenizer: PreTrainedTokenizerBase, shares: Shares) -> str:
    words = sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    end = tokenizer.eos_token_id
    parts = [_FORMAT, words, end, known_hash, shares.dev, shares.test]
    return sha256(json.dumps(parts).encode()).hexdigest()


def _write(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    shares: Shares,
    folder: Path,
    dtype: np.dtype[Any],
    tick: Tick,
) -> str:
    """Write all parts; the hash of the documents that were read."""
    whole = sha256()
    total = dict.fromkeys(PARTS, 0)
    words = _plain(tokenizer)
    with ExitStack() as files:
        streams = {
            part: (
                files.enter_context((folder / f"{part}.tokens").open("wb")),
                files.enter_context((folder / f"{part}.ends").open("wb")),
            )
            for part in PARTS
        }
        for batch in _batches(documents(corpus)):
            tick()
            encoded = words.encode_batch_fast(
                [document.text for document in batch], add_special_tokens=False
            )
            for document, encoding in zip(batch, encoded, strict=True):
                ids = [*encoding.ids, tokenizer.eos_token_id]
                whole.update(document.digest)
                part = shares.part(document.digest)
                tokens, ends = streams[part]
                total[part] += len(ids)
                tokens.write(np.asarray(ids, dtype).tobytes())
                ends.write(np.asarray(total[part], _ENDS).tobytes())
    return whole.hexdigest()


def _plain(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy that adds, cuts and pads nothing, and reads "<|endoftext|>" as characters."""
    words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words.no_truncation()
    words.no_padding()
    words.encode_special_tokens = True
    return words


def _batches(texts: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in texts:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _mapped(file: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array over a file; of an empty one, which cannot be mapped, an empty array."""
    if not file.stat().st_size:
        return np.empty(0, dtype)
    return np.memmap(file, dtype, mode="r")
