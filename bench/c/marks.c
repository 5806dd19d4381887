/* A module for Python: what callgrind counts lies between begin() and end(name), which writes it down under that name.
   Without valgrind both do nothing. */
#include <Python.h>
#include <valgrind/callgrind.h>

static PyObject *begin(PyObject *module, PyObject *nothing)
{
    (void)module, (void)nothing;
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    Py_RETURN_NONE;
}

static PyObject *end(PyObject *module, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    (void)module;
    if (text == NULL)
        return NULL;
    CALLGRIND_DUMP_STATS_AT(text);
    CALLGRIND_STOP_INSTRUMENTATION;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"begin", begin, METH_NOARGS, NULL}, {"end", end, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "marks", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_marks(void)
{
    return PyModule_Create(&definition);
}
