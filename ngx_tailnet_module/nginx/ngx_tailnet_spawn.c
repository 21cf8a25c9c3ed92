
/*
 * Starting tailnetd.
 *
 * Twice forked and in a session of its own: it outlives this master, and the
 * first start happens before nginx becomes a daemon, when the process is not
 * yet the master that stays.  The first connection is a socketpair, made
 * before: nothing has to wait until a socket appears somewhere.
 */


#include "ngx_tailnet.h"
#include <sys/syscall.h>


#define NGX_TAILNET_SPAWN_FD      3     /* tailnetd's end of the socketpair */
#define NGX_TAILNET_SPAWN_ERR_FD  4     /* says why exec failed */
#define NGX_TAILNET_SPAWN_ARGS    16


static ngx_int_t ngx_tailnet_spawn_log(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static void ngx_tailnet_spawn_args(ngx_tailnet_conf_t *tcf, char **argv);
static void ngx_tailnet_spawn_child(char **argv, char *log, int ctl,
    int errfd);
static void ngx_tailnet_spawn_exec(char **argv, char *log, int ctl,
    int errfd);
static void ngx_tailnet_spawn_close(int first);


ngx_socket_t
ngx_tailnet_spawn(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    int        sv[2], errp[2], status;
    char      *argv[NGX_TAILNET_SPAWN_ARGS];
    pid_t      pid;
    ssize_t    n;
    ngx_err_t  err;

    if (ngx_tailnet_spawn_log(cycle, tcf) != NGX_OK) {
        ngx_tailnet_why(tcf, "no memory");
        return (ngx_socket_t) -1;
    }

    ngx_tailnet_spawn_args(tcf, argv);

    if (socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC, 0, sv) == -1) {
        err = ngx_errno;
        goto failed;
    }

    if (pipe2(errp, O_CLOEXEC) == -1) {
        err = ngx_errno;
        (void) close(sv[0]);
        (void) close(sv[1]);
        goto failed;
    }

    pid = fork();

    if (pid == 0) {
        ngx_tailnet_spawn_child(argv,
                                tcf->log.len ? (char *) tcf->log.data : NULL,
                                sv[1], errp[1]);
    }

    err = ngx_errno;

    (void) close(sv[1]);
    (void) close(errp[1]);

    if (pid != -1) {
        while (waitpid(pid, &status, 0) == -1 && ngx_errno == NGX_EINTR) {
            /* void */
        }

        /* nothing but the end of the pipe: exec went well */

        do {
            n = read(errp[0], &err, sizeof(ngx_err_t));
        } while (n == -1 && ngx_errno == NGX_EINTR);

        if (n == 0) {
            (void) close(errp[0]);

            ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                          "tailnet: started \"%s\" for \"%V\"",
                          argv[0], &tcf->path);
            return sv[0];
        }
    }

    (void) close(errp[0]);
    (void) close(sv[0]);

failed:

    ngx_tailnet_why(tcf, "cannot start \"%s\" (%d: %s)%s",
                    argv[0], err, strerror(err),
                    err == NGX_ENOENT ? ", install tailnetd or name it with "
                                        "\"tailnet_engine binary=PATH\"" : "");

    return (ngx_socket_t) -1;
}


/* the log of tailnetd is nginx's, unless it has one of its own */

static ngx_int_t
ngx_tailnet_spawn_log(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    if (tcf->log.len) {
        return NGX_OK;
    }

    if (cycle->new_log.file) {
        tcf->log = cycle->new_log.file->name;
        return NGX_OK;
    }

    /* nginx's name for stderr is the empty one here, also where it was built
       with --error-log-path=stderr, as Debian does */

    if (cycle->new_log.writer || cycle->error_log.len == 0) {
        return NGX_OK;
    }

    /* what nginx will open when it sees that there is no error_log */

    tcf->log = cycle->error_log;

    return ngx_conf_full_name(cycle, &tcf->log, 0);
}


static void
ngx_tailnet_spawn_args(ngx_tailnet_conf_t *tcf, char **argv)
{
    ngx_uint_t   n;

    static char  binary[] = NGX_TAILNETD_BINARY;
    static char  fd[NGX_INT_T_LEN + 1];

    ngx_sprintf((u_char *) fd, "%d%Z", NGX_TAILNET_SPAWN_FD);

    n = 0;

    argv[n++] = tcf->binary.len ? (char *) tcf->binary.data : binary;
    argv[n++] = "--admin-fd";
    argv[n++] = fd;
    argv[n++] = "--socket";
    argv[n++] = (char *) tcf->path.data;

    argv[n++] = "--log";
    argv[n++] = tcf->log.len ? (char *) tcf->log.data : "/dev/stderr";

    if (tcf->level.len) {
        argv[n++] = "--level";
        argv[n++] = (char *) tcf->level.data;
    }

    if (tcf->user.len) {
        argv[n++] = "--engine-user";
        argv[n++] = (char *) tcf->user.data;
    }

    if (tcf->timing.len) {
        argv[n++] = "--timing";
        argv[n++] = (char *) tcf->timing.data;
    }

    argv[n] = NULL;
}


static void
ngx_tailnet_spawn_child(char **argv, char *log, int ctl, int errfd)
{
    pid_t      pid;
    ssize_t    n;
    ngx_err_t  err;

    pid = fork();

    if (pid == 0) {
        ngx_tailnet_spawn_exec(argv, log, ctl, errfd);
    }

    if (pid == -1) {
        err = ngx_errno;
        n = write(errfd, &err, sizeof(ngx_err_t));
        _exit(n == -1);
    }

    _exit(0);
}


/*
 * Of nginx's descriptors only the two come along, and a place for what is said
 * before tailnetd has its log.  Who waits for the end of nginx's output must
 * not wait for tailnetd's, so that place is standard error only where nginx
 * itself logs there.
 */

static void
ngx_tailnet_spawn_exec(char **argv, char *log, int ctl, int errfd)
{
    int        null, out;
    ssize_t    n;
    sigset_t   set;
    ngx_err_t  err;

    (void) setsid();

    sigemptyset(&set);
    (void) sigprocmask(SIG_SETMASK, &set, NULL);
    (void) signal(SIGPIPE, SIG_DFL);
    (void) signal(SIGSYS, SIG_DFL);

    /* above the numbers that are about to be overwritten */

    ctl = fcntl(ctl, F_DUPFD_CLOEXEC, NGX_TAILNET_SPAWN_ERR_FD + 1);
    errfd = fcntl(errfd, F_DUPFD_CLOEXEC, NGX_TAILNET_SPAWN_ERR_FD + 1);

    null = open("/dev/null", O_RDWR|O_CLOEXEC);
    out = STDERR_FILENO;

    if (log) {
        out = open(log, O_WRONLY|O_APPEND|O_CREAT|O_CLOEXEC, 0644);

        if (out == -1) {
            out = null;
        }
    }

    if (null == -1 || ctl == -1 || errfd == -1
        || dup2(out, STDERR_FILENO) == -1
        || dup2(null, STDIN_FILENO) == -1
        || dup2(null, STDOUT_FILENO) == -1
        || dup2(ctl, NGX_TAILNET_SPAWN_FD) == -1
        || dup3(errfd, NGX_TAILNET_SPAWN_ERR_FD, O_CLOEXEC) == -1)
    {
        goto failed;
    }

    errfd = NGX_TAILNET_SPAWN_ERR_FD;

    ngx_tailnet_spawn_close(errfd + 1);

    (void) execv(argv[0], argv);

failed:

    err = ngx_errno;
    n = write(errfd, &err, sizeof(ngx_err_t));
    _exit(n == -1 ? 2 : 1);
}


static void
ngx_tailnet_spawn_close(int first)
{
    int  fd, last;

#ifdef SYS_close_range

    if (syscall(SYS_close_range, first, ~0U, 0) == 0) {
        return;
    }

#endif

    /* Linux before 5.9 */

    last = getdtablesize();

    for (fd = first; fd < last; fd++) {
        (void) close(fd);
    }
}
