// Wgpeer is a WireGuard peer for the integration tests: wireguard-go on a TUN
// of the network namespace it is started in, with its UDP socket beside it.
//
//	wgpeer -tun NAME -key FILE [-port N] [-mtu N] -addr CIDR,CIDR
//	       [-peer SPEC]... [-control SOCKET] [-log FILE]
//	wgpeer genkey            a private key, in base64
//	wgpeer pubkey <KEY       its public key
//
// It prints "ready" when packets can flow, and ends on SIGTERM, on "quit" at
// the control socket and, so that no test can leave one behind, when its
// standard input ends.
package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

type options struct {
	tun     string
	key     string
	port    uint
	mtu     int
	addrs   []netip.Prefix
	peers   []*peer
	control string
	log     string
}

// node is a running peer.
type node struct {
	name   string
	dev    *device.Device
	logger *device.Logger
	done   chan struct{}
	once   sync.Once
}

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "genkey":
		err = genkey(os.Stdout)
	case len(os.Args) == 2 && os.Args[1] == "pubkey":
		err = pubkey(os.Stdin, os.Stdout)
	default:
		err = run(parseOptions())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgpeer: %v\n", err)
		os.Exit(1)
	}
}

func parseOptions() *options {
	o := &options{}
	flag.StringVar(&o.tun, "tun", "", "`name` of the TUN to make")
	flag.StringVar(&o.key, "key", "", "`file` with the private key")
	flag.UintVar(&o.port, "port", 0, "UDP port; 0: any")
	flag.IntVar(&o.mtu, "mtu", 1280, "of the TUN")
	flag.StringVar(&o.control, "control", "", "unix `socket` for commands")
	flag.StringVar(&o.log, "log", "", "`file` for a verbose log")
	flag.Func("addr", "`addresses` of the TUN: CIDR,CIDR", func(s string) error {
		for cidr := range strings.SplitSeq(s, ",") {
			prefix, err := netip.ParsePrefix(cidr)
			if err != nil {
				return err
			}
			o.addrs = append(o.addrs, prefix)
		}
		return nil
	})
	flag.Func("peer", "`pub=KEY,endpoint=IP:PORT,allowed=CIDR+CIDR,psk=KEY,"+
		"keepalive=N`, repeatable", func(s string) error {
		p, err := parsePeer(s)
		o.peers = append(o.peers, p)
		return err
	})
	flag.Parse()
	if o.tun == "" || o.key == "" || len(o.addrs) == 0 || flag.NArg() != 0 ||
		o.port > 65535 {
		flag.Usage()
		os.Exit(2)
	}
	return o
}

func run(o *options) error {
	logger, err := openLog(o.log)
	if err != nil {
		return err
	}
	n, err := start(o, logger)
	if err != nil {
		return err
	}
	defer n.dev.Close()

	if o.control != "" {
		ln, err := net.Listen("unix", o.control)
		if err != nil {
			return err
		}
		defer ln.Close()
		go n.serve(ln)
	}

	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		// Nothing is read here: an error ends the peer like an end of file.
		_, _ = io.Copy(io.Discard, os.Stdin)
		n.quit()
	}()

	fmt.Println("ready")
	select {
	case <-term:
	case <-n.done:
	case <-n.dev.Wait():
		return errors.New("the device closed by itself, see its log")
	}
	return nil
}

func openLog(path string) (*device.Logger, error) {
	if path == "" {
		return &device.Logger{
			Verbosef: device.DiscardLogf,
			Errorf:   log.New(os.Stderr, "error: ", 0).Printf,
		}, nil
	}
	file, err := os.OpenFile(path,
		os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	flags := log.Ldate | log.Ltime | log.Lmicroseconds
	return &device.Logger{
		Verbosef: log.New(file, "debug: ", flags).Printf,
		Errorf:   log.New(file, "error: ", flags).Printf,
	}, nil
}

// start makes the TUN, gives it its addresses and brings WireGuard up.
func start(o *options, logger *device.Logger) (*node, error) {
	key, err := readKeyFile(o.key)
	if err != nil {
		return nil, err
	}
	tunDevice, err := tun.CreateTUN(o.tun, o.mtu)
	if err != nil {
		return nil, fmt.Errorf("TUN %s: %w", o.tun, err)
	}
	n := &node{
		name:   o.tun,
		dev:    device.NewDevice(tunDevice, conn.NewDefaultBind(), logger),
		logger: logger,
		done:   make(chan struct{}),
	}
	err = n.configure(o, key)
	if err != nil {
		n.dev.Close()
		return nil, err
	}
	return n, nil
}

func (n *node) configure(o *options, key []byte) error {
	err := n.dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n",
		hex.EncodeToString(key), o.port))
	if err != nil {
		return err
	}
	for _, addr := range o.addrs {
		args := []string{"address", "add", addr.String(), "dev", n.name}
		if addr.Addr().Is6() {
			args = append(args, "nodad")
		}
		if err := ip(args...); err != nil {
			return err
		}
	}
	if err := ip("link", "set", n.name, "up"); err != nil {
		return err
	}
	if err := n.dev.Up(); err != nil {
		return err
	}
	for _, p := range o.peers {
		if err := n.addPeer(p); err != nil {
			return err
		}
	}
	return nil
}

// addPeer makes or changes a peer, and routes what it may send to the TUN.
func (n *node) addPeer(p *peer) error {
	if err := n.dev.IpcSet(p.uapi()); err != nil {
		return err
	}
	for _, prefix := range p.allowed {
		err := ip("route", "replace", prefix.String(), "dev", n.name)
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *node) quit() {
	n.once.Do(func() { close(n.done) })
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %v: %s", strings.Join(args, " "), err,
			strings.TrimSpace(string(out)))
	}
	return nil
}
