/* The Python module _native: the functions for this CPU with their types, and the shapes that have a kernel.
 *
 *   functions         name -> (address, result, (parameter ...)), each type (element, pointer, constant, optional);
 *                     empty where this CPU has none
 *   channels, kernel_sizes, stem_channels         see shapes.h
 *   fast_bfloat16     whether a product of two bfloat16 pairs is faster than two products of floats
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "shapes.h"
#include "table.h"
#include "targets.h"

namespace {

FunctionTable functions_for_this_cpu() {
#ifdef COMMITTEE_AVX512
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16"))
    return avx512_functions();
#endif
  return {nullptr, 0};
}

/* On AMD's CPUs it is (Zen 4), on a Xeon (Emerald Rapids) not. It is not measured here, so that bits depend on no
 * clock. */
bool fast_bfloat16() {
#ifdef COMMITTEE_AVX512
  __builtin_cpu_init();
  return !__builtin_cpu_is("intel");
#else
  return false;
#endif
}

PyObject *described(const Type &type) {
  return Py_BuildValue("(sNNN)", type.element, PyBool_FromLong(type.pointer), PyBool_FromLong(type.constant),
                       PyBool_FromLong(type.optional));
}

PyObject *described(const Function &function) {
  PyObject *parameters = PyTuple_New(function.parameter_count);
  for (int i = 0; parameters && i < function.parameter_count; i++)
    PyTuple_SET_ITEM(parameters, i, described(function.parameters[i]));
  return Py_BuildValue("(NNN)", PyLong_FromVoidPtr(reinterpret_cast<void *>(function.address)),
                       described(function.result), parameters);
}

PyObject *described(FunctionTable table) {
  PyObject *functions = PyDict_New();
  for (int i = 0; functions && i < table.count; i++) {
    PyObject *entry = described(table.functions[i]);
    if (!entry || PyDict_SetItemString(functions, table.functions[i].name, entry) < 0) Py_CLEAR(functions);
    Py_XDECREF(entry);
  }
  return functions;
}

template <int... Values> PyObject *described(List<Values...>) {
  PyObject *values = PyTuple_New(sizeof...(Values));
  Py_ssize_t at = 0;
  if (values) (PyTuple_SET_ITEM(values, at++, PyLong_FromLong(Values)), ...);
  return values;
}

/* Adds a value, whose reference it takes; false if it is missing. */
bool add(PyObject *module, const char *name, PyObject *value) {
  const bool added = value && PyModule_AddObjectRef(module, name, value) == 0;
  Py_XDECREF(value);
  return added;
}

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit__native() {
  PyObject *module = PyModule_Create(&definition);
  if (module &&
      !(add(module, "functions", described(functions_for_this_cpu())) &&
        add(module, "channels", described(Channels{})) && add(module, "kernel_sizes", described(KernelSizes{})) &&
        add(module, "stem_channels", described(StemChannels{})) &&
        add(module, "fast_bfloat16", PyBool_FromLong(fast_bfloat16()))))
    Py_CLEAR(module);
  return module;
}
