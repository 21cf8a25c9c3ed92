/*
 * map_follow.h: the netmap that follows a tailnet's state, and what of the
 * state is not in it yet.
 */
#ifndef MAP_FOLLOW_H
#define MAP_FOLLOW_H

#include "map_inside.h"

/*
 * map_follow_note(s, slot): its whereabouts are others.  map_follow_anew(s,
 * slot): its row begins or ceases to be shown, or will be shown as another;
 * called while it is as it was, or has become what it is to be.  There is room
 * for both.
 */
void map_follow_note(struct map_state *s, uint32_t slot);
void map_follow_anew(struct map_state *s, uint32_t slot);

/* The user at ${index} is new, and those behind it moved; or ${had}: it has
 * another profile, and there is room for that. */
void map_follow_user(struct map_state *s, size_t index, bool had);

/* Rows that a netmap, of ${n} now, has room for. */
uint32_t map_follow_room(size_t n);

/*
 * map_follow_routes(s, row, settings): leaves of the copied row's allowed_ips
 * what the settings let through: a list of its own, if that is not all.
 * Returns 0, or -1: no memory.
 */
int map_follow_routes(const struct map_state *s, struct netmap_node *row,
    const struct map_settings *settings);

#endif
