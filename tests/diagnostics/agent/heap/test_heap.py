"""The sampled heap in real interpreters: what it finds, and that it never harms the process that it is in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diagnostics.analysis.heap import HeapTable, profile
from tests.diagnostics.agent.heap.conftest import HEAD, ROOT, Run, alive
from tests.installs.environments import interpreters

Tables = Callable[[], dict[int, HeapTable]]
MIB = 1 << 20

PLANTED = """
begin()
kept = []

class Cache:
    def fill(self):
        for number in range(20_000):
            kept.append(b"x" * 1000 + str(number).encode())

def fill_buffers():
    kept.append([bytearray(50_000) for _ in range(200)])

def come_and_go():
    gone = [b"y" * 1000 + str(number).encode() for number in range(20_000)]
    del gone

Cache().fill()
fill_buffers()
come_and_go()
"""


@pytest.mark.parametrize("python", [sys.executable, *map(str, interpreters().values())])
def test_what_is_alive_is_found_by_qualified_name_and_line_and_what_was_freed_is_not(
    run: Run, tables: Tables, python: str
) -> None:
    run(PLANTED, python=python)
    (table,) = tables().values()
    # At 16 KiB a planted 20 MiB is 1,280 samples: a deviation of 3 %, and seven of them.
    assert alive(table, "Cache.fill") == pytest.approx(20_000 * 1040, rel=0.2)
    assert alive(table, "fill_buffers") == pytest.approx(200 * 50_057, rel=0.2)
    assert alive(table, "come_and_go") == 0
    found = profile(table)
    allocated = sum(each.values[2] for each in found.samples if any(f.function == "come_and_go" for f in each.stack))
    assert 19e6 < allocated < 31e6  # with numbers and their texts, and the list that grows
    line = (HEAD + PLANTED).splitlines().index('            kept.append(b"x" * 1000 + str(number).encode())') + 1
    (largest, *_) = sorted(found.samples, key=lambda each: -each.values[0])
    assert (largest.stack[0].function, largest.stack[0].line) == ("Cache.fill", line)
    assert table.torn == table.dropped == 0


def test_raw_sees_large_blocks_and_no_small_ones(run: Run, tables: Tables) -> None:
    run(PLANTED + "small = [str(n) for n in range(200_000)]\n", mode="raw")
    (table,) = tables().values()
    assert table.mode == "raw"
    assert alive(table, "fill_buffers") == pytest.approx(200 * 50_057, rel=0.2)
    assert all(size > 512 for _, size, _, _ in table.blocks)


def test_a_block_that_grows_is_counted_once_and_one_that_cannot_grow_stays(run: Run, tables: Tables) -> None:
    program = """
begin()
import ctypes
def grow():
    global held
    held = bytearray()
    for _ in range(2000):
        held += b"z" * 5000
def fail():
    api = ctypes.pythonapi
    api.PyMem_Malloc.restype = api.PyMem_Realloc.restype = ctypes.c_void_p
    api.PyMem_Malloc.argtypes, api.PyMem_Realloc.argtypes = [ctypes.c_size_t], [ctypes.c_void_p, ctypes.c_size_t]
    global blocks
    blocks = [api.PyMem_Malloc(1_000_000) for _ in range(10)]
    assert all(api.PyMem_Realloc(block, (1 << 63) - 4096) is None for block in blocks)
grow()
fail()
"""
    run(program)
    (table,) = tables().values()
    # bytearray asks for an eighth more than it needs.
    assert 10_000_000 <= alive(table, "grow") <= 12_500_000
    assert alive(table, "fail") == pytest.approx(10 * 1_000_000, rel=0.01)


def test_a_forked_child_has_what_its_parent_had_in_a_file_of_its_own(run: Run, tables: Tables) -> None:
    program = (
        PLANTED
        + """
pid = os.fork()
if pid == 0:
    assert heap.report()["file"] is None
    kept.clear()  # the child's blocks, not the parent's
    fill_buffers()
    assert heap.keep(os.environ["DIAGNOSTICS_DIR"]) is None
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(os.getpid())
"""
    )
    parent = int(run(program).stdout)
    found = tables()
    (child,) = set(found) - {parent}
    assert alive(found[parent], "Cache.fill") == pytest.approx(20_000 * 1040, rel=0.2)
    assert alive(found[child], "Cache.fill") == 0
    assert alive(found[child], "fill_buffers") == pytest.approx(200 * 50_057, rel=0.2)
    # By when it was started the monitor knows whose it is: a number may be another process's by now.
    assert found[child].start_ticks > found[parent].start_ticks > 0


def test_the_table_is_there_after_a_kill(run: Run, tables: Tables) -> None:
    run(PLANTED + "os.kill(os.getpid(), signal.SIGKILL)\n", code=-9)
    (table,) = tables().values()
    assert alive(table, "Cache.fill") == pytest.approx(20_000 * 1040, rel=0.2)


@pytest.mark.parametrize("order", ["above", "below"])
@pytest.mark.parametrize("tracer", ["tracemalloc", "memray"])
def test_beside_a_tracer_it_goes_on_or_says_that_it_was_thrown_out(
    run: Run, tmp_path: Path, tracer: str, order: str
) -> None:
    pytest.importorskip(tracer)
    use = {
        "tracemalloc": ("import tracemalloc\ndef on(): tracemalloc.start()\ndef off(): tracemalloc.stop()\n"),
        "memray": (
            f"import memray\nt = memray.Tracker({str(tmp_path / 'capture.bin')!r}, trace_python_allocators=True)\n"
            "def on(): t.__enter__()\ndef off(): t.__exit__(None, None, None)\n"
        ),
    }[tracer]
    work = "\nkept = [str(n) * 10 for n in range(20_000)]; del kept[::2]\n"
    if order == "above":
        body = f"begin()\n{work}on()\n{work}off()\n{work}told = heap.report()\nassert not told['lost'], told\n"
    else:
        body = f"on()\nbegin()\n{work}off()\n{work}told = heap.report()\nprint(told['lost'])\n{work}"
    done = run(use + body + "heap.end()\nkept = [str(n) for n in range(1000)]\n")
    if order == "below":
        # tracemalloc and memray put back what was there when they came, which is before us.
        assert done.stdout == "True\n"


def test_when_it_ends_pymalloc_is_in_charge_again_and_it_can_begin_anew(run: Run, tables: Tables) -> None:
    program = """
from diagnostics.agent.readings.allocation import allocators
for turn in range(8):
    begin()
    kept = [str(n) * 10 for n in range(20_000)]
    assert allocators.read().python_live > 0
    del kept[::2]
    heap.end()
    del kept
assert heap.begin() == "its hooks have been put in 8 times in this process; start the process anew", heap.report()
import ctypes
from diagnostics.agent.heap import _live
assert allocators.read().python_live > 0
"""
    run(program)


def test_hooks_of_an_earlier_time_are_not_taken_for_those_that_were_thrown_out(run: Run) -> None:
    run(
        """
import tracemalloc
begin()
tracemalloc.start()  # above the hooks, and keeps them
heap.end()
begin()  # others, above tracemalloc
assert not heap.report()["lost"]
tracemalloc.stop()  # puts back what it has kept
assert heap.report()["lost"], heap.report()
"""
    )


def test_where_it_is_loaded_and_was_refused_pymalloc_still_tells(run: Run) -> None:
    read = "from diagnostics.agent.readings.allocation import allocators; print(allocators.read().python_live)"
    assert int(run(f"from diagnostics.agent.heap import _live\n{read}").stdout) > 0


def test_threads_and_their_ends_and_forks_meanwhile(run: Run) -> None:
    program = """
begin()
import random
stop = time.monotonic() + 4
def work(seed):
    draw, held = random.Random(seed), {}
    while time.monotonic() < stop:
        key = draw.randrange(200)
        if draw.random() < 0.5:
            held[key] = bytearray(draw.choice((10, 600, 5000, 200_000)))
        elif key in held and isinstance(held[key], bytearray):
            held[key] += b"1" * draw.choice((1, 1000, 100_000))
            if len(held[key]) > 1_000_000:
                del held[key]
def fork():
    while time.monotonic() < stop:
        pid = os.fork()
        if pid == 0:
            kept = [str(n) for n in range(2000)]
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
for thread in threads: thread.start()
fork()
for thread in threads: thread.join()
for n in range(200):
    one = threading.Thread(target=lambda: [str(n) for n in range(1000)])
    one.start(); one.join()
told = heap.report()
assert told["samples"] > 100 and told["unseen_frees"] == 0 and not told["lost"], told
gc.collect()
"""
    run(program, flags=("-W", "ignore"))


@pytest.mark.parametrize("python", [sys.executable, *map(str, interpreters().values())])
def test_subinterpreters_come_and_go(run: Run, python: str) -> None:
    program = """
begin()
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
def one():
    for _ in range(5):
        new = interpreters.create()
        run(new, "a = [str(n) * 20 for n in range(30_000)]\\ndef more(): return [bytes(n) for n in range(3000)]\\nb = more()")
        interpreters.destroy(new)
threads = [threading.Thread(target=one) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert heap.report()["samples"] > 100
"""
    run(program, python=python, flags=("-W", "ignore"))


@pytest.mark.parametrize("other", [sys.executable, *map(str, interpreters().values())])
def test_a_library_of_any_versions_headers_serves_this_one_and_keeps_the_count_of_references(
    run: Run, tmp_path: Path, other: str
) -> None:
    asked = subprocess.run(
        [other, "-c", "import sysconfig; print(sysconfig.get_path('include'))"],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    headers, compiler = Path(asked.stdout.strip()), shutil.which("gcc")
    if compiler is None or not (headers / "Python.h").exists():
        pytest.skip("it takes gcc and the headers of that Python")
    package = Path("diagnostics/agent/heap")
    shutil.copytree(
        ROOT / "diagnostics", tmp_path / "diagnostics", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    command = [
        compiler, "-O2", "-std=gnu11", "-fPIC", "-shared", "-DPy_LIMITED_API=0x030B0000", f"-I{headers}",
        "-o", str(tmp_path / package / "_live.abi3.so"),
        *map(str, sorted((ROOT / "diagnostics/agent/native/live").glob("*.c"))), "-lm", "-ldl", "-pthread",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    program = """
begin()
live = heap.extension()
counted = (None, True, False)
for _ in range(3):  # what is made at the first call is made
    before = [sys.getrefcount(each) for each in counted]
    for _ in range(500):
        live.status(), live.check(), live.opened(counted, "/chat"), live.closed(counted), live.detach()
    after = [sys.getrefcount(each) for each in counted]
assert max(abs(was - now) for was, now in zip(before, after)) < 100, (before, after)
print(heap.__file__)
"""
    assert run(program, flags=("-P",), PYTHONPATH=str(tmp_path)).stdout.strip() == str(
        tmp_path / package / "__init__.py"
    )


def test_names_that_are_not_ascii_or_no_text_at_all(run: Run, tables: Tables) -> None:
    program = """
begin()
kept = []
names = {"kept": kept}
size = "gr\\u00f6\\u00dfe"
exec(compile(f"def {size}():\\n    kept.append(bytearray(3_000_000))\\n{size}()", f"/srv/{size}.py", "exec"), names)
exec(compile("def odd():\\n    kept.append(bytearray(3_000_000))\\nodd()", "/srv/\\udcff.py", "exec"), names)
try:
    raise ValueError("pending")
except ValueError:
    names[size]()
"""
    run(program)
    (table,) = tables().values()
    assert alive(table, "größe") == pytest.approx(6_000_000, rel=0.05)
    files = {frame.file for each in profile(table).samples for frame in each.stack if frame.function == "odd"}
    assert files == {"(a name that is not UTF-8)"}


def test_codes_that_follow_each_other_at_one_address_are_never_taken_for_each_other(run: Run, tables: Tables) -> None:
    program = """
begin()
kept = []
addresses = set()
for turn in range(300):
    names = {"kept": kept}
    exec(compile(f"def made_{turn:03}(size):\\n    kept.append(bytearray(size))", f"/srv/{turn:03}.py", "exec"), names)
    made = names[f"made_{turn:03}"]
    addresses.add(id(made.__code__))
    for _ in range(3):
        made(100_000 + turn)
    del made, names
print(len(addresses))
"""
    # Without that this would test nothing. How many share an address is the allocator's affair: 14 to 200 of them.
    assert int(run(program).stdout) < 299
    (table,) = tables().values()
    sizes: dict[str, set[int]] = {}
    for site, size, _, _ in table.blocks:
        found = table.sites[site]
        if found and 100_000 < size <= 100_300:  # else the interpreter's own, as its table of interned names
            sizes.setdefault(found.stack[0].function, set()).add(size - 100_001)
            assert found.stack[0].file == f"/srv/{found.stack[0].function[-3:]}.py"
    assert len(sizes) > 290
    assert sizes == {name: {int(name[-3:])} for name in sizes}


def test_stacks_that_are_seen_again_are_told_apart_by_depth_by_line_and_by_caller(run: Run, tables: Tables) -> None:
    """From the second time on a stack is known by a hash of its frames alone. Each kind of block has a size of its own."""
    program = """
begin()
kept = []

def deep(n, size):
    if n:
        return deep(n - 1, size)
    kept.append(bytearray(size))

def lines(size):
    kept.append(bytearray(size))
    kept.append(bytearray(size + 1))

def one(size):
    lines(size)

def other(size):
    lines(size)

for _ in range(5):
    for n in range(60):
        deep(n, 300_000 + n)
    one(400_000)
    other(400_010)
"""
    run(program)
    (table,) = tables().values()
    found: dict[int, set[tuple[int, str, int]]] = {}
    times: dict[int, int] = {}
    for place, size, _, _ in table.blocks:
        site = table.sites[place]
        if site is not None and 300_000 <= size - 1 < 401_000:  # a bytearray has a byte more
            stack = site.stack
            found.setdefault(size - 1, set()).add((len(stack), stack[1].function, stack[0].line))
            times[size - 1] = times.get(size - 1, 0) + 1
    assert set(times.values()) == {5}
    assert all(len(stacks) == 1 for stacks in found.values())
    told = {size: stacks.pop() for size, stacks in found.items()}
    assert [told[300_000 + n][0] for n in range(60)] == [2 + n for n in range(60)]
    first = (HEAD + program).splitlines().index("def lines(size):") + 2
    assert [told[size] for size in (400_000, 400_001, 400_010, 400_011)] == [
        (3, caller, first + more) for caller in ("one", "other") for more in (0, 1)
    ]


def test_a_stack_deeper_than_64_frames_says_that_it_is_cut(run: Run, tables: Tables) -> None:
    run(
        "begin()\nkept = []\ndef deep(n):\n    kept.append(bytearray(5_000_000)) if n == 0 else deep(n - 1)\ndeep(200)\n"
    )
    (table,) = tables().values()
    (stack,) = {s.stack for s in profile(table).samples if s.values[0] and s.stack[0].function == "deep"}
    assert len(stack) == 65
    assert stack[-1].function == "(frames further out are not kept)"


def test_a_full_table_drops_and_says_so(run: Run, tables: Tables) -> None:
    run("begin()\nkept = [bytearray(5000) for _ in range(60_000)]\n", rate=1024)
    (table,) = tables().values()
    assert table.dropped > 0
    assert any("had no room for" in note for note in profile(table).not_covered)
    assert 32_000 <= len(table.blocks) <= 32_768  # some were freed again when it had been full


def test_a_wrong_layout_is_refused_and_read_no_further(run: Run) -> None:
    program = """
from diagnostics.agent.heap import _live, layout
right = layout.offsets()
class Asking:
    def ask(offsets):
        return _live.lay_out(offsets, *layout.frames(sys._getframe()))
for at in range(len(right)):
    for step in (-16, -8, 8, 16):
        wrong = list(right)
        wrong[at] += step
        # Where instructions begin Python itself tells; a frame's owner is a byte that may be the same elsewhere.
        if at not in (1, 5, 6, 9) and wrong[at] >= 0:
            assert Asking.ask(tuple(wrong)) is not None, (at, step)
assert _live.start(False, 65536, 0) == "its layout is not verified"
"""
    run(program)


@pytest.mark.parametrize(
    ("flags", "env", "says"),
    [
        (
            (),
            {"PYTHONMALLOC": "debug"},
            "PYTHONMALLOC=debug: it has been tried with Python's own allocator (pymalloc) only",
        ),
        ((), {"PYTHONMALLOC": "malloc"}, "PYTHONMALLOC=malloc: "),
        (("-X", "dev"), {}, "development mode"),
        ((), {"DIAGNOSTICS_HEAP": "yes"}, "DIAGNOSTICS_HEAP is 'yes'; choose on, raw or off"),
        ((), {"DIAGNOSTICS_HEAP_RATE": "5"}, "DIAGNOSTICS_HEAP_RATE is '5'; choose 1024 to 1099511627776 (bytes)"),
    ],
)
def test_where_it_has_not_been_tried_it_says_why_and_does_nothing(
    run: Run, flags: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    done = run("print(heap.begin()); print(heap.report())", flags=flags, **env)
    assert says in done.stdout
    assert "'mode': 'off'" in done.stdout


def test_without_the_extension_everything_else_works_and_it_says_what_is_missing(run: Run) -> None:
    program = """
sys.modules["diagnostics.agent.heap._live"] = None
from diagnostics.agent.operations import perform
from diagnostics.agent.state import State
print(heap.begin())
reading = perform(State(), "reading", {})
assert reading["allocators"]["python_live_bytes"] > 0
print(reading["heap"]["reason"])
"""
    said = run(program).stdout.splitlines()
    assert said[0] == said[1]
    assert "install highwater-diagnostics where a C compiler and Python's headers are" in said[0]


def test_the_library_needs_nothing_but_the_c_library() -> None:
    library = next((ROOT / "diagnostics" / "agent" / "heap").glob("_live*.so"))
    needed = subprocess.run(["ldd", library], check=True, capture_output=True, encoding="utf-8", timeout=60).stdout
    assert {line.split()[0].split("/")[-1] for line in needed.splitlines()} <= {
        "linux-vdso.so.1", "libm.so.6", "libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2",
    }  # fmt: skip
