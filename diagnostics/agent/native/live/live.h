/* What the files of the sampled heap share. One law a file:

   hooks.c    stands before Python's allocators; passes every call on, and knows for which blocks to stop
   sample.c   which blocks are taken: a Poisson process over the bytes that are allocated
   stack.c    where a block was asked for: the interpreter's frames, read without calling into it
   route.c    for the stream of which route: the context's variable, read likewise
   table.c    what is remembered: blocks, stacks, names; in private memory, and the same once more in a file
   module.c   what Python sees of it

   Only the limited API of CPython 3.11 is used as it stands in Python.h. What is outside of it is looked up when the module is
   loaded, and the layout of frames is given by heap/layout.py and compared with what Python itself says before it is used. */

#ifndef HIGHWATER_LIVE_H
#define HIGHWATER_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* As CPython has it in cpython/pymem.h, since 3.5. */
struct allocator {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *block, size_t size);
    void (*free)(void *ctx, void *block);
};
enum domain { RAW = 0, MEM = 1, OBJ = 2, DOMAINS = 3 };

/* hooks.c */
bool hooks_find(void);             /* looks up what it needs of Python; false where something is missing */
const char *hooks_put_in(bool raw); /* NULL, or why not; needs the GIL */
void hooks_take_out(void);          /* where they are on top; else they stay and let everything pass; needs the GIL */
unsigned hooks_reached(void);       /* one bit for each domain that should be hooked and no longer is; needs the GIL */
int hooks_pymalloc_stats(void *file); /* _PyObject_DebugMallocStats, as if the hooks were not there; -1: not to be had */

/* sample.c */
extern _Atomic bool sampling;
extern double sample_rate; /* mean distance between two samples, in bytes */
void sample_seed(void);
double sample_chance(size_t size); /* that a block of this size is taken */
int64_t sample_distance(void);     /* bytes to the next sample */

/* stack.c */
#define MAX_DEPTH 64
#define NAME_BYTES 1024 /* longer names and paths are cut */
struct place {
    const char *function, *file;
    uint32_t function_bytes, file_bytes, line;
};
struct step { /* a frame before it is looked up: its code, and how far into the code it is */
    uintptr_t code;
    int32_t offset;
};
struct layout { /* offsets in bytes */
    long thread_frame;   /* in the thread state: its innermost frame, or what leads to it */
    long through;        /* -1, or in what `thread_frame` leads to */
    long frame_code, frame_previous, frame_instruction, frame_owner;
    long owners;         /* owners below this are frames of Python code */
    long code_filename, code_qualname, code_start;
    long object_frame;   /* in a frame object: the interpreter's frame */
};
extern struct layout layout;
bool stack_find(void);
/* Leaf first; how many. `cut`: there are more. `lasting`: a code's address stands for it until it is seen to be freed. */
int stack_walk(struct step *steps, enum domain domain, bool *cut, bool *lasting);
void stack_resolve(const struct step *steps, struct place *places, int depth);
const char *stack_verify(void *const *frames, const uint32_t *lines, void *const *codes, void *const *files,
                         void *const *names, int count);

/* route.c; all of it needs the GIL */
#define MOST_ROUTES 255
#define ROUTE_BYTES 255
struct route {
    uint32_t bytes;
    char text[ROUTE_BYTES];
};
/* Compares what is read with what Python says: NULL, or what differs. Called within `context`, where `key` is `expected` or, NULL,
   not set; `many`: with so many variables that its trie's root is no bitmap; and of a code and its flags. */
const char *route_probe(void *context, void *key, uint32_t hash, void *expected, bool many, void *code, int flags);
const char *route_watch(void *key, uint32_t hash, void *callback_code); /* from now on; `key`: of records that are opened */
void route_opened(void *record, const char *text, uint32_t bytes);
void route_closed(void *record);
const void *route_memory(size_t *bytes); /* what it takes of the process's own */
const struct route *route_now(const struct step *steps, int depth); /* in the main interpreter; NULL: not known */

/* table.c */
#define BUCKET_BITS 17
#define BUCKETS (1u << BUCKET_BITS)
extern uint64_t table_bits[BUCKETS / 64];
static inline uint32_t table_bucket(const void *block)
{
    uintptr_t address = (uintptr_t)block;
    /* Blocks of pymalloc differ in their low bits, mappings of malloc's large blocks only above the page's. */
    return (uint32_t)((address >> 4) ^ (address >> 13) ^ (address >> 23)) & (BUCKETS - 1);
}
/* Whether a block may be in the table; false is certain. */
static inline bool table_may_hold(const void *block)
{
    uint32_t bucket = table_bucket(block);
    return __atomic_load_n(&table_bits[bucket / 64], __ATOMIC_RELAXED) >> (bucket % 64) & 1;
}
struct taken {
    uint64_t size;
    uint32_t site, born;
};
const char *table_make(int mode, uint64_t rate, uint64_t pid_started_ticks);
bool table_record_known(const void *block, size_t size, const struct step *steps, int depth, bool cut,
                        const struct route *route);
void table_record(const void *block, size_t size, const struct step *steps, const struct place *places, int depth, bool cut,
                  bool lasting, const struct route *route);
bool table_take(const void *block, struct taken *was);
void table_put_back(const void *block, const struct taken *was);
void table_clear(void);
void table_say(uint32_t flags); /* sets flags in the header for who reads it */
const char *table_attach(int fd, uint64_t start_ticks); /* NULL, or why the file cannot be the table's */
void table_detach(void);
struct table_status {
    uint64_t samples, dropped, unseen_frees, blocks, sites, private_bytes, file_bytes;
    bool attached;
};
void table_status(struct table_status *status);
uint64_t table_bytes(void);

#endif
