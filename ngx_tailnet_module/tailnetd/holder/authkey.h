/*
 * authkey.h: where a node's auth key comes from.
 *
 * The holder opens the source at every login anew and reads nothing of it but
 * an environment variable; the engine gets the descriptor.
 */
#ifndef AUTHKEY_H
#define AUTHKEY_H

#include "../../core/tn_node.h"

/*
 * authkey_open(source, err): "file:PATH", "env:NAME" (of tailnetd's
 * environment), "credential:NAME" (systemd's) or "exec:COMMAND" (by sh -c; its
 * output is the key).  Returns a file or a pipe, or -1 and a sentence.
 */
int authkey_open(const char *source, char err[TN_ERR_MAX]);

#endif
