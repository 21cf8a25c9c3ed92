package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// certificate is a self-signed one for an address or a name, and its pin for
// DERPNode.CertName.
func certificate(host string) (*tls.Config, string, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: host},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(der)
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	// The DERP server wraps GetCertificate and wants one to be there.
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { mine := c; return &mine, nil }
	return &tls.Config{GetCertificate: get}, "sha256-raw:" + hex.EncodeToString(sum[:]), nil
}

// A derpRelay is a DERP and a STUN server that can be ended and started again.
type derpRelay struct {
	listen, stunListen string
	config             *tls.Config

	mu  sync.Mutex
	end func() // nil: it is not running
}

// runRegions starts relay and STUN at each of ips, separated by commas, which
// are regions 1 (test), 2 (test2)..., and returns them by region with the map
// that names them.
func runRegions(ips string, port, stunPort int) (map[int]*derpRelay, *tailcfg.DERPMap, error) {
	relays := map[int]*derpRelay{}
	m := &tailcfg.DERPMap{OmitDefaultRegions: true, Regions: map[int]*tailcfg.DERPRegion{}}
	for i, ip := range strings.Split(ips, ",") {
		r, region, err := runDERP(i+1, ip, port, stunPort)
		if err != nil {
			return nil, nil, err
		}
		relays[i+1], m.Regions[i+1] = r, region
	}
	return relays, m, nil
}

func runDERP(id int, ip string, port, stunPort int) (*derpRelay, *tailcfg.DERPRegion, error) {
	n := ""
	if id > 1 {
		n = strconv.Itoa(id)
	}
	host, ip4, ip6 := ip, ip, "none"
	if strings.Contains(ip, ":") {
		host, ip4, ip6 = "relay"+n+".test", "none", ip
	}
	config, pin, err := certificate(host)
	if err != nil {
		return nil, nil, err
	}
	r := &derpRelay{
		listen:     net.JoinHostPort(ip, strconv.Itoa(port)),
		stunListen: net.JoinHostPort(ip, strconv.Itoa(stunPort)),
		config:     config,
	}
	if err := r.run(true); err != nil {
		return nil, nil, err
	}
	return r, &tailcfg.DERPRegion{RegionID: id, RegionCode: "test" + n, RegionName: "Test" + n, Nodes: []*tailcfg.DERPNode{{
		Name: strconv.Itoa(id) + "a", RegionID: id, HostName: host, IPv4: ip4, IPv6: ip6,
		DERPPort: port, STUNPort: stunPort, STUNTestIP: ip, CertName: pin,
	}}}, nil
}

// run starts or ends it; whoever is connected then is cut off.
func (r *derpRelay) run(on bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on == (r.end != nil) {
		return nil
	}
	if !on {
		r.end()
		r.end = nil
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	stun := stunserver.New(ctx)
	if err := stun.Listen(r.stunListen); err != nil {
		cancel()
		return err
	}
	ln, err := net.Listen("tcp", r.listen)
	if err != nil {
		cancel()
		return err
	}
	d := derpserver.New(key.NewNode(), logger.WithPrefix(log.Printf, "derp: "))
	config := r.config.Clone()
	d.ModifyTLSConfigToAddMetaCert(config)
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.AddWebSocketSupport(d, derpserver.Handler(d)))
	mux.HandleFunc("/derp/probe", derpserver.ProbeHandler)
	mux.HandleFunc("/derp/latency-check", derpserver.ProbeHandler)
	mux.HandleFunc("/generate_204", derpserver.ServeNoContent)
	// The upgrade to DERP is HTTP/1.1's alone.
	noHTTP2 := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	srv := &http.Server{Handler: mux, TLSConfig: config, TLSNextProto: noHTTP2}
	go srv.ServeTLS(ln, "", "")
	go stun.Serve()
	r.end = func() {
		cancel()
		srv.Close()
		d.Close()
	}
	return nil
}
