/* links: core/tn_node.c core/tn_addr.c */
/* max_len: 4096 */
/*
 * A node table of any bytes: what is accepted has values in range, and the
 * text written of it says the same.
 */
#include "../../ngx_tailnet_module/core/tn_node.h"
#include "fuzz.h"

#define MAX 8

/* Empty, or absolute. */
static bool
path(const char *s)
{
    return s[0] == '\0' || (s[0] == '/' && strlen(s) <= TN_NODE_PATH_MAX);
}

static void
check(const struct tn_node *nodes, size_t n)
{
    char err[TN_ERR_MAX];
    size_t i;

    for (i = 0; i < n; i++) {
        FUZZ_MUST(tn_node_name_valid(nodes[i].name, strlen(nodes[i].name)));
        FUZZ_MUST(path(nodes[i].netmap) && path(nodes[i].private_key));
        FUZZ_MUST(path(nodes[i].preshared_keys));
        FUZZ_MUST(nodes[i].mtu >= TN_MTU_MIN && nodes[i].mtu <= TN_MTU_MAX);
    }
    FUZZ_MUST(tn_node_check(nodes, n, err) == -1);
}

static void
check_again(const struct tn_node *nodes, size_t n)
{
    static struct tn_node again[MAX];
    char *text = malloc(TN_TABLE_MAX), *copy, err[TN_ERR_MAX];
    unsigned line = 0;
    size_t len, i;

    FUZZ_MUST(text != NULL);
    memset(again, 0, sizeof(again));
    len = tn_node_write(nodes, n, text, TN_TABLE_MAX);
    FUZZ_MUST(len > 0);
    copy = fuzz_copy(text, len);
    FUZZ_MUST(tn_node_parse(copy, len, "", again, MAX, err, &line) == (int)n);
    for (i = 0; i < n; i++) {
        again[i].given = nodes[i].given;
        FUZZ_MUST(memcmp(&nodes[i], &again[i], sizeof(again[i])) == 0);
    }
    free(copy);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const prefixes[] = {"", "/", "/etc/nginx/"};
    static struct tn_node nodes[MAX];
    struct fuzz_input in = {data, size};
    unsigned lines = 1, line = 0;
    const char *prefix = prefixes[fuzz_u8(&in) % 3];
    char *text = fuzz_copy(in.p, in.len), err[TN_ERR_MAX];
    size_t i;
    int n;

    for (i = 0; i < in.len; i++)
        lines += text[i] == '\n';
    memset(nodes, 0, sizeof(nodes));
    memset(err, 0x5a, sizeof(err));
    n = tn_node_parse(text, in.len, prefix, nodes, MAX, err, &line);
    if (n < 0) {
        FUZZ_MUST(memchr(err, '\0', sizeof(err)) != NULL && err[0] != '\0');
        FUZZ_MUST(line <= lines);
    } else {
        FUZZ_MUST(n <= MAX);
        check(nodes, (size_t)n);
        check_again(nodes, (size_t)n);
    }
    free(text);
    return 0;
}
