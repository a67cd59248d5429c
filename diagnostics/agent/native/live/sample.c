/* Which blocks are taken.

   Samples are a Poisson process over allocated bytes: from one to the next it is an exponentially distributed number of them, on
   average `sample_rate`. A block of n bytes is so taken with probability 1 - exp(-n / rate), whatever was allocated before it, and
   what is estimated from the taken ones is right on average for every mixture of sizes. (tcmalloc and Go do the same:
   https://google.github.io/tcmalloc/sampling.html.) Each thread counts for itself; the exponential distribution has no memory, so
   that it does not matter how the bytes are shared out among threads. */

#include "live.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

_Atomic bool sampling;
double sample_rate = 512 * 1024;

static __thread uint64_t state __attribute__((tls_model("initial-exec")));

void sample_seed(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    /* The state's address tells threads of one process apart, the process number those of a fork. */
    state = ((uint64_t)(uintptr_t)&state * 0x9E3779B97F4A7C15u) ^ ((uint64_t)getpid() << 40) ^ (uint64_t)now.tv_nsec
        ^ ((uint64_t)now.tv_sec << 20);
    if (state == 0)
        state = 1;
}

static uint64_t next(void)
{
    if (unlikely(state == 0))
        sample_seed();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Du;
}

int64_t sample_distance(void)
{
    double uniform = ((double)(next() >> 11) + 0.5) / 9007199254740992.0; /* above 0, below 1 */
    double distance = -log(uniform) * sample_rate;
    return distance < 1 ? 1 : distance > 1e15 ? (int64_t)1e15 : (int64_t)distance;
}

double sample_chance(size_t size)
{
    return -expm1(-(double)(size ? size : 1) / sample_rate);
}
