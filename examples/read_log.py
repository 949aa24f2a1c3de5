"""Prints the living items of a .mem file, from docs/format.md alone: python examples/read_log.py assistant.mem"""

import hashlib
import json
import struct
import sys
import zlib
from pathlib import Path

import msgpack
import pyarrow as pa

HEADER = struct.Struct("<8sHHIIIII16sQ32s")
FRAME = struct.Struct("<4sBBHQIIQ32s32sII")


def frames(data):
    """(type, first position, payload) of every valid frame; damage is told on stderr."""
    magic, major, *_, genesis = HEADER.unpack_from(data)
    assert (magic, major) == (b"\x89MEM\r\n\x1a\n", 1), "not a .mem file of format 1"
    chain, seed, at, position = genesis, zlib.crc32(genesis), 4096, 0
    while 0 <= at < len(data):
        head = data[at : at + 104].ljust(104, b"\0")
        mark, kind, _, _, first, span, size, _, previous, digest, crc, head_crc = FRAME.unpack(head)
        payload = data[at + 104 : at + 104 + size]
        if mark != b"MKF1" or zlib.crc32(head[:100], seed) != head_crc or len(payload) < size:
            print(f"damage at byte {at}", file=sys.stderr)
            at, chain = data.find(b"MKF1", at + 1), None
            continue
        sound = zlib.crc32(payload) == crc and hashlib.sha256(payload).digest() == digest
        if first < position or not sound or chain not in (None, previous):
            print(f"damage in the frame at byte {at}", file=sys.stderr)
        at, chain = at + 104 + (size + 7 & ~7), hashlib.sha256(head[:96]).digest()
        if first >= position:
            position = first + span
            if sound:
                yield kind, first, msgpack.unpackb(payload, strict_map_key=False)


def events(path):
    """(id, time, position, row, or None for a deletion) of every event in the file."""
    for kind, first, value in frames(Path(path).read_bytes()):
        if kind == 1:
            yield value["id"], value["updated"], first, value
        elif kind == 2:
            for row in pa.ipc.open_stream(value["arrow"]).read_all().to_pylist():
                yield row["id"], row["updated"], first + row["seq"], row | {"metadata": msgpack.unpackb(row["metadata"] or b"\x80")}
        elif kind == 3:
            for id_, time, seq in zip(value["ids"], value["times"], value["seq"], strict=True):
                yield id_, time, first + seq, None


present = {}
for id_, *event in events(sys.argv[1]):
    present[id_] = max(present.get(id_, [-1, -1, None]), event, key=lambda one: one[:2])
for id_, (time, position, row) in sorted(present.items(), key=lambda item: item[1][1]):
    if row:
        fields = {name: row.get(name) for name in ("text", "user_id", "agent_id", "run_id", "occurred", "created", "metadata")}
        print(json.dumps({"id": id_, "position": position, "updated": time} | fields))
