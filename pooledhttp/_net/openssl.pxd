"""OpenSSL's record layer under an `ssl.SSLObject`, called without the GIL. See openssl.pyx."""


cdef struct Direct:
    void* ssl                  # NULL: not to be had; the caller goes by way of `ssl`
    void* rbio
    void* wbio
    unsigned long err          # OpenSSL's error code behind the last ST_TLS
    unsigned lane              # of `direct_enter`'s count


cdef bint direct_open(object sslobj, Direct* d) except -1     # sslobj: an ssl.SSLObject over two memory BIOs
cdef bint direct_enter(Direct* d) noexcept nogil        # before any call of those below; False: the interpreter ends, call them with the GIL
cdef void direct_leave(Direct* d) noexcept nogil        # after it, where it was True
cdef ssize_t direct_read(Direct* d, char* p, size_t n) noexcept nogil           # >= 1 bytes, ST_AGAIN, ST_EOF (close_notify), ST_TLS
cdef ssize_t direct_write(Direct* d, const char* p, size_t n) noexcept nogil    # >= 1 bytes, ST_AGAIN (it wants to read first), ST_TLS
cdef bint direct_feed(Direct* d, const char* p, size_t n) noexcept nogil        # ciphertext in, all of it; False: memory is out
cdef size_t direct_fed(Direct* d) noexcept nogil                                # ciphertext not yet read
cdef size_t direct_made(Direct* d) noexcept nogil                               # ciphertext not yet taken
cdef size_t direct_peek(Direct* d, char** p) noexcept nogil                     # that ciphertext, where it lies until the next write
cdef void direct_drop(Direct* d, size_t n) noexcept nogil                       # so many bytes of it are taken
cdef bint direct_more(Direct* d) noexcept nogil                                 # plaintext of a record already decrypted is left
cdef object direct_error(Direct* d)                                             # the ssl.SSLError for `err`
cdef void shake_enter() noexcept nogil                  # before a handshake's step by `ssl`: waits for a fork, and a fork for it
cdef void shake_leave() noexcept nogil
