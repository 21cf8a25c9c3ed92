package main

import (
	"context"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/util/mak"
)

// learn takes what a lite update says of its node: with AltMapStream,
// testcontrol leaves that to us.
func (t *tailnet) learn(req *tailcfg.MapRequest) {
	n := t.server.Node(req.NodeKey)
	if n == nil {
		return
	}
	n.DiscoKey, n.Cap = req.DiscoKey, req.Version
	if req.Endpoints != nil || !t.headscale {
		n.Endpoints = req.Endpoints
	}
	if req.Hostinfo != nil {
		n.Hostinfo = req.Hostinfo.View()
		if ni := n.Hostinfo.NetInfo(); ni.Valid() && ni.PreferredDERP() != 0 {
			n.HomeDERP = ni.PreferredDERP()
		}
	}
	t.server.UpdateNode(n)
	t.mu.Lock()
	t.wake()
	t.mu.Unlock()
}

func (t *tailnet) mapStream(ctx context.Context, w testcontrol.MapStreamWriter, req *tailcfg.MapRequest) {
	if !req.Stream {
		t.learn(req)
		if !req.OmitPeers {
			if r := t.build(req); r != nil {
				w.SendMapMessage(r)
			}
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	me := t.enter(req.NodeKey, cancel)
	defer t.leave(req.NodeKey, me)

	var before *tailcfg.MapResponse
	keepalive := time.NewTicker(t.keepalive)
	defer keepalive.Stop()
	for {
		now := t.build(req)
		if now == nil && !t.headscale {
			return // removed
		}
		msgs := append(t.news(before, now), t.takeRaw(req.NodeKey)...)
		before = now
		for _, m := range msgs {
			t.hush.wait(ctx)
			if w.SendMapMessage(m) != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-me.wake:
		case <-keepalive.C:
			t.hush.wait(ctx)
			if w.SendMapMessage(&tailcfg.MapResponse{KeepAlive: true}) != nil {
				return
			}
		}
	}
}

// news are the messages that make now of before.
func (t *tailnet) news(before, now *tailcfg.MapResponse) []*tailcfg.MapResponse {
	switch {
	case now == nil: // a Headscale streams on to a node that is removed
		return nil
	case before == nil || t.full:
		return []*tailcfg.MapResponse{t.crowd.join(now)}
	case t.headscale:
		return headscaleNews(before, now)
	}
	if d := diff(before, now); d != nil {
		return []*tailcfg.MapResponse{d}
	}
	return nil
}

func (t *tailnet) takeRaw(k key.NodePublic) []*tailcfg.MapResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw := t.raw[k]
	delete(t.raw, k)
	return raw
}

func (t *tailnet) enter(k key.NodePublic, cancel context.CancelFunc) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.sessions[k]; old != nil {
		old.cancel()
	}
	s := &session{make(chan struct{}, 1), cancel}
	t.sessions[k] = s
	t.wake()
	return s
}

func (t *tailnet) leave(k key.NodePublic, s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[k] != s {
		return
	}
	delete(t.sessions, k)
	if n := t.nodes[k]; n != nil {
		n.lastSeen = time.Now()
		if n.Ephemeral {
			time.AfterFunc(t.ephemeral, func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				n.Removed = n.Removed || t.sessions[k] == nil
				t.wake()
			})
		}
	}
	t.wake()
}

// diff is the message that makes now of before, nil: they are the same.
func diff(before, now *tailcfg.MapResponse) *tailcfg.MapResponse {
	d := new(tailcfg.MapResponse)
	if !same(before.Node, now.Node) {
		d.Node = now.Node
	}
	if !same(before.DERPMap, now.DERPMap) {
		d.DERPMap = now.DERPMap
	}
	if !same(before.PacketFilters, now.PacketFilters) || !same(before.PacketFilter, now.PacketFilter) {
		d.PacketFilter, d.PacketFilters = now.PacketFilter, filterDiff(before.PacketFilters, now.PacketFilters)
	}
	if !same(before.UserProfiles, now.UserProfiles) {
		d.UserProfiles = now.UserProfiles
	}
	for id := range before.DisplayMessages {
		if now.DisplayMessages[id] == nil {
			mak.Set(&d.DisplayMessages, id, nil)
		}
	}
	for id, m := range now.DisplayMessages {
		if !same(before.DisplayMessages[id], m) {
			mak.Set(&d.DisplayMessages, id, m)
		}
	}
	old := map[tailcfg.NodeID]*tailcfg.Node{}
	for _, p := range before.Peers {
		old[p.ID] = p
	}
	for _, p := range now.Peers {
		o := old[p.ID]
		delete(old, p.ID)
		switch {
		case o == nil:
			d.PeersChanged = append(d.PeersChanged, p)
		case !same(o, p):
			peerDiff(d, o, p)
		}
	}
	for id := range old {
		d.PeersRemoved = append(d.PeersRemoved, id)
	}
	if same(d, new(tailcfg.MapResponse)) {
		return nil
	}
	return d
}

// filterDiff drops the chunks that are gone, first of all testcontrol's own.
func filterDiff(before, now map[string][]tailcfg.FilterRule) map[string][]tailcfg.FilterRule {
	if now == nil {
		return nil
	}
	d := map[string][]tailcfg.FilterRule{}
	if before == nil {
		d["*"] = nil
	}
	for name := range before {
		d[name] = nil
	}
	for name, rules := range now {
		if rules == nil {
			rules = []tailcfg.FilterRule{}
		}
		d[name] = rules
	}
	return d
}

// peerDiff says what became of a peer by a patch, or whole where a patch has no
// field for it.
func peerDiff(d *tailcfg.MapResponse, o, p *tailcfg.Node) {
	rest := *o
	rest.Endpoints, rest.HomeDERP, rest.DiscoKey, rest.Key, rest.Online, rest.LastSeen = p.Endpoints, p.HomeDERP, p.DiscoKey, p.Key, p.Online, p.LastSeen
	rest.KeyExpiry, rest.Cap, rest.CapMap, rest.Hostinfo = p.KeyExpiry, p.Cap, p.CapMap, p.Hostinfo
	if !same(rest, p) {
		d.PeersChanged = append(d.PeersChanged, p)
		return
	}
	c := &tailcfg.PeerChange{NodeID: p.ID}
	if !same(o.Endpoints, p.Endpoints) {
		c.Endpoints = p.Endpoints
	}
	if o.HomeDERP != p.HomeDERP {
		c.DERPRegion = p.HomeDERP
	}
	if o.DiscoKey != p.DiscoKey {
		c.DiscoKey = &p.DiscoKey
	}
	if o.Key != p.Key {
		c.Key = &p.Key
	}
	if !o.KeyExpiry.Equal(p.KeyExpiry) {
		c.KeyExpiry = &p.KeyExpiry
	}
	if o.Cap != p.Cap {
		c.Cap = p.Cap
	}
	if !same(o.CapMap, p.CapMap) {
		c.CapMap = p.CapMap
		if c.CapMap == nil {
			c.CapMap = tailcfg.NodeCapMap{}
		}
	}
	// The older form of the same news, where there is no other.
	if same(c, &tailcfg.PeerChange{NodeID: p.ID}) && p.LastSeen == nil && p.Online != nil {
		if d.OnlineChange == nil {
			d.OnlineChange = map[tailcfg.NodeID]bool{}
		}
		d.OnlineChange[p.ID] = *p.Online
		return
	}
	c.Online, c.LastSeen = p.Online, p.LastSeen
	d.PeersChangedPatch = append(d.PeersChangedPatch, c)
}
