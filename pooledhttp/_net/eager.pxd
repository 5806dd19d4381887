"""Asking again before sleeping. See eager.pyx."""

cdef int eager_begin() noexcept nogil            # a thread is about to wait for bytes; how many do, itself counted
cdef void eager_end() noexcept nogil
# >= 1 bytes, ST_EOF, ST_IO, or ST_AGAIN: sleep. `threads`: what eager_begin said; `credit`: the connection's own, 0 to begin with.
cdef ssize_t eager_recv(int fd, char* p, size_t n, int threads, int* credit, int* err) noexcept nogil
