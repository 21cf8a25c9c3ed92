package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

// find is the node of a host name, number or key that is not removed.
func (t *tailnet) find(name string) (*tailcfg.Node, *node) {
	for _, tn := range t.server.AllNodes() {
		t.mu.Lock()
		n := t.nodes[tn.Key]
		t.mu.Unlock()
		if n == nil || n.Removed {
			continue
		}
		if fmt.Sprint(int64(tn.ID)) == name || tn.Hostinfo.Valid() && tn.Hostinfo.Hostname() == name || tn.Key.String() == name {
			return tn, n
		}
	}
	return nil, nil
}

// admin is the handler of commands:
//
//	GET    /nodes                        all there are, with their host information
//	POST   /keys         {"Key","User","Tags","Ephemeral","Reusable"}
//	DELETE /keys/KEY
//	POST   /clients      {"Secret","Tags"}: an OAuth client, see oauth.go
//	GET    /clients/SECRET               what it asked for
//	PATCH  /nodes/NAME   {"User","Tags","Online","Approved","KeyExpiry","CapMap","Name","Notices"}
//	DELETE /nodes/NAME
//	POST   /nodes/NAME/kick              its channel is closed
//	POST   /nodes/NAME/end               its map stream ends
//	POST   /nodes/NAME/message           a MapResponse, as it is
//	POST   /nodes/NAME/routes            ["PREFIX"…]
//	POST   /nodes/NAME/masquerade?peer=NAME&as=IP  who the peer takes it for
//	POST   /nodes/NAME/c2n?path=PATH     its answer
//	POST   /nodes/NAME/ping              waits for its HEAD request
//	POST   /nodes/NAME/ping?types=LIST&ip=IP  its pings to IP, an answer of each type;
//	                                     noise=1: by the Noise channel
//	POST   /kick                         all channels are closed
//	PUT    /filters      {"NAME":[rule…]} or null: all is allowed
//	PUT    /unique       true: a host name that is taken gets a number
//	PUT    /approval     true: new nodes wait for PATCH Approved
//	PUT    /fault        see type fault; {}: none
//	PUT    /serve        false: nobody can connect, true: again, and it knows all that it knew
//	PUT    /silence      true: nothing is said or answered, false: it goes on
//	PUT    /relays/REGION  false: neither DERP nor STUN, true: both, as at the start
//	POST   /login?url=URL&user=USER      completes an interactive login
//	DELETE /logins                       forgets those that are not completed
//
// and those of the crowd.
func (t *tailnet) admin() http.Handler {
	m := http.NewServeMux()
	t.crowd.admin(m)
	body := func(h func(r *http.Request, d *json.Decoder) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := h(r, json.NewDecoder(r.Body)); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}
	}
	onNode := func(h func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error) http.HandlerFunc {
		return body(func(r *http.Request, d *json.Decoder) error {
			tn, n := t.find(r.PathValue("name"))
			if tn == nil {
				return fmt.Errorf("no node %q", r.PathValue("name"))
			}
			defer func() { t.mu.Lock(); t.wake(); t.mu.Unlock() }()
			return h(tn, n, r, d)
		})
	}
	m.HandleFunc("GET /nodes", t.listNodes)
	m.HandleFunc("POST /keys", body(func(r *http.Request, d *json.Decoder) error {
		k := new(authKey)
		err := d.Decode(k)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.keys[k.Key] = k
		return err
	}))
	m.HandleFunc("DELETE /keys/{key}", body(func(r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.keys, r.PathValue("key"))
		return nil
	}))
	m.HandleFunc("POST /clients", body(func(r *http.Request, d *json.Decoder) error {
		c := &oauthClient{Made: []madeKey{}}
		err := d.Decode(c)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.clients[c.Secret] = c
		return err
	}))
	m.HandleFunc("GET /clients/{secret}", func(w http.ResponseWriter, r *http.Request) {
		t.mu.Lock()
		defer t.mu.Unlock()
		json.NewEncoder(w).Encode(t.clients[r.PathValue("secret")])
	})
	m.HandleFunc("PATCH /nodes/{name}", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		return d.Decode(n)
	}))
	m.HandleFunc("DELETE /nodes/{name}", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		n.Removed = true
		return nil
	}))
	m.HandleFunc("POST /nodes/{name}/kick", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		t.front.kick(n.machine)
		return nil
	}))
	m.HandleFunc("POST /nodes/{name}/end", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if s := t.sessions[tn.Key]; s != nil {
			s.cancel()
		}
		return nil
	}))
	m.HandleFunc("POST /nodes/{name}/message", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		msg := new(tailcfg.MapResponse)
		if err := d.Decode(msg); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.raw[tn.Key] = append(t.raw[tn.Key], msg)
		return nil
	}))
	m.HandleFunc("POST /nodes/{name}/routes", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		var routes []netip.Prefix
		if err := d.Decode(&routes); err != nil {
			return err
		}
		t.server.SetSubnetRoutes(tn.Key, routes)
		return nil
	}))
	m.HandleFunc("POST /nodes/{name}/masquerade", onNode(func(tn *tailcfg.Node, n *node, r *http.Request, d *json.Decoder) error {
		peer, _ := t.find(r.FormValue("peer"))
		as, err := netip.ParseAddr(r.FormValue("as"))
		if peer == nil || err != nil {
			return fmt.Errorf("no peer %q, or %v", r.FormValue("peer"), err)
		}
		t.server.SetMasqueradeAddresses([]testcontrol.MasqueradePair{{Node: tn.Key, Peer: peer.Key, NodeMasqueradesAs: as}})
		return nil
	}))
	m.HandleFunc("POST /nodes/{name}/c2n", t.c2n)
	m.HandleFunc("POST /nodes/{name}/ping", t.servePing)
	m.HandleFunc("POST /kick", body(func(r *http.Request, d *json.Decoder) error {
		t.front.kick(key.MachinePublic{})
		return nil
	}))
	m.HandleFunc("PUT /filters", body(func(r *http.Request, d *json.Decoder) error {
		var filters map[string][]tailcfg.FilterRule
		err := d.Decode(&filters)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.filters = filters
		t.wake()
		return err
	}))
	m.HandleFunc("PUT /unique", body(func(r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		return d.Decode(&t.unique)
	}))
	m.HandleFunc("PUT /approval", body(func(r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		return d.Decode(&t.approval)
	}))
	m.HandleFunc("PUT /fault", body(func(r *http.Request, d *json.Decoder) error {
		var f fault
		err := d.Decode(&f)
		t.front.mu.Lock()
		defer t.front.mu.Unlock()
		t.front.fault = f
		return err
	}))
	m.HandleFunc("PUT /serve", body(func(r *http.Request, d *json.Decoder) error {
		var on bool
		if err := d.Decode(&on); err != nil {
			return err
		}
		return t.front.run(on)
	}))
	m.HandleFunc("PUT /silence", body(func(r *http.Request, d *json.Decoder) error {
		var on bool
		err := d.Decode(&on)
		t.hush.set(on)
		return err
	}))
	m.HandleFunc("PUT /relays/{region}", body(func(r *http.Request, d *json.Decoder) error {
		var on bool
		if err := d.Decode(&on); err != nil {
			return err
		}
		id, _ := strconv.Atoi(r.PathValue("region"))
		if t.relays[id] == nil {
			return fmt.Errorf("no region %q", r.PathValue("region"))
		}
		return t.relays[id].run(on)
	}))
	m.HandleFunc("DELETE /logins", body(func(r *http.Request, d *json.Decoder) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		for id, l := range t.logins {
			if l.user == "" {
				close(l.done)
				delete(t.logins, id)
			}
		}
		return nil
	}))
	m.HandleFunc("POST /login", body(func(r *http.Request, d *json.Decoder) error {
		url := r.FormValue("url")
		t.mu.Lock()
		defer t.mu.Unlock()
		l := t.logins[url[strings.LastIndexByte(url, '/')+1:]]
		if l == nil || l.user != "" {
			return fmt.Errorf("no login %q", url)
		}
		l.user = r.FormValue("user")
		close(l.done)
		return nil
	}))
	return m
}

func (t *tailnet) listNodes(w http.ResponseWriter, r *http.Request) {
	type row struct {
		Node      *tailcfg.Node
		Known     *node
		Connected bool
	}
	rows := []row{}
	for _, tn := range t.server.AllNodes() {
		t.mu.Lock()
		if n := t.nodes[tn.Key]; n != nil {
			rows = append(rows, row{tn, n, t.sessions[tn.Key] != nil})
		}
		t.mu.Unlock()
	}
	json.NewEncoder(w).Encode(rows)
}

func (t *tailnet) c2n(w http.ResponseWriter, r *http.Request) {
	tn, _ := t.find(r.PathValue("name"))
	if tn == nil {
		http.Error(w, "no such node", http.StatusBadRequest)
		return
	}
	token := fmt.Sprint("token", time.Now().UnixNano())
	answer := make(chan string, 1)
	t.server.C2NResponses.Store(token, func(res *http.Response) {
		b, _ := io.ReadAll(res.Body)
		answer <- res.Status + "\n" + string(b)
	})
	payload := "GET " + r.FormValue("path") + " HTTP/1.1\r\nHost: c2n\r\n\r\n"
	t.mu.Lock()
	t.raw[tn.Key] = append(t.raw[tn.Key], &tailcfg.MapResponse{PingRequest: &tailcfg.PingRequest{
		URL: "https://unused/c2n/" + token, URLIsNoise: true, Types: "c2n", Payload: []byte(payload)}})
	t.wake()
	t.mu.Unlock()
	select {
	case a := <-answer:
		io.WriteString(w, a)
	case <-time.After(5 * time.Second):
		http.Error(w, "no answer", http.StatusGatewayTimeout)
	}
}
