"""The bytes of a file: what is written is read again, what is not ours or too new is refused by name."""

from __future__ import annotations

import io
import os
import sqlite3
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from storage_support import Forger, make_row, put, quiet, sample, texts

from memkit.errors import FormatTooNew, MemkitError, NotAMemory, ReadOnly
from memkit_storage import format as fmt
from memkit_storage.format import Head, Header, decode_frame_header, decode_header, decode_heads, encode_frame
from memkit_storage.store import Store
from memkit_storage.verify import repair, verify

UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
CHAIN = st.binary(min_size=32, max_size=32)


def with_header(path, **fields):
    """Write other header fields, both times, with right checksums."""
    page = bytearray(path.read_bytes())
    offsets = {"major": (8, "<H"), "minor": (10, "<H"), "incompatible": (16, "<I"), "ro": (20, "<I"), "rw": (24, "<I")}
    for name, value in fields.items():
        at, kind = offsets[name]
        struct.pack_into(kind, page, at, value)
    struct.pack_into("<I", page, 88, zlib.crc32(page[:88]))
    page[2048:2140] = page[:92]
    path.write_bytes(page)


# round trips


@given(UINT32, UINT64, CHAIN, st.binary(min_size=16, max_size=16), UINT32)
def test_a_header_reads_as_it_was_written(generation, created, genesis, file_id, compatible):
    header = Header(file_id, generation, created, genesis, compatible=compatible)
    page = header.encode()
    assert len(page) == 4096
    assert decode_header(page, "") == header
    assert fmt.damaged_identities(page, header) == fmt.stray_bytes(page) == []


@given(st.integers(0, 3), UINT64, UINT64, UINT64, CHAIN)
def test_a_head_is_valid_in_its_own_slot_alone(sequence, end, position, checkpoint, chain):
    head = Head(sequence, end, position, checkpoint, chain)
    own, other = (512, 1024) if sequence % 2 == 0 else (1024, 512)
    for slot, found, damaged in [(own, [head], []), (other, [], [other])]:
        page = bytearray(4096)
        page[slot : slot + 72] = head.encode()
        assert decode_heads(bytes(page)) == found
        assert fmt.damaged_slots(bytes(page)) == damaged


@given(st.binary(max_size=300), st.integers(0, 255), UINT64, UINT32, UINT64, CHAIN, UINT32, st.integers(0, 255))
def test_a_frame_reads_as_it_was_written(payload, kind, position, span, time_us, previous, seed, flags):
    data, chain = encode_frame(
        kind, payload, position=position, span=span, time_us=time_us, previous=previous, seed=seed, flags=flags
    )
    header = decode_frame_header(data, seed)
    assert (header.type, header.flags, header.position, header.span) == (kind, flags, position, span)
    assert (header.length, header.time_us, header.previous, header.chain) == (len(payload), time_us, previous, chain)
    assert header.size == len(data)
    assert len(data) % 8 == 0
    assert decode_frame_header(data, seed ^ 1) is None
    assert decode_frame_header(data[:103], seed) is None


@given(st.integers(0, 104 * 8 - 1))
def test_no_flipped_bit_of_a_frame_header_goes_unnoticed(bit):
    data, _ = encode_frame(1, b"payload", position=3, span=1, time_us=5, previous=bytes(32), seed=9)
    broken = bytearray(data)
    broken[bit // 8] ^= 1 << bit % 8
    assert decode_frame_header(bytes(broken), 9) is None


# the identity, twice


@pytest.mark.parametrize("at", [0, 8, 40, 91])
def test_a_damaged_identity_is_read_from_its_copy_reported_and_repaired(tmp_path, at):
    path = tmp_path / "a.mem"
    expected = sample(path)
    page = bytearray(path.read_bytes())
    page[at] ^= 0xFF
    path.write_bytes(page)
    with quiet():
        store = Store(path)
    assert texts(store) == expected
    assert [damage.kind for damage in store.log.damage] == ["header"]
    store.close()
    assert [(d.kind, d.offset) for d in verify(path).damage] == [("header", 0)]
    with quiet():
        assert repair(path)
    assert verify(path).ok
    assert path.read_bytes()[:92] == path.read_bytes()[2048:2140]


def test_a_damaged_copy_of_the_identity_is_found_and_repaired(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    page = bytearray(path.read_bytes())
    page[2050] ^= 1
    path.write_bytes(page)
    store = Store(path)
    assert texts(store) == expected
    store.close()
    assert [(d.kind, d.offset) for d in verify(path).damage] == [("header", 2048)]
    repair(path)
    assert verify(path).ok


def test_with_both_copies_damaged_the_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    page = bytearray(path.read_bytes())
    page[40] ^= 1
    page[2048 + 40] ^= 1
    path.write_bytes(page)
    with pytest.raises(NotAMemory, match="damaged"):
        Store(path)
    assert path.read_bytes() == page


# versions and features


def test_a_newer_major_version_is_refused_with_both_versions(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    with_header(path, major=7, minor=3)
    before = path.read_bytes()
    for call in (Store, verify):
        with pytest.raises(FormatTooNew, match=rf"7\.3.*{fmt.MAJOR}\.{fmt.MINOR}"):
            call(path)
    assert path.read_bytes() == before


def test_a_newer_minor_version_is_read_and_written(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    with_header(path, minor=9)
    store = Store(path)
    assert texts(store) == expected
    put(store, make_row("new"))
    store.close()
    assert verify(path).ok


def test_an_unknown_incompatible_feature_is_refused_by_its_bits(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    with_header(path, incompatible=4)
    with pytest.raises(FormatTooNew, match=rf"{fmt.MAJOR}\.{fmt.MINOR}.*0x4.*{fmt.MAJOR}\.{fmt.MINOR}"):
        Store(path)


def test_an_unknown_read_only_compatible_feature_allows_reading_alone(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    with_header(path, ro=1)
    before = path.read_bytes()
    store = Store(path)
    assert texts(store) == expected
    with pytest.raises(ReadOnly, match="upgrade"):
        put(store, make_row("new"))
    store.close()
    assert path.read_bytes() == before


def test_an_unknown_compatible_feature_is_ignored(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    with_header(path, rw=1 << 31)
    store = Store(path)
    put(store, make_row("new"))
    assert texts(store) == {**expected, "new": "text of new"}
    store.close()


def test_an_unknown_frame_is_skipped_when_its_flag_allows(tmp_path):
    path = tmp_path / "a.mem"
    expected = sample(path)
    forger = Forger(path)
    last = forger.frames[-1]
    forger.frames.append(forger.forged(last, b"\x80", type=99, flags=fmt.IGNORABLE, position=28, span=0))
    forger.relink()
    forger.write()
    store = Store(path)
    assert texts(store) == expected
    put(store, make_row("new"))
    store.close()
    assert verify(path).ok


def test_an_unknown_frame_that_matters_refuses_the_file_each_time(tmp_path):
    path = tmp_path / "a.mem"
    sample(path)
    store = Store(path)
    forger = Forger(path)
    forger.frames.append(forger.forged(forger.frames[-1], b"\x80", type=99, position=28, span=0))
    forger.frames.append(forger.forged(forger.frames[3], position=28))
    forger.relink(len(forger.frames) - 2)
    forger.write()
    size = path.stat().st_size
    for _ in range(2):  # an open store must not step over it the second time
        with pytest.raises(FormatTooNew, match=rf"type 99.*{fmt.MAJOR}\.{fmt.MINOR}"):
            store.refresh()
        with pytest.raises(FormatTooNew):
            put(store, make_row("x"))
        with pytest.raises(FormatTooNew):
            Store(path)
    store.log.close()
    assert path.stat().st_size == size


# what is no memory


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    return buffer.getvalue()


def database(path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.commit()
    connection.close()
    return path.read_bytes()


FOREIGN = {
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(5000), "JPEG"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(5000), "PNG"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "gzip": (b"\x1f\x8b\x08" + bytes(30), "gzip"),
    "memvid": (b"MV2\x00" + bytes(30), "MemVid"),
    "text": (b"dear diary", "64 65 61 72"),
    "one byte": (b"\x00", "00"),
    "ten bytes of a memory": (fmt.MAGIC + b"\x01\x00", "cut at 10 bytes"),
    "its magic alone": (fmt.MAGIC, "cut at 8 bytes"),
    "half a header": (Header(bytes(16), 1, 0, bytes(32)).encode()[:2000], "cut at 2000 bytes"),
    "a newline translated to CRLF": (fmt.MAGIC.replace(b"\n", b"\r\n") + bytes(5000), "binary mode"),
    "a CRLF translated to newline": (fmt.MAGIC.replace(b"\r\n", b"\n") + bytes(5000), "binary mode"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_refused_by_name_and_left_alone(tmp_path, name):
    data, hint = FOREIGN[name]
    path = tmp_path / "a.mem"
    path.write_bytes(data)
    for call in (Store, verify, repair):
        with pytest.raises(NotAMemory, match=hint):
            call(path)
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mem"]


def test_a_zip_archive_and_a_database_are_known(tmp_path):
    for data, hint in [(zipped(), "ZIP"), (database(tmp_path / "x.db"), "SQLite")]:
        (tmp_path / "a.mem").write_bytes(data)
        with pytest.raises(NotAMemory, match=hint):
            Store(tmp_path / "a.mem")


def test_an_empty_file_becomes_a_memory(tmp_path):
    path = tmp_path / "a.mem"
    path.touch()
    store = Store(path)
    put(store, make_row("x"))
    store.close()
    assert verify(path).ok


def test_verify_of_an_empty_file_says_so_and_writes_nothing(tmp_path):
    path = tmp_path / "a.mem"
    path.touch()
    with pytest.raises(NotAMemory, match="it is empty"):
        verify(path)
    assert path.read_bytes() == b""


def test_a_directory_a_missing_parent_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(NotAMemory, match="is a directory"):
        Store(tmp_path)
    with pytest.raises(NotAMemory, match="create it first"):
        Store(tmp_path / "no" / "a.mem")
    (tmp_path / "file").touch()
    with pytest.raises(NotAMemory, match="not a directory"):
        Store(tmp_path / "file" / "a.mem")
    with pytest.raises(NotAMemory, match="does not exist"):
        verify(tmp_path / "a.mem")
    assert not (tmp_path / "a.mem").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this platform")
def test_a_device_or_pipe_is_refused_and_still_there(tmp_path):
    os.mkfifo(tmp_path / "a.mem")
    with pytest.raises(NotAMemory, match="pipe"):
        Store(tmp_path / "a.mem")
    assert (tmp_path / "a.mem").is_fifo()
    with pytest.raises(NotAMemory, match="device"):
        Store(os.devnull)


def test_a_link_to_a_file_is_followed(tmp_path):
    expected = sample(tmp_path / "a.mem")
    (tmp_path / "link.mem").symlink_to(tmp_path / "a.mem")
    store = Store(tmp_path / "link.mem")
    put(store, make_row("new"))
    store.close()
    store = Store(tmp_path / "a.mem")
    assert texts(store) == {**expected, "new": "text of new"}
    store.close()
    assert (tmp_path / "link.mem").is_symlink()


def test_a_read_only_file_system_is_read_and_not_written(tmp_path):
    """A read-only bind mount: permission bits do not bind the superuser."""
    disk = tmp_path / "disk.d"
    disk.mkdir()
    sample(disk / "a.mem")
    mount = ["mount", "--bind", "-o", "ro", str(disk), str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True) if os.name == "posix" else None
    if done is None or done.returncode or os.access(disk, os.W_OK):
        if done is not None and not done.returncode:
            subprocess.run(["umount", str(disk)], check=True)
        pytest.skip("this process may not mount a directory read only")
    try:
        store = Store(disk / "a.mem")
        assert len(texts(store)) == 25
        with pytest.raises(ReadOnly, match="read only"):
            put(store, make_row("x"))
        store.close()
        assert verify(disk / "a.mem").ok
        with pytest.raises(ReadOnly, match="create"):
            Store(disk / "new.mem")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_refused_file_leaves_no_open_descriptor(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open descriptors cannot be listed on this platform")
    (tmp_path / "a.mem").write_bytes(b"dear diary")
    sample(tmp_path / "b.mem")
    forger = Forger(tmp_path / "b.mem")
    forger.frames.append(forger.forged(forger.frames[-1], b"\x80", type=99, position=28, span=0))
    forger.write()
    before = len(list(descriptors.iterdir()))
    for path in ("a.mem", "b.mem"):
        with pytest.raises(MemkitError):
            Store(tmp_path / path)
    assert len(list(descriptors.iterdir())) == before
