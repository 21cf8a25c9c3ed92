/*
 * engine.h: the engine process: nodes, netmaps and WireGuard.
 *
 * It owns the node keys and the encrypted transport.  It is started by the
 * holder with the descriptors of ipc.h and speaks only with that; it outlives
 * a dead holder and waits for the next one to come through the bequest.
 */
#ifndef ENGINE_H
#define ENGINE_H

struct control_timing;
struct wg_timing;

/*
 * engine_main(timing): runs until the holder lets it end; the process' exit
 * code.  ${timing}: "name=milliseconds,…" of the two structs below for tests,
 * NULL: none differs from what it is.
 */
int engine_main(const char *timing);

/* The timing that nodes run with. */
const struct wg_timing *engine_timing(void);
const struct control_timing *engine_control_timing(void);

#endif
