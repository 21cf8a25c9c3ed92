package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/control/ts2021"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// A front ends the clients' Noise channels with its own key and opens one to
// testcontrol for each client, with a machine key that stands for the client's.
type front struct {
	tailnet     *tailnet
	listen      string
	upstream    *url.URL
	upstreamKey key.MachinePublic
	private     key.MachinePrivate

	mu       sync.Mutex
	machines map[key.MachinePublic]key.MachinePrivate
	conns    map[net.Conn]key.MachinePublic
	fault    fault
	server   *http.Server // nil: it is away
}

// A fault is what the front does instead of its work.
type fault struct {
	Path       string // prefix of paths it is for; "/key", "/ts2021", "/machine/…"
	Status     int    // answer this status …
	RetryAfter string // … with this header
	Body       string // … and this body
	Close      bool   // close the connection instead, after 101 for /ts2021
	Raw        []byte // bytes sent as the map stream instead of its messages
	End        bool   // … which ends behind them
	Count      int    // how often; 0: until another fault is set
}

func newFront(t *tailnet, listen, upstream, state string) (*front, error) {
	u, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	f := &front{
		tailnet:  t,
		listen:   listen,
		upstream: u,
		private:  key.NewMachine(),
		machines: map[key.MachinePublic]key.MachinePrivate{},
		conns:    map[net.Conn]key.MachinePublic{},
	}
	if state != "" {
		if b, err := os.ReadFile(state); err == nil {
			err = f.private.UnmarshalText(bytes.TrimSpace(b))
			if err != nil {
				return nil, err
			}
		} else if b, err := f.private.MarshalText(); err != nil || os.WriteFile(state, b, 0o600) != nil {
			return nil, fmt.Errorf("%s: cannot be written", state)
		}
	}
	res, err := http.Get(fmt.Sprintf("%s/key?v=%d", upstream, tailcfg.CurrentCapabilityVersion))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var k tailcfg.OverTLSPublicKeyResponse
	if err := json.NewDecoder(res.Body).Decode(&k); err != nil {
		return nil, err
	}
	f.upstreamKey = k.PublicKey
	return f, nil
}

// run starts or ends listening; whoever is connected then is cut off.
func (f *front) run(on bool) error {
	f.mu.Lock()
	srv := f.server
	f.server = nil
	f.mu.Unlock()
	if srv != nil {
		srv.Close()
		f.kick(key.MachinePublic{})
	}
	if !on {
		return nil
	}
	ln, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	srv = &http.Server{Handler: f}
	go srv.Serve(ln)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = srv
	return nil
}

// takeFault is the fault for path, if one is set.
func (f *front) takeFault(path string) *fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault.Path == "" || !strings.HasPrefix(path, f.fault.Path) {
		return nil
	}
	now := f.fault
	if f.fault.Count > 0 {
		f.fault.Count--
		if f.fault.Count == 0 {
			f.fault = fault{}
		}
	}
	return &now
}

// answerFault does what fl says; false: it is for the map stream's bytes.
func answerFault(w http.ResponseWriter, fl *fault) bool {
	switch {
	case fl.Close:
		panic(http.ErrAbortHandler)
	case fl.Status != 0:
		if fl.RetryAfter != "" {
			w.Header().Set("Retry-After", fl.RetryAfter)
		}
		w.WriteHeader(fl.Status)
		io.WriteString(w, fl.Body)
		return true
	}
	return false
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.tailnet.hush.wait(r.Context())
	fl := f.takeFault(r.URL.Path)
	if fl != nil && r.URL.Path != "/ts2021" && answerFault(w, fl) {
		return
	}
	switch r.URL.Path {
	case "/key":
		if f.tailnet.headscale && !headscaleKey(w, r) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(&tailcfg.OverTLSPublicKeyResponse{PublicKey: f.private.Public()})
	case "/ts2021":
		f.serveNoise(w, r, fl)
	case pingPath:
		if r.Method == http.MethodPost {
			f.tailnet.asked(w, r, false)
			return
		}
		f.tailnet.pinged(w, r)
	default:
		f.tailnet.api().ServeHTTP(w, r)
	}
}

func (f *front) machineFor(mk key.MachinePublic) key.MachinePrivate {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.machines[mk]
	if !ok {
		p = key.NewMachine()
		f.machines[mk] = p
	}
	return p
}

// kick closes the channels of a machine; of all for the zero key.
func (f *front) kick(mk key.MachinePublic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, m := range f.conns {
		if m == mk || mk.IsZero() {
			c.Close()
		}
	}
}

func (f *front) serveNoise(w http.ResponseWriter, r *http.Request, fl *fault) {
	if fl != nil && fl.Status != 0 {
		answerFault(w, fl)
		return
	}
	if fl != nil && fl.Close { // as headscale does with old versions
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+
				"Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n")
			c.Close()
		}
		return
	}
	var first func(int, io.Writer) error
	if f.tailnet.headscale {
		first = early
	}
	cc, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, f.private, first)
	if err != nil {
		log.Printf("front: %v: %v", r.RemoteAddr, err)
		return
	}
	defer cc.Close()
	mk := cc.Peer()
	log.Printf("front: channel from %v, machine %v, version %d", r.RemoteAddr, mk.ShortString(), cc.ProtocolVersion())
	f.mu.Lock()
	f.conns[cc] = mk
	f.mu.Unlock()
	defer func() { f.mu.Lock(); delete(f.conns, cc); f.mu.Unlock() }()

	tr := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1}
	tr.Protocols.SetUnencryptedHTTP2(true)
	tr.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := &controlhttp.Dialer{
			Hostname: f.upstream.Hostname(), HTTPPort: f.upstream.Port(), HTTPSPort: controlhttp.NoPort,
			MachineKey: f.machineFor(mk), ControlKey: f.upstreamKey,
			ProtocolVersion: uint16(cc.ProtocolVersion()),
			Dialer:          (&net.Dialer{}).DialContext, Logf: log.Printf,
		}
		c, err := d.Dial(ctx)
		if err != nil {
			return nil, err
		}
		return ts2021.NewConn(c.Conn, func() {}), nil
	}
	defer tr.CloseIdleConnections()
	relay := &relay{f, &http.Client{Transport: tr}, mk}
	opts := &http2.ServeConnOpts{Context: r.Context(), BaseConfig: &http.Server{Handler: relay}}
	(&http2.Server{}).ServeConn(cc, opts)
}

// A relay passes the requests of one client to testcontrol.
type relay struct {
	*front
	client  *http.Client
	machine key.MachinePublic
}

func (f *relay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.tailnet.hush.wait(r.Context())
	fl := f.takeFault(r.URL.Path)
	if fl != nil && answerFault(w, fl) {
		return
	}
	if r.URL.Path == pingPath {
		f.tailnet.asked(w, r, true)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	switch r.URL.Path {
	case "/machine/register":
		f.register(w, r, body)
	case "/machine/map":
		f.pollMap(w, r, body, fl)
	default:
		if f.tailnet.headscale {
			headscaleUnknown(w, r)
			return
		}
		// testcontrol ends the process at paths it does not know.
		if strings.HasPrefix(r.URL.Path, "/c2n/") {
			f.pass(w, r, body)
			return
		}
		http.NotFound(w, r)
	}
}

func (f *relay) forward(r *http.Request, body []byte) (*http.Response, error) {
	u := "https://" + f.upstream.Hostname() + r.URL.RequestURI()
	req, err := http.NewRequestWithContext(r.Context(), r.Method, u, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	return f.client.Do(req)
}

func (f *relay) pass(w http.ResponseWriter, r *http.Request, body []byte) {
	res, err := f.forward(r, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	w.WriteHeader(res.StatusCode)
	io.Copy(w, res.Body)
}

func (f *relay) register(w http.ResponseWriter, r *http.Request, body []byte) {
	req, resp := new(tailcfg.RegisterRequest), new(tailcfg.RegisterResponse)
	if err := json.Unmarshal(body, req); err != nil || req.NodeKey.IsZero() || req.Hostinfo == nil || req.Version == 0 {
		http.Error(w, "bad register request", http.StatusBadRequest)
		return
	}
	if done := f.tailnet.admit(r.Context(), f.machine, req, resp); done {
		json.NewEncoder(w).Encode(resp)
		return
	}
	body, _ = json.Marshal(req)
	res, err := f.forward(r, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(resp); err != nil || res.StatusCode != http.StatusOK {
		http.Error(w, "testcontrol refuses", http.StatusBadGateway)
		return
	}
	f.tailnet.admitted(req, resp)
	json.NewEncoder(w).Encode(resp)
}

func (f *relay) pollMap(w http.ResponseWriter, r *http.Request, body []byte, fl *fault) {
	var req tailcfg.MapRequest
	if err := json.Unmarshal(body, &req); err != nil {
		http.Error(w, "bad map request", http.StatusBadRequest)
		return
	}
	if !f.tailnet.knows(req.NodeKey) { // as headscale says it
		http.Error(w, "node not found", http.StatusNotFound)
		return
	}
	if f.tailnet.headscale && f.headscaleMap(w, &req) {
		return
	}
	if fl != nil && fl.Raw != nil {
		w.Write(fl.Raw)
		w.(http.Flusher).Flush()
		if !fl.End {
			<-r.Context().Done()
		}
		return
	}
	res, err := f.forward(r, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	w.WriteHeader(res.StatusCode)
	w.(http.Flusher).Flush()
	for {
		var head [4]byte
		if _, err := io.ReadFull(res.Body, head[:]); err != nil {
			return
		}
		msg := make([]byte, binary.LittleEndian.Uint32(head[:]))
		if _, err := io.ReadFull(res.Body, msg); err != nil {
			return
		}
		w.Write(head[:])
		w.Write(msg)
		w.(http.Flusher).Flush()
	}
}
