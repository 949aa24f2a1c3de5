"""Bytes of a .mem file: header, head slots and frames. Implements docs/format.md §1–3; knows nothing of rows.

All integers are little-endian. Every function here is pure.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from memkit_storage.errors import FormatTooNew, NotAMemory

MAGIC = b"\x89MEM\r\n\x1a\n"
MAJOR, MINOR = 1, 2
HEADER_SIZE = 4096
COPY_OFFSET = 2048  # of the second copy of the identity, the first 92 bytes
SLOT_OFFSETS = (512, 1024)
FRAME_MAGIC = b"MKF1"
FRAME_HEADER_SIZE = 104
MAX_PAYLOAD = 1 << 30
CHAIN_SIZE = 32

# Feature bits that this reader understands (docs/format.md §5). A file with others is refused or read only.
KNOWN_INCOMPATIBLE = 0
KNOWN_READ_ONLY_COMPATIBLE = 0

IGNORABLE = 0b10  # frame flag: a reader that does not know the type may skip the frame

_HEADER = struct.Struct("<8sHHIIIII16sQ32s")  # 88 bytes, then crc32
IDENTITY_SIZE = _HEADER.size + 4
_SLOT = struct.Struct("<4sIQQQQ32s")  # magic, crc, sequence, end, position, checkpoint, chain
_FRAME = struct.Struct("<4sBBHQIIQ32s32sII")


class FrameType(IntEnum):
    """What a frame records (docs/format.md §4)."""

    PUT = 1
    BATCH = 2
    DELETE = 3
    CONFIG = 4
    CHECKPOINT = 5
    VECTORS = 6
    REPAIR = 7
    ERASE = 8
    FEEDBACK = 9
    STATE = 10
    BAND = 11


# frames that a reader may skip: nothing stored is in them
LEARNING = frozenset({FrameType.FEEDBACK, FrameType.STATE, FrameType.BAND})


@dataclass(frozen=True, slots=True)
class Header:
    """Identity of a file. `genesis` is the chain value before the first frame."""

    file_id: bytes
    generation: int
    created_us: int
    genesis: bytes
    major: int = MAJOR
    minor: int = MINOR
    incompatible: int = 0
    read_only_compatible: int = 0
    compatible: int = 0

    @property
    def seed(self) -> int:
        """Start value of every frame checksum, so that frames of another file or generation are not valid here."""
        return zlib.crc32(self.genesis)

    def encode(self) -> bytes:
        """4096 bytes: identity and checksum, twice, and two empty head slots."""
        body = _HEADER.pack(
            MAGIC,
            self.major,
            self.minor,
            HEADER_SIZE,
            self.incompatible,
            self.read_only_compatible,
            self.compatible,
            self.generation,
            self.file_id,
            self.created_us,
            self.genesis,
        )
        identity = body + struct.pack("<I", zlib.crc32(body))
        return (identity.ljust(COPY_OFFSET, b"\0") + identity).ljust(HEADER_SIZE, b"\0")


def decode_header(data: bytes, path: str) -> Header:
    """Parse the first 4096 bytes of a file: the identity at byte 0 or, if that is damaged, its copy.

    Raises:
        NotAMemory: these are the bytes of something else, or of a header damaged beyond use.
        FormatTooNew: a newer major version, or an incompatible feature.
    """
    sound = next((one for at in (0, COPY_OFFSET) if _is_sound(one := _identity(data, at))), None)
    if sound is None and data[: len(MAGIC)] != MAGIC:
        raise NotAMemory(_foreign(data, path))
    if len(data) < HEADER_SIZE:
        raise NotAMemory(f"{path}: the header is cut at {len(data)} bytes; restore the file from a copy")
    if sound is None:
        raise NotAMemory(f"{path}: the file header is damaged (checksum); restore the file from a copy")
    (_, major, minor, _, incompatible, ro, compatible, generation, file_id, created, genesis) = _HEADER.unpack_from(
        sound
    )
    if major > MAJOR:
        raise FormatTooNew(
            f"{path} has format {major}.{minor}; this memkit reads up to {MAJOR}.{MINOR}: upgrade memkit-ai"
        )
    if incompatible & ~KNOWN_INCOMPATIBLE:
        raise FormatTooNew(
            f"{path} (format {major}.{minor}) uses incompatible features {incompatible:#x}; this memkit "
            f"(format {MAJOR}.{MINOR}) knows {KNOWN_INCOMPATIBLE:#x}: upgrade memkit-ai"
        )
    return Header(file_id, generation, created, genesis, major, minor, incompatible, ro, compatible)


def _identity(page: bytes, at: int) -> bytes:
    return page[at : at + IDENTITY_SIZE]


def _is_sound(identity: bytes) -> bool:
    if len(identity) < IDENTITY_SIZE or identity[: len(MAGIC)] != MAGIC:
        return False
    (crc,) = struct.unpack_from("<I", identity, _HEADER.size)
    return bool(crc == zlib.crc32(identity[: _HEADER.size]))


def damaged_identities(page: bytes, header: Header) -> list[int]:
    """Offsets at which a 4096-byte header page does not hold the identity that was read from it."""
    return [at for at in (0, COPY_OFFSET) if _identity(page, at) != _identity(header.encode(), 0)]


_KNOWN_FILES = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"SQLite format 3": "an SQLite database",
    b"MV2": "a MemVid file (import it, do not open it)",
    b"\x1f\x8b": "a gzip file",
}


def _foreign(data: bytes, path: str) -> str:
    if data[:4] == MAGIC[:4]:
        return f"{path}: line ends were rewritten (a text-mode transfer?); copy the file again in binary mode"
    kind = next((name for magic, name in _KNOWN_FILES.items() if data.startswith(magic)), None)
    what = f"it is {kind}" if kind else f"it starts with {data[:8].hex(' ')}" if data else "it is empty"
    return f"{path} is not a .mem file: {what}; pass a path that memkit wrote, or one that does not exist yet"


@dataclass(frozen=True, slots=True)
class Head:
    """A witness of how far the file reached: bytes, rows and chain. Only ever moved forward."""

    sequence: int
    end: int
    position: int
    checkpoint: int
    chain: bytes

    def encode(self) -> bytes:
        """72 bytes for slot `sequence % 2`."""
        body = struct.pack("<QQQQ32s", self.sequence, self.end, self.position, self.checkpoint, self.chain)
        return b"HEAD" + struct.pack("<I", zlib.crc32(body)) + body


def decode_heads(header: bytes) -> list[Head]:
    """The valid head slots of a 4096-byte header, newest first."""
    heads = []
    for parity, offset in enumerate(SLOT_OFFSETS):
        slot = header[offset : offset + _SLOT.size]
        if len(slot) < _SLOT.size:
            continue
        magic, crc, *fields = _SLOT.unpack(slot)
        if magic == b"HEAD" and crc == zlib.crc32(slot[8:]) and fields[0] % 2 == parity:
            heads.append(Head(*fields))
    return sorted(heads, key=lambda head: head.sequence, reverse=True)


def damaged_slots(header: bytes) -> list[int]:
    """Offsets of head slots that hold bytes but no valid head."""
    valid = {SLOT_OFFSETS[head.sequence % 2] for head in decode_heads(header)}
    return [o for o in SLOT_OFFSETS if o not in valid and any(header[o : o + _SLOT.size])]


def stray_bytes(header: bytes) -> list[int]:
    """Offsets of bytes in the unused parts of a 4096-byte header that are not zero."""
    used = [(o, o + IDENTITY_SIZE) for o in (0, COPY_OFFSET)] + [(o, o + _SLOT.size) for o in SLOT_OFFSETS]
    return [at for at, byte in enumerate(header) if byte and not any(a <= at < b for a, b in used)]


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The 104 bytes before a payload. `chain` is the hash of this frame; `previous` that of the one before."""

    type: int
    flags: int
    position: int
    span: int
    length: int
    time_us: int
    previous: bytes
    digest: bytes
    payload_crc: int
    chain: bytes

    @property
    def size(self) -> int:
        """Bytes in the file: header, payload and padding to a multiple of 8."""
        return frame_size(self.length)


def frame_size(payload_length: int) -> int:
    """Bytes of a frame in the file, for a payload of that many bytes."""
    return FRAME_HEADER_SIZE + (payload_length + 7 & ~7)


def encode_frame(
    kind: int,
    payload: bytes,
    *,
    position: int,
    span: int,
    time_us: int,
    previous: bytes,
    seed: int,
    flags: int = 0,
) -> tuple[bytes, bytes]:
    """Returns (bytes of the frame, its chain value). chain = sha256(first 96 bytes of the frame)."""
    digest = hashlib.sha256(payload).digest()
    fixed = struct.pack(
        "<4sBBHQIIQ32s32s",
        FRAME_MAGIC,
        kind,
        flags,
        FRAME_HEADER_SIZE,
        position,
        span,
        len(payload),
        time_us,
        previous,
        digest,
    )
    head = fixed + struct.pack("<I", zlib.crc32(payload))
    head += struct.pack("<I", zlib.crc32(head, seed))
    return head + payload + bytes(-len(payload) % 8), hashlib.sha256(fixed).digest()


def decode_frame_header(data: bytes, seed: int) -> FrameHeader | None:
    """The header that `data` starts with, or None if it is not a valid one for this file."""
    if len(data) < FRAME_HEADER_SIZE or data[:4] != FRAME_MAGIC:
        return None
    fields = _FRAME.unpack_from(data)
    if fields[11] != zlib.crc32(data[:100], seed) or fields[6] > MAX_PAYLOAD:
        return None
    _, kind, flags, _, position, span, length, time_us, previous, digest, crc, _ = fields
    chain = hashlib.sha256(data[:96]).digest()
    return FrameHeader(kind, flags, position, span, length, time_us, previous, digest, crc, chain)
