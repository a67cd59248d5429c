/* Notes, under callgrind, each Python frame that is entered and left, with the instructions executed until then.
 *
 * Callgrind sees C functions, and a Python function is none: to it all of a service is the interpreter's loop. This library puts a
 * function around the evaluation of each frame (PEP 523), which writes the frame's file and name into valgrind's log and has
 * callgrind write its counter behind it. Both are client requests: valgrind does them itself, so they count nothing. What the
 * function adds of its own, and that a frame cannot be entered without a C call, is the same for each frame; the reader
 * takes it off (parts.py). A profile function (sys.setprofile) would also have every bytecode run unspecialised.
 *
 * frames_install() puts it there; SIGNAL switches the notes on and off, and is noted itself.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE_MODULE 1 /* Before 3.12 a frame's code is told by this header alone. */
#include <Python.h>
#if PY_VERSION_HEX < 0x030C0000
#include <internal/pycore_frame.h>
#define CODE_OF(frame) ((PyCodeObject *)Py_NewRef((frame)->f_code))
#else
#define CODE_OF(frame) ((PyCodeObject *)PyUnstable_InterpreterFrame_GetCode(frame))
#endif
#include <signal.h>
#include <valgrind/valgrind.h>

static volatile sig_atomic_t noting;

static void
counter(void)
{
    (void)VALGRIND_MONITOR_COMMAND("status internal");
}

static PyObject *
evaluate(PyThreadState *thread, struct _PyInterpreterFrame *frame, int throwing)
{
    if (!noting) {
        return _PyEval_EvalFrameDefault(thread, frame, throwing);
    }
    PyCodeObject *code = CODE_OF(frame);
    VALGRIND_PRINTF("enter\t%s\t%s\n", PyUnicode_AsUTF8(code->co_filename), PyUnicode_AsUTF8(code->co_qualname));
    Py_DECREF(code);
    counter();
    PyObject *result = _PyEval_EvalFrameDefault(thread, frame, throwing);
    VALGRIND_PRINTF("leave\n");
    counter();
    return result;
}

static void
switched(int signal)
{
    (void)signal;
    noting = !noting;
    VALGRIND_PRINTF(noting ? "on\n" : "off\n");
    counter();
}

int
frames_install(int signal)
{
    struct sigaction action = {.sa_handler = switched, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate);
    return sigaction(signal, &action, NULL);
}
