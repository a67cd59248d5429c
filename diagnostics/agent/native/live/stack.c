/* Where a block is asked for: the interpreter's frames, innermost first, read from memory as tracemalloc does.

   Nothing here calls into the evaluation of Python code, and no object is made: allocators call this in the middle of anything. Two
   functions of CPython are used. PyCode_Addr2Line reads the code's line table; PyUnicode_AsUTF8AndSize gives the characters of an
   ASCII name where they are, and of another one after it has encoded them once, which allocates: the hooks let that pass. An error
   that the thread has pending is kept safe meanwhile. */

#include "live.h"

#include <Python.h>
#include <dlfcn.h>
#include <sys/mman.h>

struct layout layout;

static PyThreadState *(*thread_state)(void);
static int (*line_of)(void *code, int offset);
static PyInterpreterState *main_interpreter;
static bool current_is_anyones; /* 3.11: what `thread_state` gives is whoever has the GIL */

#define INTERPRETER 16

static inline uintptr_t word(uintptr_t at, long offset)
{
    return *(const uintptr_t *)(at + (uintptr_t)offset);
}

bool stack_find(void)
{
    thread_state = (PyThreadState * (*)(void)) dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
    if (thread_state == NULL)
        thread_state = (PyThreadState * (*)(void)) dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
    line_of = (int (*)(void *, int))dlsym(RTLD_DEFAULT, "PyCode_Addr2Line");
    const unsigned long *version = dlsym(RTLD_DEFAULT, "Py_Version"); /* since 3.11 */
    PyInterpreterState *(*main)(void) = (PyInterpreterState * (*)(void)) dlsym(RTLD_DEFAULT, "PyInterpreterState_Main");
    /* In the thread's state, the third word in each version; where it is not, nothing is taken to be the main interpreter. */
    PyThreadState *state = thread_state ? thread_state() : NULL;
    main_interpreter = main && state && word((uintptr_t)state, INTERPRETER) == (uintptr_t)PyInterpreterState_Get() ? main() : NULL;
    current_is_anyones = version == NULL || *version < 0x030C0000;
    return thread_state && line_of;
}

/* The innermost frame of this thread; 0 where it has none, or does not hold the GIL. */
static uintptr_t innermost(enum domain domain, bool *lasting)
{
    PyThreadState *state = thread_state();
    if (state == NULL)
        return 0;
    /* Where objects' memory is hooked, a code is seen when it is freed. What a subinterpreter leaves may go with all of its memory. */
    *lasting = domain != RAW && main_interpreter != NULL && word((uintptr_t)state, INTERPRETER) == (uintptr_t)main_interpreter;
    /* Objects are allocated under the GIL; raw memory is not always. */
    if (domain == RAW && current_is_anyones && PyGILState_GetThisThreadState() != state)
        return 0;
    uintptr_t frame = word((uintptr_t)state, layout.thread_frame);
    return frame && layout.through >= 0 ? word(frame, layout.through) : frame;
}

static inline uintptr_t code_of(uintptr_t frame)
{
    return word(frame, layout.frame_code) & ~(uintptr_t)7; /* 3.14 keeps flags in the low bits */
}

static inline bool is_python(uintptr_t frame)
{
    return *(const uint8_t *)(frame + (uintptr_t)layout.frame_owner) < layout.owners && code_of(frame) != 0;
}

static int32_t offset_in(uintptr_t frame, uintptr_t code)
{
    return (int32_t)(word(frame, layout.frame_instruction) - (code + (uintptr_t)layout.code_start));
}

static uint32_t line_at(uintptr_t code, int32_t offset)
{
    int line = line_of((void *)code, offset);
    return line > 0 ? (uint32_t)line : 0;
}

/* Whether a word can be read there without a fault. */
static bool is_mapped(uintptr_t at)
{
    unsigned char page;
    return at % sizeof(void *) == 0 && mincore((void *)(at & ~(uintptr_t)4095), 1, &page) == 0;
}

/* The instruction is within the code's own: a code is an object with a number of items, of two bytes each. */
static bool is_within(uintptr_t frame, uintptr_t code)
{
    long offset = offset_in(frame, code);
    return offset >= -2 && offset < 2 * (long)((PyVarObject *)code)->ob_size;
}

static const char *characters(uintptr_t text, uint32_t *bytes)
{
    Py_ssize_t size = 0;
    const char *utf8 = text ? PyUnicode_AsUTF8AndSize((PyObject *)text, &size) : NULL;
    if (utf8 == NULL) { /* surrogates, or no memory */
        PyErr_Clear();
        utf8 = "(a name that is not UTF-8)";
        size = 26;
    }
    *bytes = size > NAME_BYTES ? NAME_BYTES : (uint32_t)size;
    return utf8;
}

int stack_walk(struct step *steps, enum domain domain, bool *cut, bool *lasting)
{
    int depth = 0;
    for (uintptr_t frame = innermost(domain, lasting); frame != 0; frame = word(frame, layout.frame_previous)) {
        if (!is_python(frame))
            continue;
        if (depth == MAX_DEPTH) {
            *cut = true;
            break;
        }
        uintptr_t code = code_of(frame);
        steps[depth++] = (struct step){code, offset_in(frame, code)};
    }
    return depth;
}

void stack_resolve(const struct step *steps, struct place *places, int depth)
{
    if (depth == 0) /* then this thread may not even hold the GIL */
        return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    /* A name that cannot be encoded makes an exception, and 3.11 collects garbage, with all its finalizers, where one is made. */
    int collected = PyGC_Disable();
    for (int at = 0; at < depth; at++) {
        uintptr_t code = steps[at].code;
        struct place *place = &places[at];
        place->line = line_at(code, steps[at].offset);
        place->function = characters(word(code, layout.code_qualname), &place->function_bytes);
        place->file = characters(word(code, layout.code_filename), &place->file_bytes);
    }
    if (collected)
        PyGC_Enable();
    PyErr_Restore(type, value, trace);
}

/* Compares the layout with what Python says of the frames that called this, innermost first. What a word leads to is read only
   where Python says the same of it, or where memory is mapped at all, so that a wrong layout is an answer and not a crash. */
const char *stack_verify(void *const *frames, const uint32_t *lines, void *const *codes, void *const *files,
                         void *const *names, int count)
{
    PyThreadState *state = thread_state();
    if (state == NULL)
        return "this thread has no state";
    uintptr_t expected = word((uintptr_t)frames[0], layout.object_frame);
    uintptr_t frame = word((uintptr_t)state, layout.thread_frame);
    if (frame != 0 && layout.through >= 0)
        frame = is_mapped(frame + (uintptr_t)layout.through) ? word(frame, layout.through) : 0;
    for (int at = 0; at < count; at++) {
        for (int others = 0; frame != 0 && frame != expected && at > 0 && others < 8; others++) {
            /* Between two frames of Python code there may be one of the interpreter's own. */
            if (!is_mapped(frame) || !is_mapped(frame + (uintptr_t)layout.frame_previous)
                || *(const uint8_t *)(frame + (uintptr_t)layout.frame_owner) < layout.owners)
                return "a frame is not where it should be";
            frame = word(frame, layout.frame_previous);
        }
        if (frame == 0 || frame != expected)
            return "a frame is not where it should be";
        uintptr_t code = (uintptr_t)codes[at];
        if (code_of(frame) != code || !is_python(frame))
            return "a frame's code is not where it should be";
        if (word(code, layout.code_filename) != (uintptr_t)files[at] || word(code, layout.code_qualname) != (uintptr_t)names[at])
            return "a code's names are not where they should be";
        if (!is_within(frame, code) || line_at(code, offset_in(frame, code)) != lines[at])
            return "a frame's line is not the one that Python tells";
        frame = word(frame, layout.frame_previous);
        if (at + 1 < count)
            expected = word((uintptr_t)frames[at + 1], layout.object_frame);
    }
    return NULL;
}
