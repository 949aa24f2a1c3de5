"""Tampering: a person who knows the format changes a file; verify finds it."""

from __future__ import annotations

import hashlib
import struct
import zlib

import msgpack
import pytest
from storage_support import make_row, put, quiet, sample, texts

from memkit_storage.format import FRAME_HEADER_SIZE, HEADER_SIZE, decode_frame_header, decode_header
from memkit_storage.rewrite import compact
from memkit_storage.store import Store
from memkit_storage.verify import verify


class Forger:
    """A file cut into its frames, which can be changed with every checksum made right again."""

    def __init__(self, path) -> None:
        self.path, data = path, path.read_bytes()
        self.header, self.seed = data[:HEADER_SIZE], decode_header(data, "").seed
        self.frames, at = [], HEADER_SIZE
        while at < len(data):
            size = decode_frame_header(data[at : at + FRAME_HEADER_SIZE], self.seed).size
            self.frames.append(data[at : at + size])
            at += size

    def write(self, header: bytes | None = None) -> None:
        self.path.write_bytes((header or self.header) + b"".join(self.frames))

    def changed(self, frame: bytes, old: bytes, new: bytes, previous: bytes | None = None) -> bytes:
        """The frame with other content and right checksums."""
        length = decode_frame_header(frame, self.seed).length
        payload = frame[FRAME_HEADER_SIZE : FRAME_HEADER_SIZE + length].replace(old, new)
        head = frame[:32] + (previous or frame[32:64]) + hashlib.sha256(payload).digest()
        head += struct.pack("<I", zlib.crc32(payload))
        head += struct.pack("<I", zlib.crc32(head, self.seed))
        return head + payload + frame[FRAME_HEADER_SIZE + length :]


@pytest.fixture
def forger(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    assert verify(path).ok
    return Forger(path)


def find(forger: Forger, text: bytes) -> int:
    return next(i for i, frame in enumerate(forger.frames) if text in frame)


def test_a_changed_frame_with_right_checksums_is_found(forger):
    i = find(forger, b"text of s3")
    forger.frames[i] = forger.changed(forger.frames[i], b"text of s3", b"TEXT of s3")
    forger.write()
    assert "link" in {damage.kind for damage in verify(forger.path).damage}


def test_a_changed_last_frame_is_found_by_the_head(forger):
    i = len(forger.frames) - 1
    forger.frames[i] = forger.changed(forger.frames[i], b"s2", b"s4")
    forger.write()
    assert [damage.kind for damage in verify(forger.path).damage] == ["head"]


def test_a_changed_payload_alone_is_found(forger):
    i = find(forger, b"text of s3")
    forger.frames[i] = forger.frames[i].replace(b"text of s3", b"TEXT of s3")
    forger.write()
    assert [damage.kind for damage in verify(forger.path).damage] == ["payload"]


def test_a_removed_frame_is_found(forger):
    del forger.frames[find(forger, b"text of s3")]
    forger.write()
    assert not verify(forger.path).ok


def test_a_repeated_frame_is_found_and_not_applied(forger):
    i = find(forger, b"text of s1")
    forger.frames.append(forger.frames[i])
    forger.write()
    assert "order" in {damage.kind for damage in verify(forger.path).damage}
    with quiet():
        store = Store(forger.path)
        assert texts(store)["s1"] == "changed"
        store.close()


def test_exchanged_frames_are_found(forger):
    i = find(forger, b"text of s3")
    forger.frames[i], forger.frames[i + 1] = forger.frames[i + 1], forger.frames[i]
    forger.write()
    assert not verify(forger.path).ok


@pytest.mark.parametrize("kept", [-1, -2, 3])
def test_a_tail_cut_at_a_frame_border_is_found(forger, kept):
    forger.frames = forger.frames[:kept]
    forger.write()
    assert "lost" in {damage.kind for damage in verify(forger.path).damage}


def test_a_head_that_was_wiped_in_part_is_found(forger):
    forger.write(forger.header[:1024] + bytes(8) + forger.header[1032:])
    assert not verify(forger.path).ok


def test_a_whole_forged_history_is_found_by_a_head_noted_elsewhere(forger, tmp_path):
    noted = verify(forger.path).head
    store = Store(forger.path)
    put(store, make_row("later"))
    store.close()
    assert verify(forger.path, head=noted).ok
    other = tmp_path / "other.mem"
    sample(other)
    report = verify(other, head=noted)
    assert [damage.kind for damage in report.damage] == ["lost"]
    assert verify(other).ok


def test_an_edited_checkpoint_is_found(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path)
    compact(store)  # writes a checkpoint
    store.close()
    assert verify(path).ok
    forger = Forger(path)
    i = next(i for i, frame in enumerate(forger.frames) if frame[4] == 5)
    value = msgpack.unpackb(
        forger.frames[i][FRAME_HEADER_SIZE:][: decode_frame_header(forger.frames[i], forger.seed).length]
    )
    forger.frames[i] = forger.changed(
        forger.frames[i], b"\xa6events" + bytes([value["events"]]), b"\xa6events" + bytes([value["events"] - 1])
    )
    forger.write()
    assert "checkpoint" in {damage.kind for damage in verify(path).damage}


def test_progress_is_told(forger):
    seen = []
    verify(forger.path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == forger.path.stat().st_size
