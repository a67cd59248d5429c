/* What is remembered of sampled blocks, twice: in memory that is this process's own, and in a file for whoever reads it.

   The process works on its own memory. The file is only written, at the same offsets: it may be read while the process is stopped
   and after it was killed, and a forked child, whose memory is a copy, lets go of its parent's file and goes on.
   analysis/heap/table.py describes the file. Nothing here grows: what does not fit is counted as dropped.

   How a reader gets whole entries without a lock: blocks and sites begin and end with a number. A writer changes the last one first
   and the first one last; a reader who reads forwards has a whole entry where both are the same. Nodes, frames and names are written
   once, before the header's count of them.

   All of this runs under one lock, in the middle of other code's allocations: it allocates nothing and waits for nothing else. */

#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#define VERSION 1
#define BLOCKS 32768u
#define SITES 8192u
#define NODES 32768u
#define FRAMES 16384u
#define NAME_SPACE (512u * 1024)
#define NAMES 16384u /* slots of its index */
#define NONE UINT32_MAX

struct header {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t file_bytes;
    uint32_t pid, mode;
    uint64_t rate;
    int64_t started_ns;
    uint64_t start_ticks;
    uint32_t blocks_at, blocks_size, sites_at, sites_size, nodes_at, nodes_size, frames_at, frames_size, names_at, names_size;
    uint64_t updated_ns, samples, dropped, unseen_frees;
    double dropped_bytes;
    uint32_t blocks_used, sites_used, nodes_used, frames_used, names_used, flags;
};
struct block { uint32_t head, site; uint64_t size; uint32_t born, tail; }; /* site 0: none; born: tenths of a second */
struct site { /* of all samples since the start */
    uint32_t head, node;
    uint64_t samples, seen;
    double bytes, objects, bytes_variance, objects_variance;
    uint32_t unused, tail;
};
struct node { uint32_t parent, frame; };
struct frame { uint32_t function, file, line; };
_Static_assert(sizeof(struct block) == 24 && sizeof(struct site) == 64 && sizeof(struct frame) == 12, "the file's entries");

#define HEADER_BYTES 4096u
#define ROUND(bytes) (((bytes) + 63u) & ~63u)
#define BLOCKS_AT HEADER_BYTES
#define SITES_AT ROUND(BLOCKS_AT + BLOCKS * sizeof(struct block))
#define NODES_AT ROUND(SITES_AT + SITES * sizeof(struct site))
#define FRAMES_AT ROUND(NODES_AT + NODES * sizeof(struct node))
#define NAMES_AT ROUND(FRAMES_AT + FRAMES * sizeof(struct frame))
#define TABLE_BYTES ((NAMES_AT + NAME_SPACE + 4095u) & ~4095u)

/* The site of a stack that was seen before. `stack` is a hash that stands for it: by chance, two of 8,192 stacks have the same one in
   one of 10^11 processes. `era` is the one in which it was noted. */
#define SEEN 8192u
struct seen {
    uint64_t stack;
    uint32_t site, era;
};

/* Where things are found: not in the file. Slots hold a number plus one; 0 is empty. The last WATCHED slots of `next` and `address`
   are no blocks but codes: when one is freed, its address no longer stands for it, and what was noted is void. */
#define WATCHED 4096u
struct index {
    uint32_t buckets[BUCKETS], next[BLOCKS + WATCHED];
    uintptr_t address[BLOCKS + WATCHED];
    struct seen seen[SEEN];
    uint32_t era, cut_node, watched, free_watch; /* free_watch: plus one */
    uint32_t names[NAMES], frames[2 * FRAMES], nodes[2 * NODES], site_of_node[NODES];
    uint32_t free_block; /* plus one */
};

uint64_t table_bits[BUCKETS / 64];

static char *own, *file; /* the table, and its file's mapping */
static struct index *indexes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t began; /* monotonic, in tenths of a second */
static bool fork_watched;

#define HEADER ((struct header *)own)
#define BLOCK(n) ((struct block *)(own + BLOCKS_AT) + (n))
#define SITE(n) ((struct site *)(own + SITES_AT) + (n))
#define NODE(n) ((struct node *)(own + NODES_AT) + (n))
#define FRAME(n) ((struct frame *)(own + FRAMES_AT) + (n))

/* --- the file ------------------------------------------------------------------------------------------------------------ */

static void copy_out(const void *what, size_t bytes)
{
    if (file != NULL)
        memcpy(file + ((const char *)what - own), what, bytes);
}

/* An entry whose first and last word are the same number, which this has just raised. */
static void publish(const void *entry, size_t bytes)
{
    if (file == NULL)
        return;
    char *to = file + ((const char *)entry - own);
    const char *from = entry;
    __atomic_store_n((uint32_t *)(to + bytes - 4), *(const uint32_t *)(from + bytes - 4), __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(to + 4, from + 4, bytes - 8);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    __atomic_store_n((uint32_t *)to, *(const uint32_t *)from, __ATOMIC_RELAXED);
}

static void publish_header(void)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    copy_out(&HEADER->updated_ns, sizeof(struct header) - offsetof(struct header, updated_ns));
}

static int64_t tenths(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 10 + now.tv_nsec / 100000000;
}

static void touch(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    HEADER->updated_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    publish_header();
}

/* --- names, frames, nodes: each once ------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

static uint64_t hash_of(const char *text, uint32_t bytes)
{
    uint64_t hash = bytes, word;
    for (; bytes >= 8; text += 8, bytes -= 8) {
        memcpy(&word, text, 8);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, text, bytes);
    return mix(hash, word);
}

/* Offset of a name in the names' space; NONE where it is full. */
static uint32_t name_of(const char *text, uint32_t bytes)
{
    uint16_t size = (uint16_t)bytes;
    char *names = own + NAMES_AT;
    uint32_t slot = (uint32_t)hash_of(text, bytes) & (NAMES - 1);
    for (uint32_t tries = 0; tries < NAMES; tries++, slot = (slot + 1) & (NAMES - 1)) {
        uint32_t at = indexes->names[slot];
        if (at == 0) {
            at = HEADER->names_used;
            if (tries > 64 || at + 2 + bytes > NAME_SPACE)
                return NONE;
            memcpy(names + at, &size, 2);
            memcpy(names + at + 2, text, bytes);
            copy_out(names + at, 2 + bytes);
            HEADER->names_used = at + 2 + bytes;
            indexes->names[slot] = at + 1;
            return at;
        }
        if (memcmp(names + at - 1, &size, 2) == 0 && memcmp(names + at + 1, text, bytes) == 0)
            return at - 1;
    }
    return NONE;
}

static uint32_t frame_of(uint32_t function, uint32_t path, uint32_t line)
{
    uint32_t slot = (uint32_t)mix(mix(function, path), line) & (2 * FRAMES - 1);
    for (;; slot = (slot + 1) & (2 * FRAMES - 1)) {
        uint32_t at = indexes->frames[slot];
        if (at == 0)
            break;
        struct frame *known = FRAME(at - 1);
        if (known->function == function && known->file == path && known->line == line)
            return at - 1;
    }
    uint32_t at = HEADER->frames_used;
    if (at == FRAMES)
        return NONE;
    *FRAME(at) = (struct frame){function, path, line};
    copy_out(FRAME(at), sizeof(struct frame));
    HEADER->frames_used = at + 1;
    indexes->frames[slot] = at + 1;
    return at;
}

static uint32_t node_of(uint32_t parent, uint32_t frame)
{
    uint32_t slot = (uint32_t)mix(parent, frame) & (2 * NODES - 1);
    for (;; slot = (slot + 1) & (2 * NODES - 1)) {
        uint32_t at = indexes->nodes[slot];
        if (at == 0)
            break;
        if (NODE(at - 1)->parent == parent && NODE(at - 1)->frame == frame)
            return at - 1;
    }
    uint32_t at = HEADER->nodes_used;
    if (at == NODES)
        return NONE;
    *NODE(at) = (struct node){parent, frame};
    copy_out(NODE(at), sizeof(struct node));
    HEADER->nodes_used = at + 1;
    indexes->nodes[slot] = at + 1;
    return at;
}

static uint32_t node_below(uint32_t parent, const char *function, uint32_t function_bytes, const char *path,
                           uint32_t path_bytes, uint32_t line)
{
    uint32_t name = name_of(function, function_bytes), where = name_of(path, path_bytes);
    uint32_t frame = name == NONE || where == NONE ? NONE : frame_of(name, where, line);
    return frame == NONE ? NONE : node_of(parent, frame);
}

static void set_bit(uint32_t bucket, bool on)
{
    uint64_t bits = table_bits[bucket / 64], bit = (uint64_t)1 << bucket % 64;
    __atomic_store_n(&table_bits[bucket / 64], on ? bits | bit : bits & ~bit, __ATOMIC_RELEASE);
}

/* Whether it will be seen when this code is freed. */
static bool watch(uintptr_t code)
{
    uint32_t bucket = table_bucket((const void *)code), at;
    for (uint32_t link = indexes->buckets[bucket]; link != 0; link = indexes->next[link - 1])
        if (link > BLOCKS && indexes->address[link - 1] == code)
            return true;
    if (indexes->free_watch != 0) {
        at = indexes->free_watch - 1;
        indexes->free_watch = indexes->next[at];
    } else if (indexes->watched < WATCHED) {
        at = BLOCKS + indexes->watched++;
    } else {
        return false;
    }
    indexes->address[at] = code;
    indexes->next[at] = indexes->buckets[bucket];
    indexes->buckets[bucket] = at + 1;
    set_bit(bucket, true);
    return true;
}

/* Of a stack as it was walked. Each step costs one multiplication after the other, and some stacks have 64. */
static uint64_t hash_of_stack(const struct step *steps, int depth, bool cut, const struct route *route)
{
    uint64_t hash = (uint64_t)(uintptr_t)route + cut;
    for (int at = 0; at < depth; at++)
        hash = hash * 0xD6E8FEB86659FD93u + (steps[at].code + (uint64_t)steps[at].offset * 0x9E3779B97F4A7C15u);
    return mix(hash, (uint64_t)depth);
}

#define PLAIN(text) text, sizeof(text) - 1, "", 0, 0
/* A stack that was allocated for a stream begins, outermost, with a frame that is none: its name is the route, and this its file. */
#define ROUTE_FILE "<route>"

/* Where the stacks of a route begin. NONE: with their first frame, or there is no room for the route's. */
static uint32_t root_of(bool cut, const struct route *route)
{
    uint32_t outermost = cut ? indexes->cut_node : NONE;
    if (route == NULL)
        return outermost;
    uint32_t node = node_below(outermost, route->text, route->bytes, ROUTE_FILE, sizeof(ROUTE_FILE) - 1, 0);
    return node == NONE ? outermost : node;
}

/* The site of a stack; site 0 is that of all stacks that do not fit. */
static uint32_t site_of(const struct step *steps, const struct place *places, int depth, bool cut, bool lasting,
                        const struct route *route)
{
    uint32_t node = depth == 0 ? node_below(NONE, PLAIN("(no Python frame)")) : root_of(cut, route);
    if ((depth == 0 || cut) && node == NONE)
        return 0;
    for (int at = depth - 1; at >= 0; at--) {
        const struct place *place = &places[at];
        node = node_below(node, place->function, place->function_bytes, place->file, place->file_bytes, place->line);
        if (node == NONE)
            return 0;
        lasting = lasting && watch(steps[at].code);
    }
    uint32_t site = indexes->site_of_node[node];
    if (site == 0) {
        site = HEADER->sites_used;
        if (site == SITES)
            return 0;
        SITE(site)->node = node;
        HEADER->sites_used = site + 1;
        indexes->site_of_node[node] = site;
    }
    if (lasting) {
        uint64_t stack = hash_of_stack(steps, depth, cut, route);
        indexes->seen[stack & (SEEN - 1)] = (struct seen){stack, site, indexes->era};
    }
    return site;
}

/* --- blocks -------------------------------------------------------------------------------------------------------------- */

static void write_block(uint32_t at, uint32_t site, uint64_t size, uint32_t born)
{
    struct block *block = BLOCK(at);
    uint32_t number = block->head + 1;
    *block = (struct block){number, site, size, born, number};
    publish(block, sizeof *block);
}

/* A code that was watched was freed: nothing that was noted holds any more. */
static void forget_stacks(uint32_t at)
{
    indexes->next[at] = indexes->free_watch;
    indexes->free_watch = at + 1;
    indexes->era++;
}

/* What is known of an address, which may be a sampled block and a watched code at once. */
static bool remove_block(const void *address, struct taken *was)
{
    uint32_t bucket = table_bucket(address), *link = &indexes->buckets[bucket];
    bool had = false;
    while (*link != 0) {
        uint32_t at = *link - 1;
        if (indexes->address[at] != (uintptr_t)address) {
            link = &indexes->next[at];
            continue;
        }
        *link = indexes->next[at];
        indexes->address[at] = 0;
        if (at >= BLOCKS) {
            forget_stacks(at);
            continue;
        }
        if (was != NULL)
            *was = (struct taken){BLOCK(at)->size, BLOCK(at)->site - 1, BLOCK(at)->born};
        indexes->next[at] = indexes->free_block;
        indexes->free_block = at + 1;
        write_block(at, 0, 0, 0);
        had = true;
    }
    if (indexes->buckets[bucket] == 0)
        set_bit(bucket, false);
    return had;
}

static bool add_block(const void *address, uint64_t size, uint32_t site, uint32_t born)
{
    if (remove_block(address, NULL)) /* it was freed where the hooks did not see it */
        HEADER->unseen_frees++;
    uint32_t at;
    if (indexes->free_block != 0) {
        at = indexes->free_block - 1;
        indexes->free_block = indexes->next[at];
    } else if (HEADER->blocks_used < BLOCKS) {
        at = HEADER->blocks_used++;
    } else {
        return false;
    }
    uint32_t bucket = table_bucket(address);
    indexes->address[at] = (uintptr_t)address;
    indexes->next[at] = indexes->buckets[bucket];
    indexes->buckets[bucket] = at + 1;
    set_bit(bucket, true);
    write_block(at, site + 1, size, born);
    return true;
}

static void count(uint32_t at, size_t size)
{
    double chance = sample_chance(size), bytes = (double)size / chance, objects = 1 / chance;
    struct site *site = SITE(at);
    site->head++;
    site->samples++;
    site->seen += size;
    site->bytes += bytes;
    site->objects += objects;
    site->bytes_variance += bytes * bytes * (1 - chance);
    site->objects_variance += objects * objects * (1 - chance);
    site->tail = site->head;
    publish(site, sizeof *site);
}

/* --- from outside -------------------------------------------------------------------------------------------------------- */

static void keep(const void *block, size_t size, uint32_t site)
{
    count(site, size);
    HEADER->samples++;
    if (!add_block(block, size, site, (uint32_t)(tenths() - began))) {
        HEADER->dropped++;
        HEADER->dropped_bytes += (double)size / sample_chance(size);
    }
    touch();
}

/* False where the stack has not been seen before, or not since one of its codes was freed: then by its names. */
bool table_record_known(const void *block, size_t size, const struct step *steps, int depth, bool cut,
                        const struct route *route)
{
    uint64_t stack = hash_of_stack(steps, depth, cut, route);
    pthread_mutex_lock(&lock);
    const struct seen *seen = own != NULL ? &indexes->seen[stack & (SEEN - 1)] : NULL;
    bool known = seen != NULL && seen->stack == stack && seen->era == indexes->era;
    if (known)
        keep(block, size, seen->site);
    pthread_mutex_unlock(&lock);
    return known;
}

void table_record(const void *block, size_t size, const struct step *steps, const struct place *places, int depth, bool cut,
                  bool lasting, const struct route *route)
{
    pthread_mutex_lock(&lock);
    if (own != NULL)
        keep(block, size, site_of(steps, places, depth, cut, lasting, route));
    pthread_mutex_unlock(&lock);
}

bool table_take(const void *block, struct taken *was)
{
    pthread_mutex_lock(&lock);
    bool had = own != NULL && remove_block(block, was);
    if (had)
        touch();
    pthread_mutex_unlock(&lock);
    return had;
}

void table_put_back(const void *block, const struct taken *was)
{
    pthread_mutex_lock(&lock);
    if (own != NULL && sampling) {
        add_block(block, was->size, was->site, was->born);
        touch();
    }
    pthread_mutex_unlock(&lock);
}

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
    /* The parent's file is the parent's. What it held is here, too, in memory that the fork has copied. */
    if (file != NULL)
        munmap(file, TABLE_BYTES);
    file = NULL;
    pthread_mutex_unlock(&lock);
    sample_seed();
}

static void *map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_NOHUGEPAGE); /* only what is touched is to be resident */
    return memory;
}

const char *table_make(int mode, uint64_t rate, uint64_t start_ticks)
{
    const char *why = NULL;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&lock);
    if (own == NULL) {
        own = map(TABLE_BYTES);
        indexes = map(sizeof *indexes);
    }
    if (own == NULL || indexes == NULL) {
        if (own != NULL)
            munmap(own, TABLE_BYTES);
        if (indexes != NULL)
            munmap(indexes, sizeof *indexes);
        own = NULL;
        indexes = NULL;
        why = "there is no memory for its table";
    } else {
        *HEADER = (struct header){
            .magic = "HWHEAP\r\n", .version = VERSION, .header_bytes = HEADER_BYTES, .file_bytes = TABLE_BYTES,
            .pid = (uint32_t)getpid(), .mode = (uint32_t)mode, .rate = rate,
            .started_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, .start_ticks = start_ticks,
            .blocks_at = BLOCKS_AT, .blocks_size = BLOCKS, .sites_at = SITES_AT, .sites_size = SITES,
            .nodes_at = NODES_AT, .nodes_size = NODES, .frames_at = FRAMES_AT, .frames_size = FRAMES,
            .names_at = NAMES_AT, .names_size = NAME_SPACE,
        };
        SITE(0)->node = node_below(NONE, PLAIN("(stacks that the table has no room for)"));
        HEADER->sites_used = 1;
        indexes->cut_node = node_below(NONE, PLAIN("(frames further out are not kept)"));
        indexes->era = 1;
        began = tenths();
        touch();
        if (!fork_watched)
            fork_watched = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
        if (!fork_watched)
            why = "the C library does not call it when the process forks";
    }
    pthread_mutex_unlock(&lock);
    return why;
}

void table_clear(void)
{
    pthread_mutex_lock(&lock);
    if (own != NULL) {
        memset(table_bits, 0, sizeof table_bits);
        /* Pages of private memory that are given back read as zero. */
        madvise(own, TABLE_BYTES, MADV_DONTNEED);
        madvise(indexes, sizeof *indexes, MADV_DONTNEED);
        munmap(own, TABLE_BYTES);
        munmap(indexes, sizeof *indexes);
        own = NULL;
        indexes = NULL;
    }
    if (file != NULL)
        munmap(file, TABLE_BYTES);
    file = NULL;
    pthread_mutex_unlock(&lock);
}

void table_say(uint32_t flags)
{
    pthread_mutex_lock(&lock);
    if (own != NULL) {
        HEADER->flags |= flags;
        touch();
    }
    pthread_mutex_unlock(&lock);
}

/* A page that cannot be written when it is first touched is a SIGBUS, in the service: so only file systems that keep what
   posix_fallocate has promised. Magic numbers: statfs(2). */
static bool keeps_its_word(int fd)
{
    struct statfs facts;
    if (fstatfs(fd, &facts) != 0)
        return false;
    switch ((unsigned long)facts.f_type) {
    case 0xEF53u:     /* ext2, ext3, ext4 */
    case 0x58465342u: /* xfs */
    case 0x01021994u: /* tmpfs */
    case 0x794C7630u: /* overlayfs */
        return true;
    default:
        return false;
    }
}

const char *table_attach(int fd, uint64_t start_ticks)
{
    if (!keeps_its_word(fd))
        return "its folder is on a file system where a file that is mapped may fail to be written (known to be safe: ext4, xfs, "
               "tmpfs, overlayfs)";
    int failed = posix_fallocate(fd, 0, TABLE_BYTES);
    if (failed)
        return failed == ENOSPC ? "there is no room on the disk for its table" : "its file cannot be given its size";
    char *mapped = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return "its file cannot be mapped";
    pthread_mutex_lock(&lock);
    if (own == NULL) {
        munmap(mapped, TABLE_BYTES);
        pthread_mutex_unlock(&lock);
        return "it is not started";
    }
    if (file != NULL)
        munmap(file, TABLE_BYTES);
    /* Both are the parent's still where this process was forked: a reader looks for the process by them. */
    HEADER->pid = (uint32_t)getpid();
    HEADER->start_ticks = start_ticks;
    file = mapped;
    /* Only what is used: the rest of the file is zero and stays untouched. The header last, so that no reader takes it early. */
    copy_out(own + BLOCKS_AT, HEADER->blocks_used * sizeof(struct block));
    copy_out(own + SITES_AT, HEADER->sites_used * sizeof(struct site));
    copy_out(own + NODES_AT, HEADER->nodes_used * sizeof(struct node));
    copy_out(own + FRAMES_AT, HEADER->frames_used * sizeof(struct frame));
    copy_out(own + NAMES_AT, HEADER->names_used);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    copy_out(own + 8, sizeof(struct header) - 8);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    copy_out(own, 8);
    touch();
    pthread_mutex_unlock(&lock);
    return NULL;
}

void table_detach(void)
{
    pthread_mutex_lock(&lock);
    if (file != NULL)
        munmap(file, TABLE_BYTES);
    file = NULL;
    pthread_mutex_unlock(&lock);
}

static uint64_t resident(const void *memory, size_t bytes)
{
    static unsigned char pages[(sizeof(struct index) + TABLE_BYTES) / 4096 + 2]; /* under the lock */
    uint64_t held = 0;
    long page = sysconf(_SC_PAGESIZE);
    size_t many = (bytes + (size_t)page - 1) / (size_t)page;
    if (memory != NULL && mincore((void *)(uintptr_t)memory, bytes, pages) == 0)
        for (size_t at = 0; at < many; at++)
            held += pages[at] & 1 ? (uint64_t)page : 0;
    return held;
}

void table_status(struct table_status *status)
{
    pthread_mutex_lock(&lock);
    memset(status, 0, sizeof *status);
    if (own != NULL) {
        status->samples = HEADER->samples;
        status->dropped = HEADER->dropped;
        status->unseen_frees = HEADER->unseen_frees;
        status->sites = HEADER->sites_used;
        status->blocks = HEADER->blocks_used;
        for (uint32_t at = indexes->free_block; at != 0; at = indexes->next[at - 1])
            status->blocks--;
        size_t bytes;
        const void *streams = route_memory(&bytes);
        status->private_bytes = resident(own, TABLE_BYTES) + resident(indexes, sizeof *indexes) + resident(streams, bytes);
        status->attached = file != NULL;
        status->file_bytes = file != NULL ? TABLE_BYTES : 0;
    }
    pthread_mutex_unlock(&lock);
}

uint64_t table_bytes(void)
{
    return TABLE_BYTES;
}
