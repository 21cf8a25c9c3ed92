/*
 * hex.h: hexadecimal digits of what is no secret; keys are keytext's.
 */
#ifndef HEX_H
#define HEX_H

/* hex_digit(c): its value, in either case, or -1. */
static inline int
hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

#endif
