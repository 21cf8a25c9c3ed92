package main

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"strconv"
)

// serveTLS is the control server over TLS besides.  Its certificate, which
// nobody trusts, goes to a file.
func (f *front) serveTLS(ip string, port int, file string) error {
	config, _, err := certificate(ip)
	if err != nil {
		return err
	}
	c, err := config.GetCertificate(nil)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	// The upgrade to Noise is HTTP/1.1's alone.
	noHTTP2 := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	srv := &http.Server{Handler: f, TLSConfig: config, TLSNextProto: noHTTP2}
	go srv.ServeTLS(ln, "", "")
	return nil
}
