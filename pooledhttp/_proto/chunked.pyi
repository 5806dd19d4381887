# Nothing for Python: used by cimport alone.
