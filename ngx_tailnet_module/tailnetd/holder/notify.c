#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../log.h"

static int
say(const char *where, const char *state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(where);
    ssize_t n;
    int fd;

    if (len >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(addr.sun_path, where, len);
    if (where[0] == '@') /* of the abstract namespace */
        addr.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return -1;
    n = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
        (struct sockaddr *)&addr,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
    return n == -1 ? -1 : 0;
}

void
notify_clear(const char *state)
{
    const char *where = getenv("NOTIFY_SOCKET");

    if (where != NULL && where[0] != '\0' && state != NULL &&
        say(where, state) == -1)
        log_warn("NOTIFY_SOCKET %s: %s", where, strerror(errno));
    unsetenv("NOTIFY_SOCKET");
}
