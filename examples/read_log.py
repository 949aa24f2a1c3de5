"""Prints the living items of a .mem file, from docs/format.md alone: python examples/read_log.py assistant.mem"""

import json
import struct
import sys
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import msgpack
import pyarrow as pa

FIELDS = ("id", "text", "user_id", "agent_id", "run_id", "occurred", "created", "updated", "metadata")


def genesis_of(page):
    """The first chain value: from the identity at byte 0, or from its copy (§1)."""
    for at in (0, 2048):
        magic, major, _, _, incompatible, *_, genesis, crc = struct.unpack_from("<8sHHIIIII16sQ32sI", page, at)
        if magic == b"\x89MEM\r\n\x1a\n" and crc32(page[at : at + 88]) == crc:
            return genesis if (major, incompatible) == (1, 0) else sys.exit(f"format {major}: too new")
        print(f"damage in the file header at byte {at}", file=sys.stderr)
    return sys.exit("not a .mem file")


def frames(data):
    """(type, first position, payload) of every frame that can be read; damage is told on stderr (§3, §6)."""
    chain, at, position = (genesis := genesis_of(data.ljust(4096, b"\0"))), 4096, 0
    while 0 <= at < len(data):
        head = data[at : at + 104].ljust(104, b"\0")
        mark, kind, flags, _, first, span, size, _, previous, digest, crc, head_crc = struct.unpack("<4sBBHQIIQ32s32sII", head)
        payload, end = data[at + 104 : at + 104 + size], at + 104 + (size + 7 & ~7)
        if mark != b"MKF1" or crc32(head[:100], crc32(genesis)) != head_crc or end > len(data):
            print(f"damage at byte {at}", file=sys.stderr)
            at, chain = data.find(b"MKF1", at + 1), None
            continue
        sound = crc32(payload) == crc and sha256(payload).digest() == digest
        if first < position or not sound or chain not in (None, previous):
            print(f"damage in the frame at byte {at}", file=sys.stderr)
        if first >= position:
            position, chain = first + span, sha256(head[:96]).digest()
            assert kind <= 8 or flags & 2, f"frame type {kind} is too new"
            if sound and kind <= 3:
                yield kind, first, msgpack.unpackb(payload, strict_map_key=False)
        at = end


events = []  # (time, position, row); the row of a deletion has no text
for kind, first, value in frames(Path(sys.argv[1]).read_bytes()):
    rows = [value]
    if kind == 2:
        rows = pa.ipc.open_stream(value["arrow"]).read_all().to_pylist()
        rows = [row | {"metadata": msgpack.unpackb(row["metadata"] or b"\x80", strict_map_key=False)} for row in rows]
    elif kind == 3:
        rows = [{"id": i, "updated": t, "seq": s} for i, t, s in zip(value["ids"], value["times"], value["seq"], strict=True)]
    events += [(row["updated"], first + row.get("seq", 0), row) for row in rows]
present = {row["id"]: (at, row) for _, at, row in sorted(events, key=lambda event: event[:2])}  # the last one counts (§4)
for position, row in sorted(present.values(), key=lambda item: item[0]):
    if "text" in row:
        print(json.dumps({"position": position} | {name: row.get(name) for name in FIELDS}))
