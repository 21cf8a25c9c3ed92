#include "door.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG  64
#define RETRY_MS 50

static struct sockaddr_un addr = {.sun_family = AF_UNIX};
static char lockfile[sizeof(addr.sun_path) + 8];
static int sock = -1;
static int lock = -1;
static bool foreign;           /* a user namespace: not every uid can be told */
static uid_t overflow = 65534; /* what those look like */
static bool has_client;
static uid_t client_uid;

static void
learn_namespace(void)
{
    unsigned long inside, outside, count;
    FILE *f = fopen("/proc/self/uid_map", "re");

    foreign = f == NULL ||
              fscanf(f, "%lu %lu %lu", &inside, &outside, &count) != 3 ||
              count != 4294967295ul;
    if (f != NULL)
        fclose(f);
    f = fopen("/proc/sys/kernel/overflowuid", "re");
    if (f != NULL) {
        if (fscanf(f, "%lu", &inside) == 1)
            overflow = (uid_t)inside;
        fclose(f);
    }
}

static int
learn_client(const char *name, char err[TN_ERR_MAX])
{
    struct passwd *pw = getpwnam(name);

    if (pw == NULL) {
        snprintf(
            err, TN_ERR_MAX, "--client %.200s: there is no such user", name);
        return EINVAL;
    }
    has_client = true;
    client_uid = pw->pw_uid;
    return 0;
}

static int
make_directory(char err[TN_ERR_MAX])
{
    char dir[sizeof(addr.sun_path)];
    char *slash;

    memcpy(dir, addr.sun_path, sizeof(dir));
    slash = strrchr(dir, '/');
    if (slash == NULL || slash == dir)
        return 0;
    *slash = '\0';
    if (mkdir(dir, has_client ? 0711 : 0700) == 0 || errno == EEXIST)
        return 0;
    snprintf(err, TN_ERR_MAX, "%s: the directory cannot be made: %s", dir,
        strerror(errno));
    return errno;
}

/* Is somebody listening there? */
static bool
answers(void)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool yes;

    if (fd == -1)
        return false;
    yes = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ||
          errno == EAGAIN;
    close(fd);
    return yes;
}

/* One try.  A file that was unlinked by its last owner while we waited for
 * its lock is not the one that counts.  Returns 0, EAGAIN, or an errno. */
static int
try_lock(void)
{
    struct stat held, named;
    int rc;

    lock = open(lockfile, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock == -1)
        return errno;
    rc = flock(lock, LOCK_EX | LOCK_NB) == -1 ? errno : 0;
    if (rc == EWOULDBLOCK)
        rc = EAGAIN;
    if (rc == 0 &&
        (fstat(lock, &held) == -1 || stat(lockfile, &named) == -1 ||
            held.st_dev != named.st_dev || held.st_ino != named.st_ino))
        rc = EAGAIN;
    if (rc == 0)
        return 0;
    close(lock);
    lock = -1;
    return rc;
}

static int
take_lock(char err[TN_ERR_MAX])
{
    struct timespec pause = {0, RETRY_MS * 1000000L};
    int rc, waited;

    snprintf(lockfile, sizeof(lockfile), "%s.lock", addr.sun_path);
    for (waited = 0;; waited += RETRY_MS) {
        rc = try_lock();
        if (rc == 0)
            return 0;
        if (rc != EAGAIN) {
            snprintf(err, TN_ERR_MAX, "%s: %s", lockfile, strerror(rc));
            return rc;
        }
        if (waited >= DOOR_WAIT_MS || answers())
            break;
        nanosleep(&pause, NULL);
    }
    snprintf(err, TN_ERR_MAX,
        "%s: another tailnetd owns this socket: end it, or give each nginx "
        "its own",
        addr.sun_path);
    return EADDRINUSE;
}

static int
listen_there(char err[TN_ERR_MAX])
{
    struct stat st;
    mode_t mask;
    int rc = 0;

    if (lstat(addr.sun_path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        snprintf(err, TN_ERR_MAX, "%s: there is a file that is not a socket",
            addr.sun_path);
        return EEXIST;
    }
    unlink(addr.sun_path);
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mask = umask(0177);
    if (sock == -1 ||
        bind(sock, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
        listen(sock, BACKLOG) == -1) {
        rc = errno;
        snprintf(err, TN_ERR_MAX, "%s: %s", addr.sun_path, strerror(rc));
    } else if (has_client && client_uid != geteuid() &&
               lchown(addr.sun_path, client_uid, (gid_t)-1) == -1) {
        rc = errno;
        snprintf(err, TN_ERR_MAX, "%s: cannot be given to --client: %s",
            addr.sun_path, strerror(rc));
    }
    umask(mask);
    if (rc != 0 && sock != -1) {
        close(sock);
        sock = -1;
    }
    return rc;
}

int
door_open(const char *path, const char *client, char err[TN_ERR_MAX])
{
    int rc = 0;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        snprintf(err, TN_ERR_MAX,
            "%.400s: a socket's path has at most %zu "
            "bytes",
            path, sizeof(addr.sun_path) - 1);
        return ENAMETOOLONG;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    learn_namespace();
    if (client != NULL)
        rc = learn_client(client, err);
    if (rc == 0)
        rc = make_directory(err);
    if (rc == 0)
        rc = take_lock(err);
    if (rc != 0)
        return rc;
    rc = listen_there(err);
    if (rc != 0)
        door_leave();
    return rc;
}

int
door_fd(void)
{
    return sock;
}

int
door_accept(pid_t engine)
{
    struct ucred who;
    socklen_t len = sizeof(who);
    int fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC);

    if (fd == -1)
        return -1;
    /*
     * Those of other user namespaces have only the file's mode against them.
     * An engine of the holder's own user has no business here: who may send a
     * table may have commands run.
     */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
        (engine == 0 || who.pid != engine) &&
        (who.uid == 0 || who.uid == geteuid() ||
            (has_client && who.uid == client_uid) ||
            (foreign && who.uid == overflow)))
        return fd;
    close(fd);
    errno = EPERM;
    return -1;
}

void
door_close(void)
{
    if (sock == -1)
        return;
    unlink(addr.sun_path);
    close(sock);
    sock = -1;
}

void
door_leave(void)
{
    if (lock == -1)
        return;
    unlink(lockfile);
    close(lock);
    lock = -1;
}
