package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/util/mak"
)

// An authKey admits nodes of a user, or tagged ones.
type authKey struct {
	Key, User           string
	Tags                []string
	Ephemeral, Reusable bool
	Preauthorized       bool // needs no approval
	used                bool
}

// A node is what we know of one beyond testcontrol.
type node struct {
	User      string
	Tags      []string
	Ephemeral bool
	Online    *bool // nil: as it is connected
	Approved  bool
	KeyExpiry time.Time // zero: never
	Removed   bool
	CapMap    tailcfg.NodeCapMap
	Name      string // "": its host name
	lastSeen  time.Time
	machine   key.MachinePublic

	// What it is told; nil: not any more.
	Notices map[tailcfg.DisplayMessageID]*tailcfg.DisplayMessage
}

type session struct {
	wake   chan struct{}
	cancel context.CancelFunc
}

// A login that a person has to complete at its URL.
type login struct {
	user string // "": not completed
	done chan struct{}
}

type tailnet struct {
	server    *testcontrol.Server
	front     *front
	relays    map[int]*derpRelay // by region
	domain    string
	full      bool
	headscale bool
	ephemeral time.Duration
	keepalive time.Duration
	crowd     *crowd
	hush      hush

	mu       sync.Mutex
	approval bool // new nodes wait for it
	unique   bool // a host name that is taken gets a number
	keys     map[string]*authKey
	clients  map[string]*oauthClient // by their secrets
	users    map[string]tailcfg.UserProfile
	nodes    map[key.NodePublic]*node
	pending  map[key.NodePublic]*node // register is under way
	logins   map[string]*login
	sessions map[key.NodePublic]*session
	filters  map[string][]tailcfg.FilterRule // nil: testcontrol's, which allows all
	raw      map[key.NodePublic][]*tailcfg.MapResponse
	pings    map[string]chan struct{}

	meshPings map[string]*meshPing
}

var taggedUser = tailcfg.UserProfile{ID: 2147455555, LoginName: "tagged-devices", DisplayName: "Tagged Devices"}

func newTailnet(s *testcontrol.Server, domain string, full bool, ephemeral time.Duration) *tailnet {
	t := &tailnet{
		server: s, domain: domain, full: full, ephemeral: ephemeral, keepalive: 50 * time.Second,
		keys:     map[string]*authKey{},
		clients:  map[string]*oauthClient{},
		users:    map[string]tailcfg.UserProfile{},
		nodes:    map[key.NodePublic]*node{},
		pending:  map[key.NodePublic]*node{},
		logins:   map[string]*login{},
		sessions: map[key.NodePublic]*session{},
		raw:      map[key.NodePublic][]*tailcfg.MapResponse{},
		pings:    map[string]chan struct{}{},

		meshPings: map[string]*meshPing{},
	}
	t.crowd = &crowd{tailnet: t}
	s.AltMapStream = t.mapStream
	return t
}

// profile is the user of a node; t.mu is held.
func (t *tailnet) profile(n *node) tailcfg.UserProfile {
	if len(n.Tags) > 0 {
		return taggedUser
	}
	u, ok := t.users[n.User]
	if !ok {
		u = tailcfg.UserProfile{
			ID: tailcfg.UserID(1000 + len(t.users)), LoginName: n.User,
			DisplayName:   strings.Split(n.User, "@")[0],
			ProfilePicURL: t.words("https://pics.test/"+n.User+".png", ""),
		}
		t.users[n.User] = u
	}
	return u
}

// wake lets every stream look for what changed; t.mu is held.
func (t *tailnet) wake() {
	for _, s := range t.sessions {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (t *tailnet) knows(k key.NodePublic) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[k]
	return n != nil && !n.Removed
}

func (n *node) expired() bool { return !n.KeyExpiry.IsZero() && n.KeyExpiry.Before(time.Now()) }

// admit decides on a register request before testcontrol sees it.  True: resp
// is the answer.
func (t *tailnet) admit(ctx context.Context, mk key.MachinePublic, r *tailcfg.RegisterRequest, resp *tailcfg.RegisterResponse) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.nodes[r.NodeKey]
	if !r.Expiry.IsZero() && r.Expiry.Before(time.Now()) {
		t.logout(known)
		resp.NodeKeyExpired = t.headscale
		return true
	}
	internal := &tailcfg.RegisterResponseAuth{AuthKey: t.server.RequireAuthKey}
	if known != nil && !known.Removed {
		if !known.expired() {
			r.Auth = internal
			return false
		}
		if r.Auth == nil {
			resp.NodeKeyExpired = true
			return true
		}
	}
	n := &node{machine: mk, Approved: !t.approval || t.headscale, Ephemeral: r.Ephemeral}
	switch {
	case r.Followup != "":
		if !t.followUp(ctx, r.Followup, n, resp) {
			return true
		}
		r.Followup = "" // testcontrol would wait for a login of its own
	case r.Auth == nil || r.Auth.AuthKey == "":
		resp.AuthURL = t.newLogin()
		return true
	default:
		k := t.keys[r.Auth.AuthKey]
		if k == nil {
			resp.Error = t.words("invalid auth key", "invalid pre auth key")
			return true
		}
		if k.used && !k.Reusable {
			resp.Error = t.words("auth key already used", "authkey already used")
			return true
		}
		k.used = true
		n.Approved = n.Approved || k.Preauthorized
		n.User, n.Tags, n.Ephemeral = k.User, slices.Clone(k.Tags), k.Ephemeral || r.Ephemeral
		for _, tag := range r.Hostinfo.RequestTags {
			if !slices.Contains(n.Tags, tag) {
				resp.Error = fmt.Sprintf("requested tags [%s] are invalid or not permitted", tag)
				return true
			}
		}
	}
	if t.headscale { // it knows a machine of the same user again
		for k, old := range t.nodes {
			if !old.Removed && old.machine == mk && t.profile(old).ID == t.profile(n).ID {
				r.OldNodeKey = k
			}
		}
	}
	if old := t.nodes[r.OldNodeKey]; old != nil && !old.Removed {
		n.Approved = n.Approved || old.Approved
		n.CapMap, n.Name = old.CapMap, old.Name
	}
	t.pending[r.NodeKey] = n
	r.Auth = internal
	return false
}

// words are those of the server that it is.
func (t *tailnet) words(official, headscale string) string {
	if t.headscale {
		return headscale
	}
	return official
}

func (t *tailnet) logout(n *node) {
	if n == nil {
		return
	}
	n.KeyExpiry = time.Unix(123, 0)
	if t.headscale {
		n.KeyExpiry = time.Now()
	}
	n.Removed = n.Removed || n.Ephemeral
	t.wake()
}

func (t *tailnet) newLogin() string {
	id := t.words("", "hskey-authreq-") + rand.Text()
	t.logins[id] = &login{done: make(chan struct{})}
	return t.server.ExplicitBaseURL + t.words("/auth/", "/register/") + id
}

// followUp waits for a login; t.mu is held before and after.
func (t *tailnet) followUp(ctx context.Context, url string, n *node, resp *tailcfg.RegisterResponse) bool {
	l := t.logins[url[strings.LastIndexByte(url, '/')+1:]]
	if l == nil {
		resp.AuthURL = t.newLogin()
		return false
	}
	t.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
	t.mu.Lock()
	if l.user == "" { // forgotten
		resp.AuthURL = t.newLogin()
	}
	n.User = l.user
	return l.user != ""
}

// admitted completes what testcontrol answered.
func (t *tailnet) admitted(r *tailcfg.RegisterRequest, resp *tailcfg.RegisterResponse) {
	all := t.server.AllNodes()
	t.mu.Lock()
	n := t.pending[r.NodeKey]
	if n != nil && t.unique && n.Name == "" {
		n.Name = t.freeName(all, r.Hostinfo.Hostname, n.machine)
	}
	if n != nil && resp.Error == "" {
		delete(t.pending, r.NodeKey)
		t.nodes[r.NodeKey] = n
		for k, old := range t.nodes { // a machine is one node
			old.Removed = old.Removed || old.machine == n.machine && k != r.NodeKey
		}
	}
	n = t.nodes[r.NodeKey]
	if n == nil {
		t.mu.Unlock()
		return
	}
	p := t.profile(n)
	resp.MachineAuthorized = n.Approved
	t.mu.Unlock()
	resp.User = tailcfg.User{ID: p.ID, DisplayName: p.DisplayName, ProfilePicURL: p.ProfilePicURL}
	resp.Login = tailcfg.Login{ID: tailcfg.LoginID(p.ID), Provider: "test", LoginName: p.LoginName, DisplayName: p.DisplayName}
	if tn := t.server.Node(r.NodeKey); tn != nil {
		tn.User, tn.Tags = p.ID, n.Tags
		t.server.UpdateNode(tn)
	}
}

// freeName is "" where nobody else has that host name; t.mu is held.
func (t *tailnet) freeName(all []*tailcfg.Node, host string, mk key.MachinePublic) string {
	same := 0
	for _, tn := range all {
		n := t.nodes[tn.Key]
		if n != nil && !n.Removed && n.machine != mk && tn.Hostinfo.Valid() && tn.Hostinfo.Hostname() == host {
			same++
		}
	}
	if same == 0 {
		return ""
	}
	return fmt.Sprintf("%s-%d", host, same)
}

// build is the whole netmap of a node; nil: it is removed.
func (t *tailnet) build(req *tailcfg.MapRequest) *tailcfg.MapResponse {
	res, err := t.server.MapResponse(req)
	if err != nil || res == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	me := t.nodes[req.NodeKey]
	if me == nil || me.Removed {
		return nil
	}
	now := time.Now().UTC()
	res.ControlTime = &now
	for id, m := range me.Notices {
		if m != nil {
			mak.Set(&res.DisplayMessages, id, m)
		}
	}
	res.Domain = t.domain
	users := map[tailcfg.UserID]tailcfg.UserProfile{}
	t.dress(res.Node, me, true, users)
	peers := res.Peers
	res.Peers = nil
	for _, p := range peers {
		n := t.nodes[p.Key]
		if n == nil || n.Removed || !n.Approved || !me.Approved {
			continue
		}
		t.dress(p, n, false, users)
		res.Peers = append(res.Peers, p)
	}
	res.UserProfiles = nil
	for _, u := range users {
		res.UserProfiles = append(res.UserProfiles, u)
	}
	slices.SortFunc(res.UserProfiles, func(a, b tailcfg.UserProfile) int { return int(a.ID - b.ID) })
	if t.headscale {
		t.headscaleBuild(res, me)
	} else if t.filters != nil {
		res.PacketFilter, res.PacketFilters = nil, t.filters
	}
	return res
}

// dress puts what we know of a node into testcontrol's; t.mu is held.
func (t *tailnet) dress(tn *tailcfg.Node, n *node, self bool, users map[tailcfg.UserID]tailcfg.UserProfile) {
	u := t.profile(n)
	users[u.ID] = u
	// Copies: a command writes into what a stream still compares with.
	tn.User, tn.Tags = u.ID, slices.Clone(n.Tags)
	tn.MachineAuthorized = n.Approved
	tn.KeyExpiry = n.KeyExpiry.UTC()
	tn.Expired = !self && n.expired()
	tn.Capabilities, tn.CapMap = nil, maps.Clone(n.CapMap)
	tn.Created = time.Unix(1700000000, 0).UTC()
	online := t.sessions[tn.Key] != nil
	if n.Online != nil {
		online = *n.Online
	}
	tn.Online = &online
	if !online && !n.lastSeen.IsZero() {
		seen := n.lastSeen.UTC().Truncate(time.Second)
		tn.LastSeen = &seen
	}
	if n.Name != "" {
		tn.Name = n.Name
	}
	if !strings.Contains(strings.TrimSuffix(tn.Name, "."), ".") {
		tn.Name += "." + t.domain + "."
	}
}

func same(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
