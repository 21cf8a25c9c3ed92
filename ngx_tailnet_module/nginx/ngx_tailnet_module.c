
/*
 * The core module: directives of the main context, and the hooks by which
 * nginx calls the other files of this folder.
 */


#include "ngx_tailnet.h"


/* a name that a directive uses, checked when all blocks are known */

typedef struct {
    ngx_str_t             name;
    ngx_tailnet_place_t   place;
    const char           *what;
} ngx_tailnet_mention_t;


/* a tailnet_node block while it is parsed */

typedef struct {
    struct tn_node       *node;
    char                 *prefix;
} ngx_tailnet_block_t;


typedef struct {
    const char           *name;
    size_t                offset;
    ngx_uint_t            secret;
    ngx_uint_t            unique;    /* no two nodes may share it */
} ngx_tailnet_file_t;


static void *ngx_tailnet_create_conf(ngx_cycle_t *cycle);
static char *ngx_tailnet_init_conf(ngx_cycle_t *cycle, void *conf);
static char *ngx_tailnet_node(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_tailnet_prefix(ngx_conf_t *cf);
static char *ngx_tailnet_node_option(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static char *ngx_tailnet_node_file(ngx_conf_t *cf, ngx_tailnet_file_t *file,
    const char *path);
static char *ngx_tailnet_node_unique(ngx_conf_t *cf, ngx_tailnet_file_t *file,
    const char *path, ngx_file_info_t *fi);
static char *ngx_tailnet_engine(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_tailnet_check(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static ngx_int_t ngx_tailnet_check_node(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf, const char *name);
static ngx_int_t ngx_tailnet_check_mention(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf, ngx_tailnet_mention_t *m);
static ngx_int_t ngx_tailnet_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_tailnet_init_process(ngx_cycle_t *cycle);
static void ngx_tailnet_exit_process(ngx_cycle_t *cycle);
static void ngx_tailnet_exit_master(ngx_cycle_t *cycle);


static ngx_command_t  ngx_tailnet_commands[] = {

    { ngx_string("tailnet_node"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_tailnet_node,
      0,
      0,
      NULL },

    { ngx_string("tailnet_engine"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_1MORE,
      ngx_tailnet_engine,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_tailnet_module_ctx = {
    ngx_string("tailnet"),
    ngx_tailnet_create_conf,
    ngx_tailnet_init_conf
};


ngx_module_t  ngx_tailnet_module = {
    NGX_MODULE_V1,
    &ngx_tailnet_module_ctx,               /* module context */
    ngx_tailnet_commands,                  /* module directives */
    NGX_CORE_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_tailnet_init_module,               /* init module */
    ngx_tailnet_init_process,              /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_tailnet_exit_process,              /* exit process */
    ngx_tailnet_exit_master,               /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_tailnet_file_t  ngx_tailnet_files[] = {
    { "netmap", offsetof(struct tn_node, netmap), 0, 0 },
    { "private_key", offsetof(struct tn_node, private_key), 1, 1 },
    { "preshared_keys", offsetof(struct tn_node, preshared_keys), 1, 0 },
    { "control_ca", offsetof(struct tn_node, control_ca), 0, 0 },
    { NULL, 0, 0, 0 }
};


static void *
ngx_tailnet_create_conf(ngx_cycle_t *cycle)
{
    ngx_tailnet_conf_t  *tcf;

    tcf = ngx_pcalloc(cycle->pool, sizeof(ngx_tailnet_conf_t));
    if (tcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&tcf->table, cycle->pool, 1, sizeof(struct tn_node))
        != NGX_OK
        || ngx_array_init(&tcf->blocks, cycle->pool, 1,
                          sizeof(ngx_tailnet_place_t))
           != NGX_OK
        || ngx_array_init(&tcf->nodes, cycle->pool, 1,
                          sizeof(ngx_tailnet_node_t))
           != NGX_OK
        || ngx_array_init(&tcf->mentions, cycle->pool, 4,
                          sizeof(ngx_tailnet_mention_t))
           != NGX_OK
        || ngx_array_init(&tcf->listens, cycle->pool, 4,
                          sizeof(ngx_tailnet_listen_t))
           != NGX_OK)
    {
        return NULL;
    }

    tcf->ctl = (ngx_socket_t) -1;
    tcf->hello = (ngx_socket_t) -1;
    tcf->bequest = (ngx_socket_t) -1;

    return tcf;
}


static char *
ngx_tailnet_init_conf(ngx_cycle_t *cycle, void *conf)
{
    ngx_tailnet_conf_t  *tcf = conf;

    if (ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_CONF_OK;
    }

    if (ngx_tailnet_check(cycle, tcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (tcf->nodes.nelts == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_tailnet_cycle_path(cycle, tcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_tailnet_listen_init_conf(cycle, tcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_tailnet_init_module(ngx_cycle_t *cycle)
{
    ngx_tailnet_conf_t  *tcf;

    if (ngx_test_config) {
        return NGX_OK;
    }

    tcf = ngx_tailnet_get_conf(cycle);

    if (ngx_tailnet_listen_init_module(cycle, tcf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_tailnet_cycle_commit(cycle, tcf);

    return NGX_OK;
}


static ngx_int_t
ngx_tailnet_init_process(ngx_cycle_t *cycle)
{
    ngx_tailnet_conf_t  *tcf;

    tcf = ngx_tailnet_get_conf(cycle);

    /* only the master's connections may keep sockets and nodes alive */

    if (ngx_process != NGX_PROCESS_SINGLE) {
        ngx_tailnet_cycle_leave(tcf, ngx_process != NGX_PROCESS_WORKER);
    }

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    ngx_tailnet_identity_init(cycle, tcf);

    if (tcf->nodes.nelts == 0) {
        return NGX_OK;
    }

    if (ngx_tailnet_connect_init(cycle, tcf->nodes.nelts) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_tailnet_worker_init(cycle, tcf);
}


static void
ngx_tailnet_exit_process(ngx_cycle_t *cycle)
{
    ngx_tailnet_worker_exit();
}


static void
ngx_tailnet_exit_master(ngx_cycle_t *cycle)
{
    ngx_tailnet_cycle_stop(cycle, ngx_tailnet_get_conf(cycle));
}


void
ngx_tailnet_place(ngx_conf_t *cf, ngx_tailnet_place_t *place)
{
    place->file = cf->conf_file->file.name;
    place->line = cf->conf_file->line;

    if (place->file.data == NULL) {
        ngx_str_set(&place->file, "command line");
    }
}


ngx_int_t
ngx_tailnet_node_mention(ngx_conf_t *cf, ngx_str_t *name, const char *what)
{
    ngx_tailnet_conf_t     *tcf;
    ngx_tailnet_mention_t  *m;

    tcf = ngx_tailnet_get_conf(cf->cycle);

    m = ngx_array_push(&tcf->mentions);
    if (m == NULL) {
        return NGX_ERROR;
    }

    m->name = *name;
    m->what = what;
    ngx_tailnet_place(cf, &m->place);

    return NGX_OK;
}


ngx_int_t
ngx_tailnet_node_ref(ngx_conf_t *cf, ngx_str_t *name, const char *what,
    ngx_uint_t *node)
{
    ngx_uint_t           i;
    ngx_tailnet_conf_t  *tcf;
    ngx_tailnet_node_t  *nodes;

    if (name->len && !tn_node_name_valid((char *) name->data, name->len)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid node name \"%V\" in \"%s\"", name, what);
        return NGX_ERROR;
    }

    if (ngx_tailnet_node_mention(cf, name, what) != NGX_OK) {
        return NGX_ERROR;
    }

    tcf = ngx_tailnet_get_conf(cf->cycle);
    nodes = tcf->nodes.elts;

    /*
     * Without a name there must be exactly one node, so the first name that
     * is met is its name: "80" and "web:80" have to be one listener whether
     * the block of "web" is above or below.
     */

    if (tcf->nodes.nelts && (name->len == 0 || nodes[0].name.len == 0)) {

        if (name->len) {
            nodes[0].name = *name;
        }

        *node = 0;
        return NGX_OK;
    }

    for (i = 0; i < tcf->nodes.nelts; i++) {
        if (nodes[i].name.len == name->len
            && ngx_strncmp(nodes[i].name.data, name->data, name->len) == 0)
        {
            *node = i;
            return NGX_OK;
        }
    }

    if (tcf->nodes.nelts == TN_NODES_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d nodes are named", TN_NODES_MAX);
        return NGX_ERROR;
    }

    nodes = ngx_array_push(&tcf->nodes);
    if (nodes == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(nodes, sizeof(ngx_tailnet_node_t));
    nodes->name = *name;

    *node = tcf->nodes.nelts - 1;

    return NGX_OK;
}


static char *
ngx_tailnet_node(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_tailnet_conf_t *tcf = conf;

    char                 err[TN_ERR_MAX];
    char                *rv;
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_conf_t           save;
    struct tn_node      *node;
    ngx_tailnet_block_t  block;
    ngx_tailnet_place_t *place;

    value = cf->args->elts;
    node = tcf->table.elts;
    place = tcf->blocks.elts;

    for (i = 0; i < tcf->table.nelts; i++) {
        if (ngx_strcmp(node[i].name, value[1].data) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "tailnet_node \"%V\" is already defined "
                               "in %V:%ui",
                               &value[1], &place[i].file, place[i].line);
            return NGX_CONF_ERROR;
        }
    }

    if (tcf->table.nelts == TN_NODES_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d \"tailnet_node\" blocks",
                           TN_NODES_MAX);
        return NGX_CONF_ERROR;
    }

    node = ngx_array_push(&tcf->table);
    place = ngx_array_push(&tcf->blocks);

    if (node == NULL || place == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_tailnet_place(cf, place);

    if (tn_node_init(node, (char *) value[1].data, value[1].len, err) == -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", err);
        return NGX_CONF_ERROR;
    }

    block.node = node;
    block.prefix = ngx_tailnet_prefix(cf);
    if (block.prefix == NULL) {
        return NGX_CONF_ERROR;
    }

    save = *cf;
    cf->handler = ngx_tailnet_node_option;
    cf->handler_conf = (void *) &block;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    return rv;
}


/* tailnetd has another working directory: names of files must be absolute */

static char *
ngx_tailnet_prefix(ngx_conf_t *cf)
{
    char       *prefix, cwd[NGX_MAX_PATH];
    size_t      len;
    ngx_str_t  *conf_prefix;

    conf_prefix = &cf->cycle->conf_prefix;
    cwd[0] = '\0';

    if ((conf_prefix->len == 0 || conf_prefix->data[0] != '/')
        && getcwd(cwd, sizeof(cwd)) == NULL)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "getcwd() failed");
        return NULL;
    }

    len = ngx_strlen(cwd) + sizeof("/") + conf_prefix->len;

    prefix = ngx_pnalloc(cf->pool, len);
    if (prefix == NULL) {
        return NULL;
    }

    (void) ngx_snprintf((u_char *) prefix, len, "%s%s%V%Z", cwd,
                        cwd[0] ? "/" : "", conf_prefix);

    return prefix;
}


static char *
ngx_tailnet_node_option(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_tailnet_block_t *block = conf;

    char                 err[TN_ERR_MAX];
    ngx_str_t           *value;
    ngx_uint_t           i;
    const char         **argv;
    ngx_tailnet_file_t  *file;

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "include") == 0) {
        return ngx_conf_include(cf, dummy, conf);
    }

    argv = ngx_palloc(cf->temp_pool, cf->args->nelts * sizeof(char *));
    if (argv == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 0; i < cf->args->nelts; i++) {
        argv[i] = (char *) value[i].data;
    }

    if (tn_node_set(block->node, argv, cf->args->nelts, block->prefix, err)
        == -1)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", err);
        return NGX_CONF_ERROR;
    }

    for (file = ngx_tailnet_files; file->name; file++) {
        if (ngx_strcmp(value[0].data, file->name) == 0) {
            return ngx_tailnet_node_file(cf, file,
                                     (char *) block->node + file->offset);
        }
    }

    return NGX_CONF_OK;
}


/*
 * Who can write these files can be anybody on the mesh.  That others can read
 * a key is usual where secrets are mounted into a container, hence a warning.
 */

static char *
ngx_tailnet_node_file(ngx_conf_t *cf, ngx_tailnet_file_t *file,
    const char *path)
{
    ngx_file_info_t  fi;

    if (ngx_file_info(path, &fi) == NGX_FILE_ERROR
        || access(path, R_OK) == -1)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "%s: cannot use the file \"%s\"",
                           file->name, path);
        return NGX_CONF_ERROR;
    }

    if (!ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s: \"%s\" is not a regular file",
                           file->name, path);
        return NGX_CONF_ERROR;
    }

    if (fi.st_mode & (S_IWGRP|S_IWOTH)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s: \"%s\" can be written by group or others, "
                           "chmod go-w it", file->name, path);
        return NGX_CONF_ERROR;
    }

    if (file->unique
        && ngx_tailnet_node_unique(cf, file, path, &fi) != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (file->secret && (fi.st_mode & (S_IRGRP|S_IROTH))) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "%s: \"%s\" can be read by group or others",
                           file->name, path);
    }

    return NGX_CONF_OK;
}


/* by whatever name; the node that is being read is the last of the table */

static char *
ngx_tailnet_node_unique(ngx_conf_t *cf, ngx_tailnet_file_t *file,
    const char *path, ngx_file_info_t *fi)
{
    const char          *other;
    ngx_uint_t           i;
    struct tn_node      *table;
    ngx_file_info_t      ofi;
    ngx_tailnet_conf_t  *tcf;

    tcf = ngx_tailnet_get_conf(cf->cycle);
    table = tcf->table.elts;

    for (i = 0; i + 1 < tcf->table.nelts; i++) {

        other = (char *) &table[i] + file->offset;

        if (other[0] == '\0'
            || ngx_file_info(other, &ofi) == NGX_FILE_ERROR
            || ofi.st_dev != fi->st_dev || ofi.st_ino != fi->st_ino)
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s: \"%s\" is the %s of tailnet_node \"%s\" "
                           "already, each node needs its own",
                           file->name, path, file->name, table[i].name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_tailnet_engine(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_tailnet_conf_t *tcf = conf;

    ngx_str_t   *value, *field;
    ngx_uint_t   i, n;

    static struct {
        ngx_str_t  name;
        size_t     offset;
    } params[] = {
        { ngx_string("unix:"), offsetof(ngx_tailnet_conf_t, path) },
        { ngx_string("log="), offsetof(ngx_tailnet_conf_t, log) },
        { ngx_string("level="), offsetof(ngx_tailnet_conf_t, level) },
        { ngx_string("binary="), offsetof(ngx_tailnet_conf_t, binary) },
        { ngx_string("user="), offsetof(ngx_tailnet_conf_t, user) },
        { ngx_string("timing="), offsetof(ngx_tailnet_conf_t, timing) },
        { ngx_null_string, 0 }
    };

    static const char  *levels[] = {
        "error", "warn", "notice", "info", "debug", NULL
    };

    if (tcf->place.file.data) {
        return "is duplicate";
    }

    ngx_tailnet_place(cf, &tcf->place);

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        for (n = 0; params[n].name.len; n++) {
            if (ngx_strncmp(value[i].data, params[n].name.data,
                            params[n].name.len)
                == 0)
            {
                break;
            }
        }

        field = (ngx_str_t *) ((u_char *) tcf + params[n].offset);

        if (params[n].name.len == 0
            || value[i].len == params[n].name.len)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (field->len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        field->data = value[i].data + params[n].name.len;
        field->len = value[i].len - params[n].name.len;
    }

    for (n = 0; tcf->level.len && levels[n]; n++) {
        if (ngx_strcmp(tcf->level.data, levels[n]) == 0) {
            break;
        }
    }

    if (tcf->level.len && levels[n] == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid level \"%V\": error, warn, notice, info "
                           "or debug", &tcf->level);
        return NGX_CONF_ERROR;
    }

    if (tcf->log.len
        && ngx_conf_full_name(cf->cycle, &tcf->log, 0) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (tcf->path.len
        && ngx_conf_full_name(cf->cycle, &tcf->path, 0) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (tcf->binary.len) {

        if (ngx_conf_full_name(cf->cycle, &tcf->binary, 0) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        /* nginx starts nevertheless and says so itself */

        if (ngx_test_config
            && access((char *) tcf->binary.data, X_OK) == -1)
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, ngx_errno,
                               "cannot run \"%V\", nginx would start "
                               "without its mesh listeners", &tcf->binary);
        }
    }

    return NGX_CONF_OK;
}


/* what one directive alone could not know */

static ngx_int_t
ngx_tailnet_check(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    int                     n;
    char                    err[TN_ERR_MAX];
    ngx_uint_t              i;
    struct tn_node         *table;
    ngx_tailnet_place_t    *place;
    ngx_tailnet_mention_t  *m;

    table = tcf->table.elts;
    place = tcf->blocks.elts;

    if (tcf->table.nelts) {
        n = tn_node_check(table, tcf->table.nelts, err);

        if (n != -1) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "%s in %V:%ui",
                          err, &place[n].file, place[n].line);
            return NGX_ERROR;
        }
    }

    m = tcf->mentions.elts;

    for (i = 0; i < tcf->mentions.nelts; i++) {
        if (ngx_tailnet_check_mention(cycle, tcf, &m[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < tcf->table.nelts; i++) {
        if (ngx_tailnet_check_node(cycle, tcf, table[i].name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* each block is a node, named by a directive or not */

static ngx_int_t
ngx_tailnet_check_node(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    const char *name)
{
    size_t               len;
    ngx_uint_t           i;
    ngx_tailnet_node_t  *nodes;

    len = ngx_strlen(name);
    nodes = tcf->nodes.elts;

    for (i = 0; i < tcf->nodes.nelts; i++) {

        if (nodes[i].name.len == 0) {

            /* it is the only one, as the mentions were checked */

            break;
        }

        if (nodes[i].name.len == len
            && ngx_strncmp(nodes[i].name.data, name, len) == 0)
        {
            return NGX_OK;
        }
    }

    if (i == tcf->nodes.nelts) {
        nodes = ngx_array_push(&tcf->nodes);
        if (nodes == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(nodes, sizeof(ngx_tailnet_node_t));

    } else {
        nodes += i;
    }

    nodes->name.data = ngx_pnalloc(cycle->pool, len + 1);
    if (nodes->name.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_cpystrn(nodes->name.data, (u_char *) name, len + 1);
    nodes->name.len = len;

    return NGX_OK;
}


/*
 * Without any block the nodes are those of a tailnetd that is its own service,
 * and it alone knows their names.
 */

static ngx_int_t
ngx_tailnet_check_mention(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    ngx_tailnet_mention_t *m)
{
    ngx_uint_t           i;
    struct tn_node      *table;
    ngx_tailnet_node_t  *nodes;

    table = tcf->table.elts;
    nodes = tcf->nodes.elts;

    if (m->name.len == 0) {

        if (tcf->table.nelts == 1) {
            return NGX_OK;
        }

        if (tcf->table.nelts == 0 && tcf->path.len
            && tcf->nodes.nelts == 1 && nodes[0].name.len)
        {
            return NGX_OK;
        }

        if (tcf->table.nelts) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                          "\"%s\" must name its node, there are %ui of them "
                          "in %V:%ui",
                          m->what, tcf->table.nelts, &m->place.file,
                          m->place.line);
            return NGX_ERROR;
        }

        if (tcf->path.len) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                          "\"%s\" must name its node, nodes that are not "
                          "defined here are those of the tailnetd at \"%V\" "
                          "in %V:%ui",
                          m->what, &tcf->path, &m->place.file, m->place.line);
            return NGX_ERROR;
        }

        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "no \"tailnet_node\" is defined for \"%s\" in %V:%ui",
                      m->what, &m->place.file, m->place.line);
        return NGX_ERROR;
    }

    for (i = 0; i < tcf->table.nelts; i++) {
        if (ngx_strlen(table[i].name) == m->name.len
            && ngx_strncmp(table[i].name, m->name.data, m->name.len) == 0)
        {
            return NGX_OK;
        }
    }

    if (tcf->table.nelts == 0 && tcf->path.len) {

        for (i = 0; i < tcf->nodes.nelts; i++) {
            if (nodes[i].name.len == m->name.len
                && ngx_strncmp(nodes[i].name.data, m->name.data, m->name.len)
                   == 0)
            {
                return NGX_OK;
            }
        }
    }

    ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                  "unknown tailnet_node \"%V\" in \"%s\" in %V:%ui",
                  &m->name, m->what, &m->place.file, m->place.line);

    return NGX_ERROR;
}
