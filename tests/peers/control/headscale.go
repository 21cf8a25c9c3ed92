package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// What a Headscale does in its own way: the payload before HTTP/2, empty
// answers to lite updates, the packet filter in a chunk of its own, users
// without e-mail addresses, peers that no rule relates to a node left out, and
// changes told more often than needed.

// headscaleMinimum is the lowest capability version that it talks to.
const headscaleMinimum = 113

// early writes what comes before HTTP/2; an error ends the connection, which is
// all that a client of an old version sees.
func early(version int, w io.Writer) error {
	if version < headscaleMinimum {
		return fmt.Errorf("capability version %d is not supported", version)
	}
	b, err := json.Marshal(&tailcfg.EarlyNoise{NodeKeyChallenge: key.NewChallenge().Public()})
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32([]byte("\xff\xff\xffTS"), uint32(len(b)))
	_, err = w.Write(append(head, b...))
	return err
}

// headscaleKey answers false where /key has no answer: to no version, or one
// from before the Noise protocol.
func headscaleKey(w http.ResponseWriter, r *http.Request) bool {
	v, err := strconv.Atoi(r.FormValue("v"))
	if err != nil {
		http.Error(w, "invalid capability version", http.StatusBadRequest)
	}
	return err == nil && v >= 39
}

// headscaleMap answers what is no stream; true: it is done.
func (f *relay) headscaleMap(w http.ResponseWriter, req *tailcfg.MapRequest) bool {
	if req.Version < headscaleMinimum {
		http.Error(w, "unsupported client version", http.StatusBadRequest)
		return true
	}
	// Streams are listened to as well.
	f.tailnet.learn(req)
	return !req.Stream
}

// headscaleUnknown answers what is neither register nor map.
func headscaleUnknown(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/machine/whoami", "/machine/set-dns", "/machine/set-device-attr", "/machine/audit-log",
		"/machine/id-token", "/machine/feature/query", "/machine/update-health", "/machine/c2n":
		http.Error(w, "Not implemented yet", http.StatusNotImplemented)
	default:
		http.NotFound(w, r)
	}
}

// headscaleBuild makes a netmap of testcontrol's one of Headscale; t.mu is held.
func (t *tailnet) headscaleBuild(res *tailcfg.MapResponse, me *node) {
	rules := t.filters["base"]
	if t.filters == nil {
		rules = []tailcfg.FilterRule{{SrcIPs: []string{"*"}, DstPorts: []tailcfg.NetPortRange{
			{IP: "*", Ports: tailcfg.PortRangeAny}}}}
	}
	headscaleDress(res.Node, me)
	res.Node.CapMap = tailcfg.NodeCapMap{
		tailcfg.CapabilityAdmin:           {},
		tailcfg.CapabilitySSH:             {},
		tailcfg.NodeAttrDefaultAutoUpdate: {"false"},
	}
	peers := res.Peers
	res.Peers = nil
	for _, p := range peers {
		if len(rules) == 0 || related(rules, res.Node, p) || related(rules, p, res.Node) {
			headscaleDress(p, t.nodes[p.Key])
			res.Peers = append(res.Peers, p)
		}
	}
	res.Domain = t.server.ExplicitBaseURL[len("http://"):] // not its names' suffix
	dns := *res.DNSConfig
	dns.CertDomains = nil
	res.DNSConfig = &dns
	res.PacketFilter = nil
	res.PacketFilters = map[string][]tailcfg.FilterRule{"base": rulesFor(rules, res.Node)}
	res.CollectServices.Set(false)
	res.Debug = &tailcfg.Debug{DisableLogTail: true}
}

func headscaleDress(tn *tailcfg.Node, n *node) {
	tn.StableID = tailcfg.StableNodeID(fmt.Sprint(int64(tn.ID)))
	tn.Machine = n.machine
	tn.Expired = n.expired()
	tn.MachineAuthorized = !tn.Expired // it has no other approval
}

// covers tells whether one of names, addresses, prefixes or "*", has to do with
// tn.
func covers(tn *tailcfg.Node, names ...string) bool {
	for _, name := range names {
		if name == "*" {
			return true
		}
		p, err := netip.ParsePrefix(name)
		if err != nil {
			a, _ := netip.ParseAddr(name)
			p = netip.PrefixFrom(a, max(a.BitLen(), 0))
		}
		for _, a := range tn.AllowedIPs {
			if p.IsValid() && p.Overlaps(a) {
				return true
			}
		}
	}
	return false
}

// rulesFor is what of rules is about reaching tn: nil where nothing is.
func rulesFor(rules []tailcfg.FilterRule, tn *tailcfg.Node) []tailcfg.FilterRule {
	var mine []tailcfg.FilterRule
	for _, r := range rules {
		all, grants := r.DstPorts, r.CapGrant
		r.DstPorts, r.CapGrant = nil, nil
		for _, d := range all {
			if covers(tn, d.IP) {
				r.DstPorts = append(r.DstPorts, d)
			}
		}
		for _, g := range grants {
			for _, d := range g.Dsts {
				if covers(tn, d.String()) {
					r.CapGrant = append(r.CapGrant, g)
					break
				}
			}
		}
		if r.DstPorts != nil || r.CapGrant != nil {
			mine = append(mine, r)
		}
	}
	return mine
}

// related tells whether some rule lets src reach dst.
func related(rules []tailcfg.FilterRule, src, dst *tailcfg.Node) bool {
	for _, r := range rulesFor(rules, dst) {
		if covers(src, r.SrcIPs...) {
			return true
		}
	}
	return false
}

// headscaleNews are the messages that make now of before: one for each kind of
// change, peers whole after their patch, and the time alone where nothing is new.
func headscaleNews(before, now *tailcfg.MapResponse) []*tailcfg.MapResponse {
	var msgs []*tailcfg.MapResponse
	add := func(m tailcfg.MapResponse) {
		m.ControlTime = now.ControlTime
		msgs = append(msgs, &m)
	}
	d := diff(before, now)
	if d == nil {
		add(tailcfg.MapResponse{})
		return msgs
	}
	for id, on := range d.OnlineChange {
		d.PeersChangedPatch = append(d.PeersChangedPatch, &tailcfg.PeerChange{NodeID: id, Online: &on})
	}
	if d.Node != nil {
		add(tailcfg.MapResponse{Node: d.Node})
	}
	changed := d.PeersChanged
	if d.PeersChangedPatch != nil {
		add(tailcfg.MapResponse{PeersChangedPatch: d.PeersChangedPatch})
		for _, c := range d.PeersChangedPatch {
			for _, p := range now.Peers {
				if p.ID == c.NodeID {
					changed = append(changed, p)
				}
			}
		}
	}
	switch {
	case !same(before.PacketFilters, now.PacketFilters):
		add(tailcfg.MapResponse{PacketFilters: now.PacketFilters, DNSConfig: now.DNSConfig,
			PeersChanged: now.Peers, PeersRemoved: d.PeersRemoved, UserProfiles: now.UserProfiles})
	case changed != nil || d.PeersRemoved != nil:
		add(tailcfg.MapResponse{PeersChanged: changed, PeersRemoved: d.PeersRemoved, UserProfiles: now.UserProfiles})
	case d.UserProfiles != nil:
		add(tailcfg.MapResponse{UserProfiles: d.UserProfiles})
	}
	return msgs
}

// ping asks a node for a HEAD request and waits for it.
func (t *tailnet) ping(k key.NodePublic) error {
	id := fmt.Sprint("ping", time.Now().UnixNano())
	answered := make(chan struct{})
	t.mu.Lock()
	t.pings[id] = answered
	t.raw[k] = append(t.raw[k], &tailcfg.MapResponse{PingRequest: &tailcfg.PingRequest{
		URL: t.server.ExplicitBaseURL + pingPath + "?id=" + id, Log: true}})
	t.wake()
	t.mu.Unlock()
	select {
	case <-answered:
		return nil
	case <-time.After(5 * time.Second):
		return fmt.Errorf("no answer")
	}
}

const pingPath = "/machine/ping-response"

// pinged takes the answer to ping, which comes outside the Noise channel.
func (t *tailnet) pinged(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodHead {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	id := r.FormValue("id")
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.pings[id]
	if c == nil {
		http.Error(w, "unknown or expired ping", http.StatusNotFound)
		return
	}
	delete(t.pings, id)
	close(c)
}
