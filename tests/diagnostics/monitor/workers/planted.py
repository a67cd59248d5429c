"""A service that holds a known amount of memory of a known kind when it is told to: GET /plant/<kind>.

Each planter returns the bytes that it planted, counted by itself and not by what is under test, and keeps in `kept` what holds
them. A planting would first use memory that another kind left free, so there is GET /tidy, which gives free memory back.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import re
import tempfile
import threading
import tracemalloc
from typing import Any

AMOUNT = 50_000_000
CHUNK = 100_000  # below malloc's threshold for mappings of their own, so that it comes from a heap

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.malloc_usable_size.restype, libc.malloc_usable_size.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
libc.pthread_self.restype = ctypes.c_void_p
libc.pthread_getattr_np.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
libc.pthread_attr_getstack.argtypes = [ctypes.c_void_p] * 3
libc.pthread_attr_destroy.argtypes = [ctypes.c_void_p]
libc.tmpfile.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.ftell.restype, libc.ftell.argtypes = ctypes.c_long, [ctypes.c_void_p]
libc.rewind.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
libc.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]

kept: list[Any] = []
stop = threading.Event()


def tracing() -> int:
    """Begin to trace; nothing is planted yet."""
    tracemalloc.start(1)
    return 0


def python_live() -> int:
    kept.append([bytes(223) for _ in range(AMOUNT // 256)])  # 33 bytes of header: blocks of 256
    return AMOUNT // 256 * 256


def python_free() -> int:
    # Blocks of 480 bytes fill a pool of 16 KiB but for its header: what no block can use would count as free, too. One in
    # 2,000 stays, and with it every arena of 2,142 or more.
    blocks = [bytes(447) for _ in range(AMOUNT // 480)]
    kept.append(blocks[::2000])
    return (len(blocks) - len(kept[-1])) * 480


def malloc_live() -> int:
    return sum(libc.malloc_usable_size(block) for block in touched_blocks())


def malloc_mapped() -> int:
    kept.append(bytearray(AMOUNT))
    return AMOUNT


def malloc_free() -> int:
    blocks = touched_blocks()
    kept.append(libc.malloc(CHUNK))  # on top of the heap: what is below cannot be given back by lowering its end
    freed = sum(libc.malloc_usable_size(block) for block in blocks)
    for block in blocks:
        libc.free(block)
    return freed


def touched_blocks() -> list[int]:
    blocks = [libc.malloc(CHUNK) for _ in range(AMOUNT // CHUNK)]
    for block in blocks:
        ctypes.memset(block, 1, CHUNK)
    return blocks


def mapped_files() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(AMOUNT)
        mapped = mmap.mmap(file.fileno(), AMOUNT)
    for page in range(0, AMOUNT, mmap.PAGESIZE):
        mapped[page] = 1
    kept.append(mapped)
    return AMOUNT


def stacks() -> int:
    """Ten threads that each write to 5 MB of their stack, from its far end, as a deep call would have."""
    each = AMOUNT // 10 // mmap.PAGESIZE * mmap.PAGESIZE
    ready = threading.Barrier(11)

    def fill() -> None:
        attributes = ctypes.create_string_buffer(64)  # a pthread_attr_t has 56 bytes
        lowest, size = ctypes.c_void_p(), ctypes.c_size_t()
        libc.pthread_getattr_np(libc.pthread_self(), attributes)
        libc.pthread_attr_getstack(attributes, ctypes.byref(lowest), ctypes.byref(size))
        libc.pthread_attr_destroy(attributes)
        assert lowest.value is not None
        assert size.value > each + 2**20
        ctypes.memset(lowest.value + mmap.PAGESIZE, 1, each)
        ready.wait()
        stop.wait()

    for _ in range(10):
        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        kept.append(thread)
    ready.wait()
    return 10 * each


def tracers() -> int:
    """Traces of blocks that do not exist: only the tracer's own tables grow."""
    track = ctypes.pythonapi.PyTraceMalloc_Track
    track.argtypes = [ctypes.c_uint, ctypes.c_size_t, ctypes.c_size_t]
    before = malloc_in_use()
    for number in range(518_000):
        track(0, number, 1)
    return malloc_in_use() - before


def malloc_in_use() -> int:
    """As malloc_info tells it in XML, and not as mallinfo2 does: what is allocated from the system less what is free."""
    report = libc.tmpfile()
    libc.malloc_info(0, report)
    size = libc.ftell(report)
    libc.rewind(report)
    text = ctypes.create_string_buffer(size)
    libc.fread(text, 1, size, report)
    libc.fclose(report)
    whole = text.value.rpartition(b"</heap>")[2]  # the sums over all heaps come last
    sizes = {kind: int(held) for kind, held in re.findall(rb'type="(\w+)"[^>]* size="(\d+)"', whole)}
    # Since glibc 2.42 there are no fast bins.
    return sizes[b"current"] + sizes[b"mmap"] - sizes.get(b"fast", 0) - sizes[b"rest"]


def other() -> int:
    private_anonymous, read_write = 0x22, 3
    address = libc.mmap(None, AMOUNT, read_write, private_anonymous, -1, 0)
    ctypes.memset(address, 1, AMOUNT)
    return AMOUNT


PLANTERS = {
    planter.__name__: planter
    for planter in (
        python_live, python_free, malloc_live, malloc_mapped, malloc_free, mapped_files, stacks, tracing, tracers, other,
    )
}  # fmt: skip


def give_back() -> int:
    """Give back what malloc keeps."""
    gc.collect()
    libc.malloc_trim(0)
    return 0


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    name = scope["path"].rpartition("/")[2]
    planted = give_back() if name == "tidy" else PLANTERS[name]()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"planted": planted}).encode()})
