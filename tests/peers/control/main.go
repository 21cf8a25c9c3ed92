// control is a control server, a DERP server and a STUN server for tests.
//
// The control server is tailscale.com/tstest/integration/testcontrol, behind a
// front of our own that ends each client's Noise channel and opens another to
// testcontrol.  Between the two the register requests and map streams get what
// testcontrol does not have: several auth keys, users, tags, machine approval,
// interactive login, removal, deltas, faults, and a crowd of peers that exist
// only there.  With -headscale it does as Headscale does.
//
// Commands come as HTTP requests over a unix socket; see admin.go.
package main

import (
	"crypto/rand"
	"encoding/json"
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
	derps := flag.String("derps", "", "addresses of the DERP and STUN servers, each a region, separated by commas; default that of everything")
	derpPort := flag.Int("derp-port", 443, "of the DERP server, TLS")
	stunPort := flag.Int("stun-port", 3478, "of the STUN server")
	admin := flag.String("admin", "", "unix socket for commands")
	domain := flag.String("domain", "tailnet.test", "MagicDNS suffix")
	full := flag.Bool("full", false, "whole netmaps instead of deltas")
	ephemeral := flag.Duration("ephemeral-timeout", 3*time.Second, "until an absent ephemeral node is removed")
	keepalive := flag.Duration("keepalive", 50*time.Second, "between words on a map stream that has no other")
	state := flag.String("state", "", "file that keeps the server's key over restarts")
	var keys []*authKey
	flag.Func("key", "an auth key, JSON as POST /keys wants it; may be repeated", func(s string) error {
		k := new(authKey)
		keys = append(keys, k)
		return json.Unmarshal([]byte(s), k)
	})
	headscale := flag.Bool("headscale", false, "do as Headscale does; see headscale.go")
	tlsPort := flag.Int("tls-port", 0, "of the control server, TLS; 0: none")
	tlsCert := flag.String("tls-cert", "", "file for its certificate, which signs itself")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)

	if *derps == "" {
		*derps = *ip
	}
	relays, derpMap, err := runRegions(*derps, *derpPort, *stunPort)
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

	t.headscale = *headscale
	for _, k := range keys {
		t.keys[k.Key] = k
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(inner, t.server)
	f, err := newFront(t, host, "http://"+inner.Addr().String(), *state)
	if err != nil {
		log.Fatal(err)
	}
	t.front, t.relays, t.keepalive = f, relays, *keepalive
	if *admin != "" {
		os.Remove(*admin)
		ln, err := net.Listen("unix", *admin)
		if err != nil {
			log.Fatal(err)
		}
		go http.Serve(ln, t.admin())
	}
	if err := f.run(true); err != nil {
		log.Fatal(err)
	}
	if *tlsPort != 0 {
		if err := f.serveTLS(*ip, *tlsPort, *tlsCert); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin) // whoever started us holds the other end
}
