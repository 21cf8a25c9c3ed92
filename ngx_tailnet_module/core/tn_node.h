/*
 * tn_node.h: the node table, one grammar for nginx.conf and "tailnetd -c".
 *
 *   tailnet_node NAME {
 *       netmap       FILE;
 *       private_key  file:PATH | PATH;
 *       preshared_keys PATH;
 *       port         41641;
 *       mtu          1280;
 *   }
 *
 * or, for a node that a control server admits to its tailnet,
 *
 *   tailnet_node NAME {
 *       control_url  URL;                   # without: Tailscale's service
 *       auth_key     file:PATH | env:NAME | credential:NAME | exec:COMMAND;
 *       state        DIRECTORY;             # not needed by "ephemeral on"
 *       hostname     HOST;                  # without: NAME
 *       tags         tag:A tag:B ...;
 *       ephemeral    on | off;
 *       accept_routes on | off;
 *       advertise_routes PREFIX ...;
 *       exit_node    PEER | ADDRESS;
 *       control_ca   FILE;
 *       endpoints    ADDRESS:PORT ...;
 *       capability_version 131;
 *       port, mtu    as above
 *   }
 *
 * nginx reads its own blocks with ngx_conf_parse() and calls tn_node_set() for
 * each line, so that a mistake has nginx's file and line; tn_node_write() then
 * makes the text that travels to tailnetd, which reads it, like a file of
 * "tailnetd -c", with tn_node_parse().
 */
#ifndef TN_NODE_H
#define TN_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TN_NODE_NAME_MAX      63 /* [a-z0-9-], a DNS label */
#define TN_NODE_PATH_MAX      1023
#define TN_NODES_MAX          64
#define TN_TABLE_MAX          65536 /* bytes of a table's text */
#define TN_ERR_MAX            512
#define TN_NODE_URL_MAX       255
#define TN_NODE_ENDPOINTS_MAX 16
#define TN_NODE_TAGS_MAX      1023 /* bytes of all tags, or routes, with spaces */

#define TN_CONTROL_URL    "https://controlplane.tailscale.com"
#define TN_CAPABILITY_MIN 68  /* below, servers expect another protocol */
#define TN_CAPABILITY     131 /* what is used without the option */

#define TN_MTU_DEFAULT 1280
#define TN_MTU_MIN     1280
#define TN_MTU_MAX     9000

struct tn_node {
    char name[TN_NODE_NAME_MAX + 1];
    char netmap[TN_NODE_PATH_MAX + 1];         /* absolute */
    char private_key[TN_NODE_PATH_MAX + 1];    /* absolute, "file:" cut */
    char preshared_keys[TN_NODE_PATH_MAX + 1]; /* "" : none */
    char control_url[TN_NODE_URL_MAX + 1];
    char auth_key[TN_NODE_PATH_MAX + 1]; /* with its scheme; "": none */
    char state[TN_NODE_PATH_MAX + 1];    /* absolute; "": memory only */
    char hostname[TN_NODE_NAME_MAX + 1]; /* "": the name */
    char tags[TN_NODE_TAGS_MAX + 1];     /* with spaces between */
    char routes[TN_NODE_TAGS_MAX + 1];   /* advertised, in the same way */
    char exit_node[TN_NODE_URL_MAX + 1];
    char control_ca[TN_NODE_PATH_MAX + 1]; /* absolute; "": the system's */
    char endpoints[TN_NODE_TAGS_MAX + 1];  /* told to peers, as they are */
    uint16_t capability;                   /* 0: TN_CAPABILITY */
    bool ephemeral;
    bool accept_routes;
    uint16_t port;  /* UDP; 0: any, kept over engine restarts */
    uint16_t mtu;   /* of mesh0 */
    uint32_t given; /* options set so far, for tn_node_set() only */
};

/* True for a node name: one DNS label in lower case (RFC 1123 section 2.1). */
bool tn_node_name_valid(const char *name, size_t len);

/* tn_node_init(n, name, len, err): defaults and the name.  Returns 0, or -1
 * and a sentence in ${err}. */
int tn_node_init(
    struct tn_node *n, const char *name, size_t len, char err[TN_ERR_MAX]);

/*
 * tn_node_set(n, argv, argc, prefix, err): one option, argv[0] its name.  A
 * relative path is put behind ${prefix} ("" or absolute and ending in "/").
 * Refuses unknown options, wrong counts, a second value, and paths that are
 * not absolute then.  Returns 0, or -1 and a sentence that names the option.
 */
int tn_node_set(struct tn_node *n, const char *const argv[], size_t argc,
    const char *prefix, char err[TN_ERR_MAX]);

/* True for a node that joins a tailnet by a control server: it has no netmap
 * file, but an option of its own kind. */
bool tn_node_joins(const struct tn_node *n);

/* The control server's URL and the host name it has; borrowed. */
const char *tn_node_control_url(const struct tn_node *n);
const char *tn_node_hostname(const struct tn_node *n);

/*
 * tn_node_check(nodes, n, err): what one block alone cannot know: every node
 * has netmap and private_key, or joins and has state or is ephemeral; no option
 * is of the other kind; no two share a name, a private_key, a state or a port
 * other than 0.  Returns the index of the node at fault, or -1: all well.
 */
int tn_node_check(const struct tn_node *nodes, size_t n, char err[TN_ERR_MAX]);

/*
 * tn_node_parse(text, len, prefix, nodes, max, err, line): a whole table:
 * blocks as above, "#" comments, quotes and backslashes as nginx has them.
 * Returns the number of nodes (checked), or -1, a sentence in ${err} and the
 * line in ${*line}.
 */
int tn_node_parse(const char *text, size_t len, const char *prefix,
    struct tn_node *nodes, size_t max, char err[TN_ERR_MAX], unsigned *line);

/* Text of a table for tn_node_parse(), no NUL; returns its length, or 0: more
 * than ${size}.  An empty table is one newline. */
size_t tn_node_write(
    const struct tn_node *nodes, size_t n, char *buf, size_t size);

#endif
