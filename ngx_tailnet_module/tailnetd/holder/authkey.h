/*
 * authkey.h: where a node's auth key comes from.
 *
 * The holder opens the source at every login anew and reads nothing of it but
 * a variable of its own environment; the engine gets the descriptor.
 */
#ifndef AUTHKEY_H
#define AUTHKEY_H

#include "../../core/tn_node.h"

/*
 * authkey_open(source, secret, err): "file:PATH", "env:NAME" (a copy of the
 * memory file ${secret}, or, if that is -1, of tailnetd's own environment),
 * "credential:NAME" (systemd's) or "exec:COMMAND" (by sh -c; its output is the
 * key, and it is killed when nobody reads that any more).  Returns a file or a
 * pipe, or -1 and a sentence.
 */
int authkey_open(const char *source, int secret, char err[TN_ERR_MAX]);

#endif
