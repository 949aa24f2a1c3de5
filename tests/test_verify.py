"""Tampering: a person who knows the format changes a file; verify finds it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import replace

import pytest
from storage_support import Forger, delete, make_row, pieces, put, quiet, sample, texts

from memkit_storage import store as store_module
from memkit_storage.format import FrameType, decode_frame_header, decode_heads
from memkit_storage.rewrite import compact
from memkit_storage.store import Store
from memkit_storage.verify import repair, verify


@pytest.fixture
def forger(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path, durability="os")
    with store.lock, store.exclusive():
        store.log.mark()  # so that both slots are in use
    store.close()
    assert verify(path).ok
    return Forger(path)


def kinds(path, **more) -> list[str]:
    return [damage.kind for damage in verify(path, **more).damage]


def test_a_changed_frame_with_right_checksums_is_found(forger):
    i = forger.find(b"text of s3")
    forger.frames[i] = forger.forged(forger.frames[i], forger.payload(i).replace(b"text of", b"TEXT of"))
    forger.write()
    assert kinds(forger.path) == ["link"]


def test_a_changed_last_frame_is_found_by_the_head(forger):
    forger.edit(len(forger.frames) - 1, ids=["s4"])
    forger.write()
    assert set(kinds(forger.path)) == {"head"}


def test_a_changed_payload_alone_is_found(forger):
    i = forger.find(b"text of s3")
    forger.frames[i] = forger.frames[i].replace(b"text of s3", b"TEXT of s3")
    forger.write()
    assert kinds(forger.path) == ["payload"]


def test_a_changed_payload_with_right_checks_but_another_digest_is_found(forger):
    i = forger.find(b"text of s3")
    new = forger.forged(forger.frames[i], forger.payload(i).replace(b"text of", b"TEXT of"))
    head = new[:64] + forger.frames[i][64:96] + new[96:100]  # so that the chain stays as it was
    forger.frames[i] = head + struct.pack("<I", zlib.crc32(head, forger.seed)) + new[104:]
    forger.write()
    assert kinds(forger.path) == ["payload"]


def test_a_changed_time_of_writing_is_found(forger):
    """Part of no event, but of the chain."""
    forger.frames[4] = forger.forged(forger.frames[4], time_us=0)
    forger.write()
    assert kinds(forger.path) == ["link"]


@pytest.mark.parametrize("position", [0, 3, 27])
def test_an_inserted_frame_is_found_wherever_it_claims_to_stand(forger, position):
    """It links to the frame before it and its checksums are right; the frames after it link elsewhere."""
    previous = hashlib.sha256(forger.frames[3][:96]).digest()
    i = forger.find(b"text of s3")
    new = forger.forged(forger.frames[i], forger.payload(i).replace(b"s3", b"s9"), previous, position=position)
    forger.frames.insert(4, new)
    forger.write()
    assert set(kinds(forger.path)) & {"link", "order"}


def test_an_inserted_note_is_found(forger):
    """A note covers no position, so it repeats none."""
    previous, at = hashlib.sha256(forger.frames[3][:96]).digest(), decode_frame_header(forger.frames[4], forger.seed)
    note = forger.forged(forger.frames[3], b"\x80", previous, type=int(FrameType.ERASE), position=at.position, span=0)
    forger.frames.insert(4, note)
    forger.write()
    assert "link" in kinds(forger.path)


@pytest.mark.parametrize("step", [0, 1, 4, -1])
def test_a_removed_frame_is_found(forger, step):
    i = forger.find(b"text of s1") + step if step >= 0 else len(forger.frames) - 1
    del forger.frames[i]
    forger.write()
    assert set(kinds(forger.path)) & {"link", "lost"}


@pytest.mark.parametrize("place", [3, 5, 100])
def test_a_repeated_frame_is_found_and_not_applied(forger, place):
    forger.frames.insert(place, forger.frames[2])
    forger.write()
    assert "order" in kinds(forger.path)
    with quiet():
        store = Store(forger.path)
        assert texts(store)["s1"] == "changed"
        store.close()


@pytest.mark.parametrize("apart", [1, 2, 3])
def test_exchanged_frames_are_found(forger, apart):
    i = forger.find(b"text of s1")
    forger.frames[i], forger.frames[i + apart] = forger.frames[i + apart], forger.frames[i]
    forger.write()
    assert not verify(forger.path).ok


@pytest.mark.parametrize("kept", [-1, -2, 3, 0])
def test_a_tail_cut_at_a_frame_border_is_found(forger, kept):
    forger.frames = forger.frames[:kept]
    forger.write()
    assert kinds(forger.path) == ["lost"]


def test_a_cut_tail_with_wiped_heads_is_found_by_a_head_noted_elsewhere(forger):
    noted = verify(forger.path).head
    del forger.frames[-1]
    forger.write(forger.header[:512] + bytes(72) + forger.header[584:1024] + bytes(72) + forger.header[1096:])
    assert kinds(forger.path) == []  # nothing in the file says that there was more
    assert kinds(forger.path, head=noted) == ["lost"]
    assert kinds(forger.path, head=noted.upper()) == ["lost"]


@pytest.mark.parametrize("slot", [512, 1024])
@pytest.mark.parametrize("size", [1, 8, 40])
def test_a_head_that_was_overwritten_in_part_is_found(forger, slot, size):
    at = slot + 8
    forger.write(
        forger.header[:at] + bytes(byte ^ 0xFF for byte in forger.header[at : at + size]) + forger.header[at + size :]
    )
    assert kinds(forger.path) == ["head"]


def test_exchanged_head_slots_are_found(forger):
    page = forger.header
    forger.write(page[:512] + page[1024:1096] + page[584:1024] + page[512:584] + page[1096:])
    assert kinds(forger.path) == ["head", "head"]


def test_an_older_head_put_over_the_newer_one_is_found(forger):
    """To hide a cut tail: the older head witnesses less."""
    older = decode_heads(forger.header)[-1]
    forger.set_head(older, slot=1 - older.sequence % 2)
    forger.write()
    assert kinds(forger.path) == ["head"]


@pytest.mark.parametrize("field", ["end", "position", "checkpoint", "chain"])
def test_a_forged_head_with_a_right_checksum_is_found(forger, field):
    newest = decode_heads(forger.header)[0]
    value = bytes(32) if field == "chain" else getattr(newest, field) + 8
    forger.set_head(replace(newest, **{field: value}))
    forger.write()
    assert set(kinds(forger.path)) <= {"head", "lost"}
    assert kinds(forger.path)


@pytest.mark.parametrize("from_frame", [0, 3])
def test_a_whole_forged_history_is_found_by_a_head_noted_elsewhere(forger, from_frame):
    """Every frame from the change on, and both heads, made anew: only what was noted elsewhere tells."""
    noted = verify(forger.path).head
    i = forger.find(b"text of s3")
    forger.frames[i] = forger.forged(forger.frames[i], forger.payload(i).replace(b"text of", b"TEXT of"))
    forger.relink(from_frame)
    forger.write()
    assert kinds(forger.path) == []
    assert kinds(forger.path, head=noted) == ["lost"]


def test_a_noted_head_stays_valid_while_the_file_grows(forger):
    noted = [verify(forger.path).head]
    for i in range(5):
        store = Store(forger.path, durability="os")
        put(store, make_row(f"later {i}"))
        delete(store, f"later {i}")
        store.close()
        noted.append(verify(forger.path).head)
    assert len(set(noted)) == 6
    assert all(verify(forger.path, head=head).ok for head in noted)


def checkpointed(path) -> Forger:
    sample(path)
    store = Store(path)
    compact(store)  # writes a checkpoint
    store.close()
    assert verify(path).ok
    return Forger(path)


def arrow(forger: Forger, i: int, column: str, change) -> bytes:
    table = store_module.from_ipc(forger.value(i)["arrow"])
    at, values = table.column_names.index(column), table[column]
    edited = [change(v) if n == 2 else v for n, v in enumerate(values.to_pylist())]
    kind = values.type.value_type if column in ("user_id", "agent_id", "run_id") else values.type
    return store_module.to_ipc(table.set_column(at, column, _array(edited, kind, values.type)))


def _array(values: list, kind, whole):
    import pyarrow as pa

    made = pa.array(values, kind)
    return made if kind == whole else made.dictionary_encode()


EDITS = {
    "kind": lambda v: 1 - v,
    "position": lambda v: v + 100,
    "offset": lambda v: v + 8,
    "slot": lambda v: v + 1,
    "id": lambda v: "b7",
    "user_id": lambda v: "eve",
    "run_id": lambda v: "r",
    "occurred": lambda v: v + 1,
    "created": lambda v: v - 1,
    "time": lambda v: v + 10**9,
}


@pytest.mark.parametrize("column", EDITS)
def test_a_checkpoint_with_one_edited_value_is_found(tmp_path, column):
    forger = checkpointed(tmp_path / "a.mem")
    i = forger.of_type(FrameType.CHECKPOINT)
    forger.edit(i, arrow=arrow(forger, i, column, EDITS[column]))
    forger.relink()
    forger.write()
    assert kinds(forger.path) == ["checkpoint"]


@pytest.mark.parametrize("change", [{"events": 25}, {"events": 27}, {"notes": []}, {"previous": 4096}, {"start": 1}])
def test_a_checkpoint_with_other_bounds_or_hidden_notes_is_found(tmp_path, change):
    forger = checkpointed(tmp_path / "a.mem")
    forger.edit(forger.of_type(FrameType.CHECKPOINT), **change)
    forger.relink()
    forger.write()
    assert kinds(forger.path)


def test_bytes_that_must_be_zero_are_looked_at(forger):
    first = next(i for i, frame in enumerate(forger.frames) if len(forger.payload(i)) % 8)
    forger.frames[first] = forger.frames[first][:-1] + b"\1"
    forger.write(forger.header[:3000] + b"\1" + forger.header[3001:])
    assert kinds(forger.path) == ["padding", "padding"]


def test_repair_notes_what_it_cannot_mend_and_is_done_once(forger):
    data = forger.path.read_bytes()
    at = pieces(forger.path)[4].offset
    page = data[:512] + b"xxxx" + data[516:]
    forger.path.write_bytes(page[:at] + b"XX" + page[at + 2 :] + b"torn")
    assert {"hole", "head"} <= set(kinds(forger.path))
    before = forger.path.read_bytes()
    planned = repair(forger.path, dry_run=True)
    assert forger.path.read_bytes() == before
    with quiet():
        assert repair(forger.path) == planned
    report = verify(forger.path)
    assert report.ok
    assert [damage.kind for damage in report.noted] == ["hole"]
    assert repair(forger.path) == []
    store = Store(forger.path)
    assert store.log.damage == []  # what is noted does not alarm again
    store.close()


def test_repair_of_a_whole_file_does_nothing(forger):
    before = (forger.path.read_bytes(), forger.path.stat().st_mtime_ns)
    assert repair(forger.path) == []
    assert (forger.path.read_bytes(), forger.path.stat().st_mtime_ns) == before


def test_progress_is_told(forger):
    seen = []
    verify(forger.path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == forger.path.stat().st_size
