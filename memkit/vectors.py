"""The embedder of a file: who made its vectors is recorded in it, and a change is noticed before it does harm."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from memkit.embed import BoundEmbedder, EmbedderInfo, Progress, as_embedder, default_embedder, same_embedder
from memkit_storage.errors import EmbedderMismatch, StorageFailed
from memkit_storage.format import FrameType
from memkit_storage.records import to_ipc
from memkit_storage.rows import Row, Vector
from memkit_storage.store import Store

_CHUNK = 512


class FileVectors:
    """Embeds for one store, and vouches that its vectors belong together. Thread-safe.

    Args:
        embedder: what `as_embedder` takes; None for the embedded default, loaded when it is first needed.
    """

    def __init__(self, store: Store, embedder: Any | None) -> None:
        self._store = store
        self._given = None if embedder is None else as_embedder(embedder)
        self._checked: int | None = None  # the epoch of the file that this embedder was compared with
        self._lock = threading.Lock()

    @property
    def embedder(self) -> BoundEmbedder:
        """The embedder in use."""
        with self._lock:
            if self._given is None:
                self._given = default_embedder()
            return self._given

    def documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vector:
        """(n, d) unit vectors for storing; the first ones settle the file's embedder.

        Raises:
            EmbedderMismatch: the file's vectors came from another embedder.
            InvalidVector: the embedder returned NaN, infinity or another dimension.
        """
        self._check()
        vectors = self.embedder.embed_documents(list(texts), progress=progress)
        if texts and not self._store.config:
            self._store.configure(_config(self.embedder.describe()))
            self._check()
        return vectors

    def query(self, text: str) -> Vector:
        """(d,) unit vector for searching. Raises as `documents`."""
        self._check()
        return self.embedder.embed_query(text)

    def changed(self) -> EmbedderInfo | None:
        """Whose vectors the file holds, if they are not this embedder's."""
        config = self._store.config
        if not config:
            return None
        recorded = _info(config)
        return None if same_embedder(recorded, self.embedder.describe()) else recorded

    def _check(self) -> None:
        epoch = self._store.config.get("epoch")
        if epoch is None or epoch == self._checked:
            return
        recorded = self.changed()
        if recorded is not None:
            mine = self.embedder.describe()
            raise EmbedderMismatch(
                f"{self._store.log.path} holds vectors of {recorded.name!r} ({recorded.dim}-d), but the embedder in "
                f"use is {mine.name!r} ({mine.dim}-d); call rebuild() to embed every item anew from the log, or open "
                'the file with its own embedder. mode="text" works meanwhile'
            )
        self._checked = epoch

    def fits(self, config: dict[str, Any]) -> bool:
        """Whether vectors recorded with another file's configuration belong with this file's."""
        if not config:
            return False
        mine = _info(self._store.config) if self._store.config else self.embedder.describe()
        if not same_embedder(mine, _info(config)):
            return False
        self._store.configure(config)
        return True

    def embed_again(self, progress: Progress | None = None) -> int:
        """Embed every version in the log with this embedder, and put the new vectors in force. Returns how many.

        Nothing is replaced: the vectors are appended, and take effect together with the last frame. A crash before
        leaves the former ones in force. Others may write meanwhile.

        Raises:
            StorageFailed: the file was compacted or erased meanwhile; run it again.
        """
        store, info = self._store, self.embedder.describe()
        generation, epoch, done = store.log.header.generation, int(store.config.get("epoch", 0)) + 1, 0
        while len(versions := self._versions(done)) > _CHUNK:
            with store.lock:
                rows = list(store.rows(versions[:_CHUNK]))
            frame = self._frame(rows, epoch)
            with store.lock, store.exclusive():
                self._append(frame)
            done += _CHUNK
            if progress:
                progress(done, done + len(versions) - _CHUNK)
        with store.lock, store.exclusive():
            if store.log.header.generation != generation:
                raise StorageFailed(f"{store.log.path} was rewritten while it was embedded anew; call rebuild() again")
            self._append(self._frame(list(store.rows(self._versions(done))), epoch))
            store.append_note(FrameType.CONFIG, {**_config(info), "epoch": epoch})
            store.log.sync()
            self._checked = epoch
            return len(self._versions(0))

    def _versions(self, start: int) -> list[int]:
        """Catalog indices of all versions, living or past, but the first `start` ones."""
        with self._store.lock:
            found: list[int] = np.flatnonzero(self._store.catalog.column("kind") == 0)[start:].tolist()
            return found

    def _append(self, frame: dict[str, Any] | None) -> None:
        if frame is not None:
            self._store.append_note(FrameType.VECTORS, frame)

    def _frame(self, rows: Sequence[Row], epoch: int) -> dict[str, Any] | None:
        """What a VECTORS frame says of rows that are embedded anew; None of none."""
        import pyarrow as pa

        if not rows:
            return None
        vectors = self.embedder.embed_documents([row.searchable for row in rows])
        table = pa.table(
            {
                "position": pa.array([row.position for row in rows], pa.int64()),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1]
                ),
            }
        )
        return {"epoch": epoch, "arrow": to_ipc(table)}


def _config(info: EmbedderInfo) -> dict[str, Any]:
    probe = None if info.probe is None else np.asarray(info.probe, "<f4").tobytes()
    return {"embedder": info.name, "digest": info.digest, "dim": info.dim, "probe": probe}


def _info(config: dict[str, Any]) -> EmbedderInfo:
    probe = config.get("probe")
    return EmbedderInfo(
        name=config["embedder"],
        digest=config.get("digest"),
        dim=config["dim"],
        probe=None if probe is None else np.frombuffer(probe, "<f4").reshape(2, -1),
    )
