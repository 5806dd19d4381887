"""What goes into a request's head, checked: nothing here can split or smuggle one (RFC 9110 section 5, RFC 9112 section 3)."""

cpdef bytes field_block(object pairs)
cpdef bytes check_method(object method)
cpdef bytes check_target(bytes target)
