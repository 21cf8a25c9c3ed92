
/*
 * Messages of the admin channel (tn_admin.h): one datagram each, descriptors
 * by SCM_RIGHTS.
 */


#include "ngx_tailnet.h"


ngx_int_t
ngx_tailnet_admin_send(ngx_socket_t s, const void *msg, size_t len,
    const int *fds, ngx_uint_t nfds)
{
    ssize_t          n;
    struct iovec     iov;
    struct msghdr    mh;
    struct cmsghdr  *cmsg;

    union {
        struct cmsghdr  cmsg;
        u_char          space[CMSG_SPACE(sizeof(int) * 2)];
    } ctl;

    if (nfds > 2 || len > TN_ADMIN_MSG_MAX) {
        ngx_set_errno(EMSGSIZE);
        return NGX_ERROR;
    }

    ngx_memzero(&mh, sizeof(struct msghdr));
    ngx_memzero(&ctl, sizeof(ctl));

    iov.iov_base = (void *) msg;
    iov.iov_len = len;

    mh.msg_iov = &iov;
    mh.msg_iovlen = 1;

    if (nfds) {
        mh.msg_control = &ctl;
        mh.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);

        cmsg = CMSG_FIRSTHDR(&mh);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);

        ngx_memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nfds);
    }

    do {
        n = sendmsg(s, &mh, MSG_NOSIGNAL);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    return n == -1 ? NGX_ERROR : NGX_OK;
}


ssize_t
ngx_tailnet_admin_recv(ngx_socket_t s, ngx_tailnet_msg_t *m, int flags)
{
    ssize_t          n;
    ngx_uint_t       k;
    struct iovec     iov;
    struct msghdr    mh;
    struct cmsghdr  *cmsg;

    union {
        struct cmsghdr  cmsg;
        u_char          space[CMSG_SPACE(sizeof(int) * TN_ADMIN_FDS_MAX)];
    } ctl;

    m->nfds = 0;

    ngx_memzero(&mh, sizeof(struct msghdr));

    iov.iov_base = m->u.bytes;
    iov.iov_len = sizeof(m->u.bytes);

    mh.msg_iov = &iov;
    mh.msg_iovlen = 1;
    mh.msg_control = &ctl;
    mh.msg_controllen = sizeof(ctl);

    do {
        n = recvmsg(s, &mh, flags|MSG_CMSG_CLOEXEC);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n == -1) {
        return -1;
    }

    for (cmsg = CMSG_FIRSTHDR(&mh); cmsg; cmsg = CMSG_NXTHDR(&mh, cmsg)) {

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }

        k = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        ngx_memcpy(m->fds + m->nfds, CMSG_DATA(cmsg), k * sizeof(int));
        m->nfds += k;
    }

    if (n == 0) {

        /* the end has no descriptors, an empty message may have */

        ngx_tailnet_admin_discard(m);
        return 0;
    }

    if ((mh.msg_flags & (MSG_TRUNC|MSG_CTRUNC))
        || (size_t) n < sizeof(struct tn_admin_head))
    {
        ngx_tailnet_admin_discard(m);
        ngx_set_errno(EBADMSG);
        return -1;
    }

    m->len = n;

    return n;
}


void
ngx_tailnet_admin_discard(ngx_tailnet_msg_t *m)
{
    ngx_uint_t  i;

    for (i = 0; i < m->nfds; i++) {
        if (m->fds[i] != -1) {
            (void) close(m->fds[i]);
        }
    }

    m->nfds = 0;
}


ngx_str_t
ngx_tailnet_admin_text(ngx_tailnet_msg_t *m)
{
    ngx_str_t  text;

    if (m->u.head.type == TN_ADMIN_ERROR
        && m->len > sizeof(struct tn_admin_error))
    {
        text.data = (u_char *) m->u.error.text;
        text.len = m->len - sizeof(struct tn_admin_error);

    } else {
        ngx_str_set(&text, "an answer that makes no sense");
    }

    return text;
}


ngx_int_t
ngx_tailnet_admin_call(ngx_tailnet_conf_t *tcf, ngx_socket_t *s, void *msg,
    size_t len, const int *fds, ngx_uint_t nfds, uint16_t answer,
    ngx_tailnet_msg_t *m)
{
    ssize_t               n;
    ngx_str_t             text;
    ngx_err_t             err;
    struct tn_admin_head *h = msg;

    if (*s == (ngx_socket_t) -1) {
        ngx_tailnet_why(tcf, "there is no connection to tailnetd");
        return NGX_ERROR;
    }

    h->seq = ++tcf->seq;

    if (ngx_tailnet_admin_send(*s, msg, len, fds, nfds) != NGX_OK) {
        err = ngx_errno;
        goto failed;
    }

    for ( ;; ) {
        n = ngx_tailnet_admin_recv(*s, m, 0);

        if (n <= 0) {
            err = n == 0 ? NGX_ECONNRESET : ngx_errno;
            goto failed;
        }

        if (m->u.head.seq == h->seq) {
            break;
        }

        /* the late answer to something else */

        ngx_tailnet_admin_discard(m);
    }

    if (m->u.head.type == answer) {
        return NGX_OK;
    }

    ngx_tailnet_admin_discard(m);

    if (m->u.head.type == TN_ADMIN_ERROR
        && m->len >= sizeof(struct tn_admin_error))
    {
        text = ngx_tailnet_admin_text(m);
        ngx_tailnet_why(tcf, "tailnetd says: %V", &text);

        return NGX_DECLINED;
    }

    err = EBADMSG;

failed:

    /* what comes late must not be taken for the answer to something else */

    (void) close(*s);
    *s = (ngx_socket_t) -1;

    if (err == NGX_EAGAIN) {
        ngx_tailnet_why(tcf, "tailnetd at \"%V\" does not answer",
                        &tcf->path);

    } else if (err == EBADMSG) {
        ngx_tailnet_why(tcf, "the answer of tailnetd at \"%V\" makes no "
                        "sense", &tcf->path);

    } else {
        ngx_tailnet_why(tcf, "tailnetd at \"%V\" went away (%d: %s), "
                        "its log says why", &tcf->path, err, strerror(err));
    }

    return NGX_ERROR;
}


void ngx_cdecl
ngx_tailnet_why(ngx_tailnet_conf_t *tcf, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(tcf->why, tcf->why + sizeof(tcf->why) - 1, fmt, args);
    va_end(args);

    *p = '\0';
}
