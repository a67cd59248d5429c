/* `_figures`: what the allocators of this process say of themselves. It does what malloc.py and allocators.py can do by ctypes,
   which is a quarter of a MiB of the service's own memory; they do it by ctypes where this was not built. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <Python.h>

/* glibc's struct mallinfo2 (malloc.h), which a C library of the build's machine may not have. */
struct mallinfo2_fields {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

/* The file that an address lies in. Where that is the program itself, and the symbol is not defined there, `elsewhere` is set:
   in a program that is not position-independent (Debian's Python) a symbol resolves to the program's PLT entry. */
static bool file_at(void *address, char *path, bool *elsewhere)
{
    Dl_info info;
    struct link_map *map = NULL;
    *elsewhere = false;
    if (address == NULL || !dladdr(address, &info) || info.dli_fname == NULL)
        return false;
#ifdef __GLIBC__
    const ElfW(Sym) *symbol = NULL;
    if (dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) && map != NULL && map->l_name[0] == '\0') {
        *elsewhere = dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) && symbol != NULL && symbol->st_shndx == SHN_UNDEF;
        return realpath("/proc/self/exe", path) != NULL;
    }
#else
    (void)map;
#endif
    return realpath(info.dli_fname, path) != NULL;
}

/* The path of the library that defines a symbol: of the first in load order that does. */
static bool library_of(const char *name, char *path)
{
    bool elsewhere;
    if (!file_at(dlsym(RTLD_DEFAULT, name), path, &elsewhere))
        return false;
    if (!elsewhere)
        return true;
    void *program = dlopen(NULL, RTLD_LAZY);
    struct link_map *map = NULL;
    bool found = false;
    if (program != NULL && dlinfo(program, RTLD_DI_LINKMAP, &map) == 0) {
        for (; map != NULL && !found; map = map->l_next) {
            char own[PATH_MAX];
            void *library = map->l_name[0] == '/' ? dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
            if (library == NULL)
                continue;
            /* dlsym looks into the library's dependencies, too: what it finds must lie in the library itself. */
            found = realpath(map->l_name, own) != NULL && file_at(dlsym(library, name), path, &elsewhere) && strcmp(own, path) == 0;
            dlclose(library);
        }
    }
    if (program != NULL)
        dlclose(program);
    return found;
}

/* serves(symbol) -> the path of the library that defines it; "" where there is none */
static PyObject *serves(PyObject *self, PyObject *arguments)
{
    (void)self;
    const char *name;
    char path[PATH_MAX];
    if (!PyArg_ParseTuple(arguments, "s", &name))
        return NULL;
    return PyUnicode_DecodeFSDefault(library_of(name, path) ? path : "");
}

/* mallinfo2() -> (uordblks, fordblks, hblkhd) over all arenas of glibc, or () before 2.33 */
static PyObject *mallinfo2(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    struct mallinfo2_fields (*ask)(void), now;
    *(void **)&ask = dlsym(RTLD_DEFAULT, "mallinfo2");
    if (ask == NULL)
        return PyTuple_New(0);
    Py_BEGIN_ALLOW_THREADS
    now = ask();
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(KKK)", (unsigned long long)now.uordblks, (unsigned long long)now.fordblks, (unsigned long long)now.hblkhd);
}

/* pymalloc(print) -> its statistics, a text; "" where pymalloc does not serve small objects. `print`, unless None, is called with
   the FILE's address and prints them, and returns what _PyObject_DebugMallocStats does, or -1 where it has not. */
static PyObject *pymalloc(PyObject *self, PyObject *print)
{
    (void)self;
    int (*print_stats)(FILE *);
    *(void **)&print_stats = dlsym(RTLD_DEFAULT, "_PyObject_DebugMallocStats");
    char *text = NULL;
    size_t size = 0;
    FILE *stream = print_stats == NULL ? NULL : open_memstream(&text, &size);
    if (stream == NULL)
        return PyUnicode_FromString("");
    long in_charge = -1;
    PyObject *said = PyCallable_Check(print) ? PyObject_CallFunction(print, "K", (unsigned long long)(uintptr_t)stream) : NULL;
    if (said != NULL) {
        in_charge = PyLong_AsLong(said);
        Py_DecRef(said);
    }
    if (in_charge < 0 && !PyErr_Occurred())
        in_charge = print_stats(stream);
    PyObject *answer = NULL;
    if (fclose(stream) == 0 && !PyErr_Occurred())
        answer = PyUnicode_DecodeLatin1(text, in_charge > 0 ? (Py_ssize_t)size : 0, NULL);
    else if (!PyErr_Occurred())
        PyErr_NoMemory();
    free(text);
    return answer;
}

/* unmap(address, bytes): munmap(2), for the page that the attaching process has mapped */
static PyObject *unmap(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long address, bytes;
    if (!PyArg_ParseTuple(arguments, "KK", &address, &bytes))
        return NULL;
    if (munmap((void *)(uintptr_t)address, (size_t)bytes) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_INCREF(Py_None);
    return Py_None;
}

/* trim(): malloc_trim(3) of glibc, which gives free pages of all its arenas back; without effect elsewhere */
static PyObject *trim(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    int (*give_back)(size_t);
    *(void **)&give_back = dlsym(RTLD_DEFAULT, "malloc_trim");
    if (give_back != NULL) {
        Py_BEGIN_ALLOW_THREADS
        give_back(0);
        Py_END_ALLOW_THREADS
    }
    Py_INCREF(Py_None);
    return Py_None;
}

static PyMethodDef functions[] = {
    {"serves", serves, METH_VARARGS, NULL},
    {"mallinfo2", mallinfo2, METH_NOARGS, NULL},
    {"pymalloc", pymalloc, METH_O, NULL},
    {"unmap", unmap, METH_VARARGS, NULL},
    {"trim", trim, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_figures", NULL, 0, functions, NULL, NULL, NULL, NULL};

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__figures(void);

PyMODINIT_FUNC PyInit__figures(void)
{
    return PyModule_Create(&definition);
}
