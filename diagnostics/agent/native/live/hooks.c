/* Stands before Python's allocators (PyMem_SetAllocator), passes every call on, and stops only for sampled blocks.

   What keeps a service alive:

   - A hook's functions belong to one installation for good, and what that installation passes calls on to never changes. Whoever
     has saved our functions (tracemalloc, memray) and puts them back later, in whatever order, gets a chain without a loop.
   - The hooks keep the context of what they stand before. PyMem_SetAllocator writes five words, and a thread that allocates
     without the GIL may see some of them old and some new: every such mixture is right.
   - They are taken out only where they are on top. Elsewhere they stay, and let everything pass.
   - Nothing is sampled while a sample is being made: what that allocates goes straight through. */

#include "live.h"

#include <dlfcn.h>
#include <errno.h>

#define INSTALLATIONS 8

static void (*get_allocator)(int, struct allocator *);
static void (*set_allocator)(int, struct allocator *);
static void *(*allocate[DOMAINS])(size_t);
static void (*release[DOMAINS])(void *);
static int (*print_stats)(void *);

static struct allocator below[INSTALLATIONS * DOMAINS];
static int installations;          /* made so far */
static unsigned wanted;            /* a bit for each domain that the last one hooks */

/* Bytes until this thread's next sample. 0 at first: then the first allocation draws. */
static __thread int64_t left __attribute__((tls_model("initial-exec")));
static __thread bool drawn __attribute__((tls_model("initial-exec")));
static __thread bool inside __attribute__((tls_model("initial-exec")));
/* While hooks are probed: a bit for each installation that a call came through. */
static __thread bool probing __attribute__((tls_model("initial-exec")));
static __thread unsigned probed __attribute__((tls_model("initial-exec")));

static __attribute__((noinline)) void by_name(void *block, size_t size, const struct step *steps, int depth, bool cut,
                                              bool lasting, const struct route *route)
{
    struct place places[MAX_DEPTH];
    stack_resolve(steps, places, depth);
    table_record(block, size, steps, places, depth, cut, lasting, route);
}

static __attribute__((noinline)) void reached(int slot, void *block, size_t size)
{
    if (unlikely(probing)) {
        probed |= 1u << slot / DOMAINS;
        return;
    }
    if (!drawn) {
        drawn = true;
        left = sample_distance() - (int64_t)size;
        if (left >= 0)
            return;
    }
    left = sample_distance();
    if (block == NULL || inside || !sampling || slot / DOMAINS != installations - 1)
        return;
    int error = errno;
    inside = true;
    struct step steps[MAX_DEPTH];
    bool cut = false, lasting = false;
    int depth = stack_walk(steps, (enum domain)(slot % DOMAINS), &cut, &lasting);
    const struct route *route = lasting ? route_now(steps, depth) : NULL;
    if (!lasting || !table_record_known(block, size, steps, depth, cut, route))
        by_name(block, size, steps, depth, cut, lasting, route);
    inside = false;
    errno = error;
}

static __attribute__((noinline)) void freed(void *block)
{
    int error = errno;
    struct taken was;
    table_take(block, &was);
    errno = error;
}

static __attribute__((noinline)) void *moved(int slot, void *ctx, void *block, size_t size)
{
    int error = errno;
    struct taken was;
    /* Before it is freed: another thread may have the address the moment after. */
    bool had = table_take(block, &was);
    errno = error;
    void *now = below[slot].realloc(ctx, block, size);
    if (now == NULL && had) { /* it is where it was */
        error = errno;
        table_put_back(block, &was);
        errno = error;
    }
    return now;
}

#define HOOK(slot)                                                                                                             \
    static void *malloc_##slot(void *ctx, size_t size)                                                                         \
    {                                                                                                                          \
        void *block = below[slot].malloc(ctx, size);                                                                           \
        if (unlikely((left -= (int64_t)size) < 0))                                                                             \
            reached(slot, block, size);                                                                                        \
        return block;                                                                                                          \
    }                                                                                                                          \
    static void *calloc_##slot(void *ctx, size_t count, size_t size)                                                           \
    {                                                                                                                          \
        void *block = below[slot].calloc(ctx, count, size);                                                                    \
        if (unlikely(block != NULL && (left -= (int64_t)(count * size)) < 0))                                                  \
            reached(slot, block, count * size);                                                                                \
        return block;                                                                                                          \
    }                                                                                                                          \
    static void *realloc_##slot(void *ctx, void *block, size_t size)                                                           \
    {                                                                                                                          \
        void *now = unlikely(block != NULL && table_may_hold(block)) ? moved(slot, ctx, block, size)                           \
                                                                     : below[slot].realloc(ctx, block, size);                  \
        if (unlikely((left -= (int64_t)size) < 0))                                                                             \
            reached(slot, now, size);                                                                                          \
        return now;                                                                                                            \
    }                                                                                                                          \
    static void free_##slot(void *ctx, void *block)                                                                            \
    {                                                                                                                          \
        if (unlikely(table_may_hold(block)) && block != NULL)                                                                  \
            freed(block);                                                                                                      \
        below[slot].free(ctx, block);                                                                                          \
    }

#define EACH(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15) \
    do(16) do(17) do(18) do(19) do(20) do(21) do(22) do(23)
#define NAMED(slot) {NULL, malloc_##slot, calloc_##slot, realloc_##slot, free_##slot},
EACH(HOOK)
static const struct allocator hooks[INSTALLATIONS * DOMAINS] = {EACH(NAMED)};

bool hooks_find(void)
{
    get_allocator = (void (*)(int, struct allocator *))dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    set_allocator = (void (*)(int, struct allocator *))dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    static const char *const names[DOMAINS][2] = {
        {"PyMem_RawMalloc", "PyMem_RawFree"}, {"PyMem_Malloc", "PyMem_Free"}, {"PyObject_Malloc", "PyObject_Free"}};
    for (int domain = 0; domain < DOMAINS; domain++) {
        allocate[domain] = (void *(*)(size_t))dlsym(RTLD_DEFAULT, names[domain][0]);
        release[domain] = (void (*)(void *))dlsym(RTLD_DEFAULT, names[domain][1]);
        if (!allocate[domain] || !release[domain])
            return false;
    }
    print_stats = (int (*)(void *))dlsym(RTLD_DEFAULT, "_PyObject_DebugMallocStats");
    return get_allocator && set_allocator;
}

const char *hooks_put_in(bool raw)
{
    if (installations == INSTALLATIONS)
        return "its hooks have been put in 8 times in this process; start the process anew";
    int first = installations * DOMAINS;
    wanted = raw ? 1u << RAW : 1u << MEM | 1u << OBJ;
    for (int domain = 0; domain < DOMAINS; domain++)
        if (wanted >> domain & 1)
            get_allocator(domain, &below[first + domain]);
    installations++;
    for (int domain = 0; domain < DOMAINS; domain++)
        if (wanted >> domain & 1) {
            struct allocator hook = hooks[first + domain];
            hook.ctx = below[first + domain].ctx;
            set_allocator(domain, &hook);
        }
    return NULL;
}

static bool on_top(int domain, int slot)
{
    struct allocator top;
    get_allocator(domain, &top);
    return top.malloc == hooks[slot].malloc && top.free == hooks[slot].free && top.ctx == below[slot].ctx;
}

void hooks_take_out(void)
{
    int first = (installations - 1) * DOMAINS;
    for (int domain = 0; domain < DOMAINS && first >= 0; domain++)
        if (wanted >> domain & 1 && on_top(domain, first + domain))
            set_allocator(domain, &below[first + domain]);
    wanted = 0;
}

unsigned hooks_reached(void)
{
    unsigned lost = 0;
    probing = true;
    for (int domain = 0; domain < DOMAINS; domain++) {
        if (!(wanted >> domain & 1))
            continue;
        /* So far below 0 that each installation stops: an earlier one may be reached where the last one is not. */
        left = INT64_MIN / 2;
        probed = 0;
        void *probe = allocate[domain](64);
        if (probe == NULL)
            continue; /* out of memory says nothing of the hooks */
        if (!(probed >> (installations - 1) & 1))
            lost |= 1u << domain;
        release[domain](probe);
    }
    drawn = true;
    left = sample_distance();
    probing = false;
    return lost;
}

int hooks_pymalloc_stats(void *file)
{
    int slot = (installations - 1) * DOMAINS + OBJ;
    if (print_stats == NULL)
        return -1;
    if (!(wanted >> OBJ & 1) || !on_top(OBJ, slot))
        return print_stats(file);
    /* It prints only where pymalloc itself is on top. The GIL is held all along: no other thread allocates objects. */
    set_allocator(OBJ, &below[slot]);
    int told = print_stats(file);
    struct allocator hook = hooks[slot];
    hook.ctx = below[slot].ctx;
    set_allocator(OBJ, &hook);
    return told;
}
