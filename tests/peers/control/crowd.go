package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

const crowdFirst = 1000000 // Node.ID of the first one

// Kinds of changes.
var crowdKinds = []string{"online", "endpoints", "changed", "same", "replaced", "mixed"}

// A crowd is peers that exist only in map messages: as many as wanted, always
// the same ones, each with a key, two addresses, two endpoints and a user or,
// every tenth, a tag.
type crowd struct {
	tailnet *tailnet

	mu    sync.Mutex
	peers []*tailcfg.Node // never written to: replaced
	next  int             // number of the next new one
	turn  int             // whose turn it is to change
	sent  int             // messages so far
	left  int             // ... of commands that are under way
}

// A change is a command: Count messages, one every Every milliseconds (0: at
// once).
type change struct {
	Kind         string // see message
	Count, Every int
}

func crowdUser(i int) tailcfg.UserProfile {
	return tailcfg.UserProfile{ID: tailcfg.UserID(500000 + i%500),
		LoginName:   fmt.Sprintf("crowd%d@example.com", i%500),
		DisplayName: fmt.Sprintf("Person %d of the crowd", i%500)}
}

// crowdKey is prefix and what would be a public key.
func crowdKey(prefix string, i int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", prefix, i))
	return []byte(prefix + hex.EncodeToString(sum[:]))
}

func crowdPeer(domain string, i int) *tailcfg.Node {
	var k key.NodePublic
	var d key.DiscoPublic
	if k.UnmarshalText(crowdKey("nodekey:", i)) != nil || d.UnmarshalText(crowdKey("discokey:", i)) != nil {
		panic("keys of another form")
	}
	var four [4]byte
	binary.BigEndian.PutUint32(four[:], 100<<24|65<<16+uint32(i))
	six := netip.MustParseAddr("fd7a:115c:a1e0:c::").As16()
	binary.BigEndian.PutUint32(six[12:], uint32(i)+1)
	online := true
	addrs := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(four), 32), netip.PrefixFrom(netip.AddrFrom16(six), 128)}
	n := &tailcfg.Node{
		ID: tailcfg.NodeID(crowdFirst + i), StableID: tailcfg.StableNodeID(fmt.Sprintf("nCROWD%d", i)),
		Name: fmt.Sprintf("crowd-%d.%s.", i, domain), User: crowdUser(i).ID,
		Key: k, DiscoKey: d,
		Addresses: addrs, AllowedIPs: addrs, Endpoints: crowdEndpoints(i, 0),
		HomeDERP: 1, Cap: 131, MachineAuthorized: true, Online: &online,
		Created: time.Unix(1700000000, 0).UTC(), KeyExpiry: time.Unix(4000000000, 0).UTC(),
		Hostinfo: (&tailcfg.Hostinfo{OS: "linux", Hostname: fmt.Sprintf("crowd-%d", i)}).View(),
	}
	if i%10 == 9 {
		n.User, n.Tags = taggedUser.ID, []string{fmt.Sprintf("tag:crowd%d", i/10%20)}
	}
	return n
}

// crowdEndpoints is somewhere that does not answer (RFC 5737, RFC 2544).
func crowdEndpoints(i, move int) []netip.AddrPort {
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(20000+move%40000)),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 41641),
	}
}

// resize makes it n peers; those who are connected are told.
func (c *crowd) resize(n int) {
	c.mu.Lock()
	m := new(tailcfg.MapResponse)
	for len(c.peers) > n {
		m.PeersRemoved = append(m.PeersRemoved, c.peers[len(c.peers)-1].ID)
		c.peers = c.peers[:len(c.peers)-1]
	}
	for len(c.peers) < n {
		m.PeersChanged = append(m.PeersChanged, c.add())
	}
	m.UserProfiles = c.users()
	c.mu.Unlock()
	c.say(m)
}

func (c *crowd) add() *tailcfg.Node {
	p := crowdPeer(c.tailnet.domain, c.next)
	c.next++
	c.peers = append(c.peers, p)
	return p
}

func (c *crowd) users() []tailcfg.UserProfile {
	list := []tailcfg.UserProfile{taggedUser}
	for i := range min(c.next, 500) {
		list = append(list, crowdUser(i))
	}
	return list
}

// join puts it into a stream's first message.
func (c *crowd) join(m *tailcfg.MapResponse) *tailcfg.MapResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.peers) == 0 {
		return m
	}
	all := *m
	all.Peers = append(slices.Clone(m.Peers), c.peers...)
	all.UserProfiles = append(slices.Clone(m.UserProfiles), c.users()...)
	return &all
}

// message changes one peer of the crowd, each time another one:
//
//	online     a patch: it goes or comes
//	endpoints  a patch: it moved
//	changed    it comes whole, with other endpoints and Online
//	same       it comes whole, and nothing is new
//	replaced   it is removed, and there is a new one
//	mixed      of all these, in turn
func (c *crowd) message(kind string) *tailcfg.MapResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.peers) == 0 {
		return nil
	}
	c.turn++
	if kind == "mixed" {
		kind = []string{"online", "endpoints", "changed", "online", "same", "endpoints", "replaced", "online"}[c.turn%8]
	}
	at := c.turn * 7919 % len(c.peers)
	p := *c.peers[at]
	online := !*p.Online
	m := new(tailcfg.MapResponse)
	switch kind {
	case "online":
		p.Online = &online
		m.PeersChangedPatch = []*tailcfg.PeerChange{{NodeID: p.ID, Online: &online}}
	case "endpoints":
		p.Endpoints = crowdEndpoints(int(p.ID)-crowdFirst, c.turn)
		m.PeersChangedPatch = []*tailcfg.PeerChange{{NodeID: p.ID, Endpoints: p.Endpoints}}
	case "changed":
		p.Endpoints, p.Online = crowdEndpoints(int(p.ID)-crowdFirst, c.turn), &online
		m.PeersChanged = []*tailcfg.Node{&p}
	case "same":
		m.PeersChanged = []*tailcfg.Node{&p}
	case "replaced":
		m.PeersRemoved = []tailcfg.NodeID{p.ID}
		c.peers = slices.Delete(c.peers, at, at+1)
		m.PeersChanged = []*tailcfg.Node{c.add()}
		return m
	}
	c.peers[at] = &p
	return m
}

// say sends m to all who are connected.
func (c *crowd) say(m *tailcfg.MapResponse) {
	t := c.tailnet
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.sessions {
		t.raw[k] = append(t.raw[k], m)
	}
	t.wake()
}

func (c *crowd) run(cmd change) {
	for i := range cmd.Count {
		if i > 0 && cmd.Every > 0 {
			time.Sleep(time.Duration(cmd.Every) * time.Millisecond)
		}
		if m := c.message(cmd.Kind); m != nil {
			c.say(m)
		}
		c.mu.Lock()
		c.sent++
		c.left--
		c.mu.Unlock()
	}
}

// admin adds the crowd's commands:
//
//	PUT  /crowd          {"Peers":N}
//	GET  /crowd          {"Peers","Sent","Left"}: messages sent, and to be sent
//	POST /crowd/changes  see type change; answered at once
func (c *crowd) admin(m *http.ServeMux) {
	m.HandleFunc("PUT /crowd", func(w http.ResponseWriter, r *http.Request) {
		var want struct{ Peers int }
		if err := json.NewDecoder(r.Body).Decode(&want); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.resize(want.Peers)
	})
	m.HandleFunc("GET /crowd", func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		json.NewEncoder(w).Encode(map[string]int{"Peers": len(c.peers), "Sent": c.sent, "Left": c.left})
	})
	m.HandleFunc("POST /crowd/changes", func(w http.ResponseWriter, r *http.Request) {
		var cmd change
		err := json.NewDecoder(r.Body).Decode(&cmd)
		if err == nil && !slices.Contains(crowdKinds, cmd.Kind) {
			err = fmt.Errorf("no such kind of change: %q", cmd.Kind)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		c.left += cmd.Count
		c.mu.Unlock()
		go c.run(cmd)
	})
}

// A hush is a server that is there and says nothing.
type hush struct {
	mu  sync.Mutex
	end chan struct{} // nil: it speaks
}

func (h *hush) set(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case on && h.end == nil:
		h.end = make(chan struct{})
	case !on && h.end != nil:
		close(h.end)
		h.end = nil
	}
}

// wait returns when it speaks, or ctx ends.
func (h *hush) wait(ctx context.Context) {
	h.mu.Lock()
	end := h.end
	h.mu.Unlock()
	if end == nil {
		return
	}
	select {
	case <-end:
	case <-ctx.Done():
	}
}
