/* For the stream of which route a block is allocated: what the context (PEP 567) of this thread says, read from memory.

   A block has a route where it is allocated in a coroutine, in the context of a stream that is open: the ledger keeps the stream's
   record in a context variable, and tells here of each record that is opened and closed. A task inherits the context that it is begun
   in, so tasks of a stream are its own.

   Without a coroutine nothing is said. A transport's callback runs in the context in which the connection was made: of a pool's
   connection that is the stream that came first, whoever is served now. A wrong route is worse than none.

   The context's variables are a hash trie that never changes once it is there (Python/hamt.c): reading it makes no object and calls
   nothing. Where its words are is not believed: `route_probe` compares what is found with what Python says, with few variables and
   with many, before anything is read for a sample. */

#include "live.h"

#include <Python.h>
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>

/* In a context: its variables. In those: the trie's root. In a node: its bits, its entries; or its children. */
#define CONTEXT_VARIABLES 24
#define VARIABLES_ROOT 16
#define BITMAP_BITS 24
#define BITMAP_ENTRIES 32
#define ARRAY_CHILDREN 16
#define OBJECT_TYPE 8
#define CODE_FLAGS 48
#define COROUTINE (0x80 | 0x100 | 0x200) /* a coroutine, an iterable one, an asynchronous generator */
/* Words of a thread's state that may be its context; each version's state is larger. */
#define STATE_WORDS 40

#define OPEN 8192u /* a power of two */
#define MOST_OPEN 6144u

struct stream {
    uintptr_t record;
    uint32_t route;
};

static PyThreadState *(*thread_state)(void);
static uint64_t candidates; /* words of the thread's state that were the context each time */
static long state_context;
static uintptr_t bitmap_type, array_type;
static uintptr_t variable;  /* 0: no route is asked for */
static uint32_t variable_hash;
static uintptr_t loop_callback; /* the code that an event loop runs callbacks in */

static struct stream streams[OPEN] __attribute__((aligned(4096)));
static uint32_t opened;
static struct route routes[MOST_ROUTES + 1];
static int routes_used;

static inline uintptr_t word(uintptr_t at, long offset)
{
    return *(const uintptr_t *)(at + (uintptr_t)offset);
}

static inline uint32_t half(uintptr_t at, long offset)
{
    return *(const uint32_t *)(at + (uintptr_t)offset);
}

static bool is_mapped(uintptr_t at)
{
    unsigned char page;
    return at != 0 && at % sizeof(void *) == 0 && mincore((void *)(at & ~(uintptr_t)4095), 1, &page) == 0;
}

/* The value of a variable in these variables; 0: none, or a node of a kind that is not known. `careful`: nothing was compared yet. */
static uintptr_t value_of(uintptr_t variables, uintptr_t key, uint32_t hash, bool careful)
{
    uintptr_t node = word(variables, VARIABLES_ROOT);
    for (int shift = 0; shift < 35; shift += 5) {
        if (node == 0 || (careful && !is_mapped(node)))
            return 0;
        uint32_t at = hash >> shift & 31;
        uintptr_t type = word(node, OBJECT_TYPE);
        if (type == bitmap_type) {
            uint32_t bits = half(node, BITMAP_BITS);
            if (!(bits >> at & 1))
                return 0;
            long entry = BITMAP_ENTRIES + 16 * (long)__builtin_popcount(bits & ((1u << at) - 1));
            uintptr_t found = word(node, entry);
            if (found != 0)
                return found == key ? word(node, entry + 8) : 0;
            node = word(node, entry + 8);
        } else if (type == array_type) {
            node = word(node, ARRAY_CHILDREN + 8 * (long)at);
        } else {
            return 0;
        }
    }
    return 0;
}

const char *route_probe(void *context, void *key, uint32_t hash, void *expected, bool many, void *code, int flags)
{
    if (thread_state == NULL) {
        thread_state = (PyThreadState * (*)(void)) dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
        if (thread_state == NULL)
            thread_state = (PyThreadState * (*)(void)) dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
        candidates = ~(uint64_t)0 >> (64 - STATE_WORDS);
    }
    uintptr_t state = thread_state ? (uintptr_t)thread_state() : 0;
    if (state == 0)
        return "this thread has no state";
    for (int at = 0; at < STATE_WORDS; at++)
        if (word(state, 8 * at) != (uintptr_t)context)
            candidates &= ~((uint64_t)1 << at);
    if (candidates == 0)
        return "the thread's state has no context";
    state_context = 8 * (long)__builtin_ctzll(candidates);
    if (half((uintptr_t)code, CODE_FLAGS) != (uint32_t)flags)
        return "a code's flags are not where they should be";
    uintptr_t variables = word((uintptr_t)context, CONTEXT_VARIABLES);
    if (!is_mapped(variables) || !is_mapped(word(variables, VARIABLES_ROOT)))
        return "a context's variables are not where they should be";
    uintptr_t type = word(word(variables, VARIABLES_ROOT), OBJECT_TYPE);
    if (many)
        array_type = type;
    else
        bitmap_type = type;
    if (bitmap_type == array_type)
        return "few variables are kept as many are";
    return value_of(variables, (uintptr_t)key, hash, true) == (uintptr_t)expected ? NULL : "a variable is not where it should be";
}

const char *route_watch(void *key, uint32_t hash, void *callback_code)
{
    if ((candidates & (candidates - 1)) != 0)
        return "the thread's state has its context more than once";
    Py_IncRef(key); /* its address stands for it from now on */
    Py_IncRef(callback_code);
    loop_callback = (uintptr_t)callback_code;
    variable_hash = hash;
    variable = (uintptr_t)key;
    return NULL;
}

static uint32_t slot_of(uintptr_t record)
{
    return (uint32_t)(record * 0x9E3779B97F4A7C15u >> 40) & (OPEN - 1);
}

static uint32_t found_at(uintptr_t record) /* or the empty slot where it would be */
{
    uint32_t at = slot_of(record);
    while (streams[at].record != 0 && streams[at].record != record)
        at = (at + 1) & (OPEN - 1);
    return at;
}

static uint32_t number_of(const char *text, uint32_t bytes)
{
    for (int at = 1; at <= routes_used; at++)
        if (routes[at].bytes == bytes && memcmp(routes[at].text, text, bytes) == 0)
            return (uint32_t)at;
    if (routes_used == MOST_ROUTES || bytes > ROUTE_BYTES)
        return 0;
    struct route *route = &routes[++routes_used];
    memcpy(route->text, text, bytes);
    route->bytes = bytes;
    return (uint32_t)routes_used;
}

void route_opened(void *record, const char *text, uint32_t bytes)
{
    uint32_t number = number_of(text, bytes), at = found_at((uintptr_t)record);
    if (streams[at].record != 0) {
        streams[at].route = number;
        return;
    }
    if (number == 0 || opened == MOST_OPEN)
        return;
    Py_IncRef(record); /* nothing else comes to lie where it is */
    streams[at] = (struct stream){(uintptr_t)record, number};
    opened++;
}

void route_closed(void *record)
{
    uint32_t at = found_at((uintptr_t)record);
    if (streams[at].record == 0)
        return;
    streams[at].record = 0;
    opened--;
    /* What comes behind it, and would be looked for from before it, moves up. */
    for (uint32_t next = (at + 1) & (OPEN - 1); streams[next].record != 0; next = (next + 1) & (OPEN - 1)) {
        uint32_t home = slot_of(streams[next].record);
        if (((next - home) & (OPEN - 1)) >= ((next - at) & (OPEN - 1))) {
            streams[at] = streams[next];
            streams[next].record = 0;
            at = next;
        }
    }
    Py_DecRef(record);
}

const void *route_memory(size_t *bytes)
{
    *bytes = sizeof streams;
    return streams;
}

const struct route *route_now(const struct step *steps, int depth)
{
    if (likely(variable == 0) || opened == 0)
        return NULL;
    bool in_coroutine = false;
    for (int at = 0; at < depth && !in_coroutine; at++) {
        if (steps[at].code == loop_callback) /* nearer than any coroutine: this loop runs inside of one */
            return NULL;
        in_coroutine = half(steps[at].code, CODE_FLAGS) & COROUTINE;
    }
    uintptr_t context = in_coroutine ? word((uintptr_t)thread_state(), state_context) : 0;
    uintptr_t variables = context ? word(context, CONTEXT_VARIABLES) : 0;
    uintptr_t record = variables ? value_of(variables, variable, variable_hash, false) : 0;
    uint32_t number = record ? streams[found_at(record)].route : 0;
    return number && streams[found_at(record)].record == record ? &routes[number] : NULL;
}
