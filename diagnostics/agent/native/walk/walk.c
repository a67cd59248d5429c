/* `_walk`: the steps that a walk over all objects takes for each of them. readings/walk/in_python.py does the same, where this
   was not built; a test compares the two.

   Objects are told apart by their addresses and their classes' addresses. Nothing is called on any of them, not even a hash. */

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <Python.h>

/* A new reference to None, made by the interpreter that runs (live/module.c says why). */
static PyObject *none(void)
{
    return Py_BuildValue("");
}

/* Addresses and a number for each, in a table whose length is a power of two. An address of 0 is a free place. */
struct entry {
    uintptr_t address;
    uint64_t number;
};
struct table {
    struct entry *entries;
    size_t mask, used;
};

static inline size_t place_of(const struct table *table, uintptr_t address)
{
    size_t at = (size_t)((address >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20) & table->mask;
    while (table->entries[at].address != 0 && table->entries[at].address != address)
        at = (at + 1) & table->mask;
    return at;
}

static bool make(struct table *table, size_t length)
{
    table->entries = calloc(length, sizeof *table->entries);
    table->mask = length - 1;
    table->used = 0;
    return table->entries != NULL;
}

static bool grow(struct table *table)
{
    struct table larger;
    if (!make(&larger, 2 * (table->mask + 1)))
        return false;
    for (size_t at = 0; at <= table->mask; at++)
        if (table->entries[at].address != 0)
            larger.entries[place_of(&larger, table->entries[at].address)] = table->entries[at];
    larger.used = table->used;
    free(table->entries);
    *table = larger;
    return true;
}

/* 1: added, 0: it is there, -1: no memory, with an exception. */
static int add(struct table *table, uintptr_t address, uint64_t number)
{
    size_t at = place_of(table, address);
    if (address == 0 || table->entries[at].address != 0)
        return 0;
    table->entries[at] = (struct entry){address, number};
    if (++table->used * 2 <= table->mask || grow(table))
        return 1;
    PyErr_NoMemory();
    return -1;
}

static inline bool has(const struct table *table, uintptr_t address)
{
    return table->entries[place_of(table, address)].address != 0;
}

/* A table of the classes in a frozenset. */
static bool of_classes(struct table *table, PyObject *classes)
{
    PyObject *them = PySequence_List(classes);
    size_t length = 16;
    if (them == NULL)
        return false;
    Py_ssize_t count = PyList_Size(them);
    while (length < 4 * (size_t)count)
        length *= 2;
    if (!make(table, length)) {
        Py_DECREF(them);
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t at = 0; at < count; at++)
        add(table, (uintptr_t)PyList_GetItem(them, at), 0);
    Py_DECREF(them);
    return true;
}

/* kinds(things) -> a list of their classes, each once */
static PyObject *kinds(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *things;
    struct table table;
    if (!PyArg_ParseTuple(arguments, "O!", &PyList_Type, &things))
        return NULL;
    PyObject *found = PyList_New(0);
    if (found == NULL || !make(&table, 64)) {
        Py_XDECREF(found);
        return PyErr_NoMemory();
    }
    PyTypeObject *last = NULL;
    for (Py_ssize_t at = 0, count = PyList_Size(things); at < count; at++) {
        PyTypeObject *kind = Py_TYPE(PyList_GetItem(things, at));
        if (kind == last)
            continue;
        last = kind;
        int added = add(&table, (uintptr_t)kind, 0);
        if (added < 0 || (added && PyList_Append(found, (PyObject *)kind) < 0)) {
            Py_CLEAR(found);
            break;
        }
    }
    free(table.entries);
    return found;
}

/* of_kinds(things, kinds) -> those of the list whose class is one of these */
static PyObject *of_kinds(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *things, *classes;
    struct table table;
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyList_Type, &things, &PyFrozenSet_Type, &classes) || !of_classes(&table, classes))
        return NULL;
    PyObject *found = PyList_New(0);
    PyTypeObject *last = NULL;
    bool meant = false;
    for (Py_ssize_t at = 0, count = PyList_Size(things); found != NULL && at < count; at++) {
        PyObject *thing = PyList_GetItem(things, at);
        if (Py_TYPE(thing) != last) {
            last = Py_TYPE(thing);
            meant = has(&table, (uintptr_t)last);
        }
        if (meant && PyList_Append(found, thing) < 0)
            Py_CLEAR(found);
    }
    free(table.entries);
    return found;
}

/* drawn(things, numbers, parts) -> those whose address is in the sample. `numbers`: 8 times 256 bytes, see readings/walk/in_python.py */
static PyObject *drawn(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *things, *tables;
    int parts;
    if (!PyArg_ParseTuple(arguments, "O!Si", &PyList_Type, &things, &tables, &parts))
        return NULL;
    if (PyBytes_Size(tables) != 8 * 256) {
        PyErr_SetString(PyExc_ValueError, "eight tables of 256 numbers are expected");
        return NULL;
    }
    const unsigned char *numbers = (const unsigned char *)PyBytes_AsString(tables);
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0, count = PyList_Size(things); found != NULL && at < count; at++) {
        PyObject *thing = PyList_GetItem(things, at);
        uintptr_t address = (uintptr_t)thing;
        unsigned number = 0;
        for (int place = 0; place < 8; place++)
            number ^= numbers[256 * place + (address >> 8 * place & 255)];
        if ((int)number < parts && PyList_Append(found, thing) < 0)
            Py_CLEAR(found);
    }
    return found;
}

/* Addresses: see readings/walk/in_python.py */
typedef struct {
    PyObject_HEAD
    struct table table;
} Addresses;

static PyObject *addresses_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    (void)arguments, (void)named;
    allocfunc allocate;
    *(void **)&allocate = PyType_GetSlot(type, Py_tp_alloc);
    Addresses *self = (Addresses *)allocate(type, 0);
    if (self == NULL || make(&self->table, 1024))
        return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_NoMemory();
}

static void addresses_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release;
    free(((Addresses *)self)->table.entries);
    *(void **)&release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyTypeObject *addresses_type;

/* fresh(things, number=0, but=None) -> those that are in neither this nor `but`, each once; they are added, with the number */
static PyObject *addresses_fresh(PyObject *self, PyObject *arguments)
{
    PyObject *things, *but = NULL;
    unsigned long long number = 0;
    if (!PyArg_ParseTuple(arguments, "O!|KO", &PyList_Type, &things, &number, &but))
        return NULL;
    if (but != NULL && Py_TYPE(but) != addresses_type)
        but = NULL;
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0, count = PyList_Size(things); found != NULL && at < count; at++) {
        PyObject *thing = PyList_GetItem(things, at);
        if (but != NULL && has(&((Addresses *)but)->table, (uintptr_t)thing))
            continue;
        int added = add(&((Addresses *)self)->table, (uintptr_t)thing, number);
        if (added < 0 || (added && PyList_Append(found, thing) < 0))
            Py_CLEAR(found);
    }
    return found;
}

/* among(things) -> those that are in this, each as often as it is in the list */
static PyObject *addresses_among(PyObject *self, PyObject *arguments)
{
    PyObject *things;
    if (!PyArg_ParseTuple(arguments, "O!", &PyList_Type, &things))
        return NULL;
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0, count = PyList_Size(things); found != NULL && at < count; at++) {
        PyObject *thing = PyList_GetItem(things, at);
        if (has(&((Addresses *)self)->table, (uintptr_t)thing) && PyList_Append(found, thing) < 0)
            Py_CLEAR(found);
    }
    return found;
}

/* add(addresses): with the number 0 */
static PyObject *addresses_add(PyObject *self, PyObject *addresses)
{
    PyObject *each, *them = PyObject_GetIter(addresses);
    if (them == NULL)
        return NULL;
    while ((each = PyIter_Next(them)) != NULL) {
        unsigned long long address = PyLong_AsUnsignedLongLong(each);
        Py_DECREF(each);
        if (PyErr_Occurred() || add(&((Addresses *)self)->table, (uintptr_t)address, 0) < 0)
            break;
    }
    Py_DECREF(them);
    return PyErr_Occurred() ? NULL : none();
}

static PyObject *addresses_number(PyObject *self, PyObject *address)
{
    unsigned long long wanted = PyLong_AsUnsignedLongLong(address);
    if (PyErr_Occurred())
        return NULL;
    const struct table *table = &((Addresses *)self)->table;
    const struct entry *entry = &table->entries[place_of(table, (uintptr_t)wanted)];
    return entry->address ? PyLong_FromUnsignedLongLong(entry->number) : none();
}

static int addresses_contains(PyObject *self, PyObject *address)
{
    unsigned long long wanted = PyLong_AsUnsignedLongLong(address);
    return PyErr_Occurred() ? -1 : has(&((Addresses *)self)->table, (uintptr_t)wanted);
}

static Py_ssize_t addresses_length(PyObject *self)
{
    return (Py_ssize_t)((Addresses *)self)->table.used;
}

static PyMethodDef addresses_methods[] = {
    {"fresh", addresses_fresh, METH_VARARGS, NULL},
    {"add", addresses_add, METH_O, NULL},
    {"among", addresses_among, METH_VARARGS, NULL},
    {"number", addresses_number, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot addresses_slots[] = {
    {Py_tp_new, addresses_new},
    {Py_tp_dealloc, addresses_free},
    {Py_tp_methods, addresses_methods},
    {Py_sq_contains, addresses_contains},
    {Py_sq_length, addresses_length},
    {0, NULL},
};

static PyType_Spec addresses_spec = {"_walk.Addresses", sizeof(Addresses), 0, Py_TPFLAGS_DEFAULT, addresses_slots};

static PyMethodDef functions[] = {
    {"kinds", kinds, METH_VARARGS, NULL},
    {"of_kinds", of_kinds, METH_VARARGS, NULL},
    {"drawn", drawn, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_walk", NULL, -1, functions, NULL, NULL, NULL, NULL};

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__walk(void);

PyMODINIT_FUNC PyInit__walk(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    addresses_type = (PyTypeObject *)PyType_FromSpec(&addresses_spec);
    if (addresses_type == NULL || PyModule_AddObjectRef(module, "Addresses", (PyObject *)addresses_type) < 0)
        Py_CLEAR(module);
    return module;
}
