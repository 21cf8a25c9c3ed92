// control is a control server, a DERP server and a STUN server for tests.
//
// The control server is tailscale.com/tstest/integration/testcontrol, behind a
// front of our own that ends each client's Noise channel and opens another to
// testcontrol.  Between the two the register requests and map streams get what
// testcontrol does not have: several auth keys, users, tags, machine approval,
// interactive login, removal, deltas, and faults.
//
// Commands come as HTTP requests over a unix socket; see admin.go.
package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

func main() {
	ip := flag.String("ip", "127.0.0.1", "address of everything but the admin socket")
	port := flag.Int("port", 8080, "of the control server, plain HTTP")
	derpPort := flag.Int("derp-port", 443, "of the DERP server, TLS")
	stunPort := flag.Int("stun-port", 3478, "of the STUN server")
	admin := flag.String("admin", "", "unix socket for commands")
	domain := flag.String("domain", "tailnet.test", "MagicDNS suffix")
	full := flag.Bool("full", false, "whole netmaps instead of deltas")
	ephemeral := flag.Duration("ephemeral-timeout", 3*time.Second, "until an absent ephemeral node is removed")
	state := flag.String("state", "", "file that keeps the server's key over restarts")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)

	relay, derpMap, err := runDERP(*ip, *derpPort, *stunPort)
	if err != nil {
		log.Fatal(err)
	}
	host := net.JoinHostPort(*ip, strconv.Itoa(*port))
	t := newTailnet(&testcontrol.Server{
		DERPMap:                 derpMap,
		MagicDNSDomain:          *domain,
		RequireAuthKey:          "internal-" + rand.Text(),
		ExplicitBaseURL:         "http://" + host,
		DefaultNodeCapabilities: &tailcfg.NodeCapMap{},
		DNSConfig:               &tailcfg.DNSConfig{Proxied: true, Domains: []string{*domain}},
	}, *domain, *full, *ephemeral)

	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(inner, t.server)
	f, err := newFront(t, "http://"+inner.Addr().String(), *state)
	if err != nil {
		log.Fatal(err)
	}
	t.front, t.relay = f, relay
	if *admin != "" {
		os.Remove(*admin)
		ln, err := net.Listen("unix", *admin)
		if err != nil {
			log.Fatal(err)
		}
		go http.Serve(ln, t.admin())
	}
	ln, err := net.Listen("tcp", host)
	if err != nil {
		log.Fatal(err)
	}
	go func() { // whoever started us holds the other end
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("ready")
	log.Fatal(http.Serve(ln, f))
}
