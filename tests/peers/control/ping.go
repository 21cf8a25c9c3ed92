package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// A meshPing is a question about a peer and what comes of it.
type meshPing struct {
	types  string // as tailcfg.PingRequest has it
	ip     netip.Addr
	noise  bool // answers come by the Noise channel
	answer chan *tailcfg.PingResponse
}

// ask sends p to a node and waits for an answer of each type.
func (t *tailnet) ask(k key.NodePublic, p *meshPing) ([]*tailcfg.PingResponse, error) {
	id := fmt.Sprint("mesh", time.Now().UnixNano())
	n := len(strings.Split(p.types, ","))
	p.answer = make(chan *tailcfg.PingResponse, n)
	url := t.server.ExplicitBaseURL + pingPath + "?id=" + id
	t.mu.Lock()
	t.meshPings[id] = p
	t.raw[k] = append(t.raw[k], &tailcfg.MapResponse{PingRequest: &tailcfg.PingRequest{
		URL: url, URLIsNoise: p.noise, Types: p.types, IP: p.ip}})
	t.wake()
	t.mu.Unlock()
	defer func() { t.mu.Lock(); delete(t.meshPings, id); t.mu.Unlock() }()
	timeout := time.After(15 * time.Second)
	var got []*tailcfg.PingResponse
	for len(got) < n {
		select {
		case a := <-p.answer:
			got = append(got, a)
		case <-timeout:
			return got, fmt.Errorf("%d of %d answers", len(got), n)
		}
	}
	return got, nil
}

// asked takes an answer to ask.
func (t *tailnet) asked(w http.ResponseWriter, r *http.Request, noise bool) {
	t.mu.Lock()
	p := t.meshPings[r.FormValue("id")]
	t.mu.Unlock()
	a := new(tailcfg.PingResponse)
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	switch {
	case r.Method != http.MethodPost:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case p == nil || p.noise != noise:
		http.Error(w, "unknown or expired ping", http.StatusNotFound)
	case d.Decode(a) != nil:
		http.Error(w, "not a PingResponse", http.StatusBadRequest)
	default:
		select {
		case p.answer <- a:
		default:
			http.Error(w, "too many answers", http.StatusBadRequest)
		}
	}
}

// servePing is the handler of POST /nodes/NAME/ping.
func (t *tailnet) servePing(w http.ResponseWriter, r *http.Request) {
	tn, _ := t.find(r.PathValue("name"))
	if tn == nil {
		http.Error(w, "no such node", http.StatusBadRequest)
		return
	}
	if r.FormValue("types") == "" {
		if err := t.ping(tn.Key); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		return
	}
	p := &meshPing{types: r.FormValue("types"), noise: r.FormValue("noise") != ""}
	p.ip, _ = netip.ParseAddr(r.FormValue("ip"))
	got, err := t.ask(tn.Key, p)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	json.NewEncoder(w).Encode(got)
}
