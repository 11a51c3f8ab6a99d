/* The Python module _native: the paths with their functions and types, and the shapes that have a kernel.
 *
 *   paths             (name, supported, preferred, type of the products, functions), the best first; see targets.h
 *     functions       name -> (address, result, (parameter ...)), each type (element, pointer, constant, optional);
 *                     empty where the path is not supported
 *   channels, kernel_sizes, stem_channels         see shapes.h
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "shapes.h"
#include "table.h"
#include "targets.h"

namespace {

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

PyObject *described(const Path &path) {
  const bool supported = path.supported();
  return Py_BuildValue("(sNNsN)", path.name, PyBool_FromLong(supported), PyBool_FromLong(path.preferred()),
                       path.bfloat16_products ? "bfloat16" : "float32",
                       described(supported ? path.functions() : FunctionTable{nullptr, 0}));
}

PyObject *described(PathList list) {
  PyObject *paths = PyTuple_New(list.count);
  for (int i = 0; paths && i < list.count; i++) PyTuple_SET_ITEM(paths, i, described(list.paths[i]));
  return paths;
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
      !(add(module, "paths", described(all_paths())) && add(module, "channels", described(Channels{})) &&
        add(module, "kernel_sizes", described(KernelSizes{})) &&
        add(module, "stem_channels", described(StemChannels{}))))
    Py_CLEAR(module);
  return module;
}
