/* What Python sees of the sampled heap: `_live`, used by heap/__init__.py alone. */

#include "live.h"

#include <Python.h>

#define MOST_FRAMES 256

static bool laid_out, started;

/* A new reference to None, made by the interpreter that runs. Py_RETURN_NONE and its like are made for the interpreter whose
   headers this is compiled with: from 3.12 on they take no reference, and a service on 3.11 would end with none of None left. */
static PyObject *none(void)
{
    return Py_BuildValue("");
}

static PyObject *refused(const char *why)
{
    return why == NULL ? none() : PyUnicode_FromString(why);
}

/* lay_out(offsets, frames, lines, codes, files, names) -> None, or why frames cannot be read here */
static PyObject *lay_out(PyObject *self, PyObject *arguments)
{
    (void)self;
    long *const fields[] = {&layout.thread_frame, &layout.through, &layout.frame_code, &layout.frame_previous,
                            &layout.frame_instruction, &layout.frame_owner, &layout.owners, &layout.code_filename,
                            &layout.code_qualname, &layout.code_start, &layout.object_frame};
    const Py_ssize_t many = sizeof fields / sizeof *fields;
    PyObject *offsets, *parts[5];
    if (!PyArg_ParseTuple(arguments, "O!O!O!O!O!O!", &PyTuple_Type, &offsets, &PyTuple_Type, &parts[0], &PyTuple_Type, &parts[1],
                          &PyTuple_Type, &parts[2], &PyTuple_Type, &parts[3], &PyTuple_Type, &parts[4]))
        return NULL;
    if (started)
        return refused("it is started already");
    Py_ssize_t count = PyTuple_Size(parts[0]);
    for (int part = 1; part < 5; part++)
        if (PyTuple_Size(parts[part]) != count)
            count = -1;
    if (PyTuple_Size(offsets) != many || count < 1 || count > MOST_FRAMES) {
        PyErr_SetString(PyExc_ValueError, "tuples of other lengths are expected");
        return NULL;
    }
    for (Py_ssize_t at = 0; at < many; at++) {
        *fields[at] = PyLong_AsLong(PyTuple_GetItem(offsets, at));
        if (PyErr_Occurred())
            return NULL;
    }
    if (!hooks_find() || !stack_find())
        return refused("this Python does not export what it needs (PyMem_SetAllocator, PyCode_Addr2Line, the thread's state)");
    void *frames[MOST_FRAMES], *codes[MOST_FRAMES], *files[MOST_FRAMES], *names[MOST_FRAMES];
    uint32_t lines[MOST_FRAMES];
    for (Py_ssize_t at = 0; at < count; at++) {
        frames[at] = PyTuple_GetItem(parts[0], at);
        lines[at] = (uint32_t)PyLong_AsLong(PyTuple_GetItem(parts[1], at));
        codes[at] = PyTuple_GetItem(parts[2], at);
        files[at] = PyTuple_GetItem(parts[3], at);
        names[at] = PyTuple_GetItem(parts[4], at);
    }
    if (PyErr_Occurred())
        return NULL;
    const char *why = stack_verify(frames, lines, codes, files, names, (int)count);
    laid_out = why == NULL;
    return refused(why);
}

/* start(raw, rate, start_ticks) -> None, or why not */
static PyObject *start(PyObject *self, PyObject *arguments)
{
    (void)self;
    int raw;
    unsigned long long rate, start_ticks;
    if (!PyArg_ParseTuple(arguments, "pKK", &raw, &rate, &start_ticks))
        return NULL;
    if (!laid_out || started)
        return refused(started ? "it is started already" : "its layout is not verified");
    if (rate < 1024 || rate > 1ull << 40) {
        PyErr_SetString(PyExc_ValueError, "a rate of 1 KiB to 1 TiB is expected");
        return NULL;
    }
    sample_rate = (double)rate;
    const char *why = table_make(raw ? 2 : 1, rate, start_ticks);
    if (why == NULL)
        why = hooks_put_in(raw);
    if (why != NULL) {
        table_clear();
        return refused(why);
    }
    started = sampling = true;
    return none();
}

/* attach(fd, start_ticks) -> None, or why not: the table of the process that calls, which was started then */
static PyObject *attach(PyObject *self, PyObject *arguments)
{
    (void)self;
    int fd;
    unsigned long long start_ticks;
    if (!PyArg_ParseTuple(arguments, "iK", &fd, &start_ticks))
        return NULL;
    return refused(table_attach(fd, start_ticks));
}

static PyObject *detach(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    table_detach();
    return none();
}

/* No more samples; blocks that are freed are still taken out. For the end of the process, when frames come apart. */
static PyObject *settle(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    sampling = false;
    return none();
}

static PyObject *stop(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    sampling = false;
    if (started)
        hooks_take_out();
    table_clear();
    started = false;
    return none();
}

/* check() -> whether all hooks are still reached. Where one is not, the table is marked and nothing more is sampled. */
static PyObject *check(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    if (!started || !sampling || hooks_reached() == 0)
        return PyBool_FromLong(1);
    sampling = false;
    table_say(1);
    return PyBool_FromLong(0);
}

static PyObject *status(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    struct table_status now;
    table_status(&now);
    return Py_BuildValue("{s:O,s:O,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "started", started ? Py_True : Py_False, "attached",
                         now.attached ? Py_True : Py_False, "samples", (unsigned long long)now.samples, "dropped",
                         (unsigned long long)now.dropped, "unseen_frees", (unsigned long long)now.unseen_frees, "blocks",
                         (unsigned long long)now.blocks, "sites", (unsigned long long)now.sites, "private_bytes",
                         (unsigned long long)now.private_bytes, "file_bytes", (unsigned long long)now.file_bytes);
}

/* probe_route(context, variable, hash, expected or None, many, code, flags) -> None, or what is not where it should be */
static PyObject *probe_route(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *context, *key, *expected, *code;
    unsigned int hash;
    int many, flags;
    if (!PyArg_ParseTuple(arguments, "OOIOpOi", &context, &key, &hash, &expected, &many, &code, &flags))
        return NULL;
    return refused(route_probe(context, key, hash, expected == Py_None ? NULL : expected, many, code, flags));
}

/* watch_route(variable, hash, callback's code) -> None, or why not */
static PyObject *watch_route(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *key, *code;
    unsigned int hash;
    if (!PyArg_ParseTuple(arguments, "OIO", &key, &hash, &code))
        return NULL;
    return refused(route_watch(key, hash, code));
}

/* opened(record, route): what is allocated in its context from now on is for a stream of this route */
static PyObject *opened(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *record, *route;
    if (!PyArg_ParseTuple(arguments, "OU", &record, &route))
        return NULL;
    /* Not by a format with "#": headers of CPython 3.13 make calls of it that 3.11 and 3.12 refuse. */
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(route, &bytes);
    if (text == NULL)
        return NULL;
    route_opened(record, text, bytes > ROUTE_BYTES ? ROUTE_BYTES + 1 : (uint32_t)bytes);
    return none();
}

static PyObject *closed(PyObject *self, PyObject *record)
{
    (void)self;
    route_closed(record);
    return none();
}

/* pymalloc_stats(FILE *) -> what _PyObject_DebugMallocStats returns */
static PyObject *pymalloc_stats(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long file;
    if (!PyArg_ParseTuple(arguments, "K", &file))
        return NULL;
    return PyLong_FromLong(hooks_pymalloc_stats((void *)(uintptr_t)file));
}

static PyMethodDef methods[] = {
    {"lay_out", lay_out, METH_VARARGS, NULL},
    {"start", start, METH_VARARGS, NULL},
    {"attach", attach, METH_VARARGS, NULL},
    {"detach", detach, METH_NOARGS, NULL},
    {"settle", settle, METH_NOARGS, NULL},
    {"stop", stop, METH_NOARGS, NULL},
    {"check", check, METH_NOARGS, NULL},
    {"status", status, METH_NOARGS, NULL},
    {"pymalloc_stats", pymalloc_stats, METH_VARARGS, NULL},
    {"probe_route", probe_route, METH_VARARGS, NULL},
    {"watch_route", watch_route, METH_VARARGS, NULL},
    {"opened", opened, METH_VARARGS, NULL},
    {"closed", closed, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_live", "The sampled live heap, in C.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__live(void)
{
    return PyModuleDef_Init(&definition);
}
