package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const controlLineMax = 4096

// serve answers the control socket until it is closed.
func (n *node) serve(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			n.logger.Errorf("control: %v", err)
			return
		}
		go n.converse(conn)
	}
}

// converse reads one command a line.  Each answer is any number of lines,
// then "ok" or "error: REASON".
func (n *node) converse(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, controlLineMax)
	for lines.Scan() {
		args := strings.Fields(lines.Text())
		err := n.command(conn, args)
		if err != nil {
			fmt.Fprintf(conn, "error: %v\n", err)
			continue
		}
		fmt.Fprintln(conn, "ok")
	}
}

func (n *node) command(w io.Writer, args []string) error {
	if len(args) == 0 {
		return errors.New("empty command")
	}
	arity := map[string]int{"rebind": 1, "status": 0, "endpoint": 2,
		"peer": 1, "remove": 1, "quit": 0}
	want, ok := arity[args[0]]
	if !ok {
		return fmt.Errorf("%q is no command", args[0])
	}
	if len(args)-1 != want {
		return fmt.Errorf("%s takes %d arguments", args[0], want)
	}
	n.logger.Verbosef("control: %s", args[0])
	switch args[0] {
	case "rebind":
		return n.rebind(args[1])
	case "status":
		return n.status(w)
	case "endpoint":
		return n.setEndpoint(args[1], args[2])
	case "peer":
		p, err := parsePeer(args[1])
		if err != nil {
			return err
		}
		return n.addPeer(p)
	case "remove":
		return n.removePeer(args[1])
	}
	n.quit()
	return nil
}

// rebind closes the UDP sockets and opens them on another port, as a NAT
// that forgot its mapping or a roaming host would make it look.
func (n *node) rebind(text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("port %q: not a number up to 65535", text)
	}
	return n.dev.IpcSet(fmt.Sprintf("listen_port=%d\n", port))
}

// status writes what the configuration protocol's "get" says, without keys
// that are secret.
func (n *node) status(w io.Writer) error {
	text, err := n.dev.IpcGet()
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "private_key=") ||
			strings.HasPrefix(line, "preshared_key=") {
			continue
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) setEndpoint(pub, endpoint string) error {
	key, err := parseKey(pub)
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return err
	}
	return n.dev.IpcSet(fmt.Sprintf(
		"public_key=%s\nupdate_only=true\nendpoint=%s\n",
		hex.EncodeToString(key), addr))
}

func (n *node) removePeer(pub string) error {
	key, err := parseKey(pub)
	if err != nil {
		return err
	}
	return n.dev.IpcSet(fmt.Sprintf("public_key=%s\nremove=true\n",
		hex.EncodeToString(key)))
}
