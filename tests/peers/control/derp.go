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
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// certificate is a self-signed one for ip, and its pin for DERPNode.CertName.
func certificate(ip string) (*tls.Config, string, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: ip},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		IPAddresses:  []net.IP{net.ParseIP(ip)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
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

// runDERP starts relay and STUN and returns the map that names them.
func runDERP(ip string, port, stunPort int) (*tailcfg.DERPMap, error) {
	d := derpserver.New(key.NewNode(), logger.WithPrefix(log.Printf, "derp: "))
	config, pin, err := certificate(ip)
	if err != nil {
		return nil, err
	}
	d.ModifyTLSConfigToAddMetaCert(config)
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.AddWebSocketSupport(d, derpserver.Handler(d)))
	mux.HandleFunc("/derp/probe", derpserver.ProbeHandler)
	mux.HandleFunc("/derp/latency-check", derpserver.ProbeHandler)
	mux.HandleFunc("/generate_204", derpserver.ServeNoContent)
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	// The upgrade to DERP is HTTP/1.1's alone.
	noHTTP2 := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	srv := &http.Server{Handler: mux, TLSConfig: config, TLSNextProto: noHTTP2}
	go func() { log.Fatal(srv.ServeTLS(ln, "", "")) }()
	stun := stunserver.New(context.Background())
	if err := stun.Listen(net.JoinHostPort(ip, strconv.Itoa(stunPort))); err != nil {
		return nil, err
	}
	go func() { log.Fatal(stun.Serve()) }()
	return &tailcfg.DERPMap{OmitDefaultRegions: true, Regions: map[int]*tailcfg.DERPRegion{
		1: {RegionID: 1, RegionCode: "test", RegionName: "Test", Nodes: []*tailcfg.DERPNode{{
			Name: "1a", RegionID: 1, HostName: ip, IPv4: ip, IPv6: "none",
			DERPPort: port, STUNPort: stunPort, STUNTestIP: ip, CertName: pin,
		}}},
	}}, nil
}
