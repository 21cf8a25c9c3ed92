package main

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// peer is one -peer flag:
//
//	pub=KEY,endpoint=IP:PORT,allowed=CIDR+CIDR,psk=KEY,keepalive=SECONDS
//
// Only pub is required.
type peer struct {
	pub       []byte
	endpoint  netip.AddrPort
	allowed   []netip.Prefix
	psk       []byte
	keepalive uint16
}

func parsePeer(spec string) (*peer, error) {
	p := &peer{}
	for field := range strings.SplitSeq(spec, ",") {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("peer: %q is not NAME=VALUE", field)
		}
		if err := p.set(name, value); err != nil {
			return nil, fmt.Errorf("peer: %s: %w", name, err)
		}
	}
	if p.pub == nil {
		return nil, fmt.Errorf("peer: no pub=")
	}
	return p, nil
}

func (p *peer) set(name, value string) (err error) {
	switch name {
	case "pub":
		p.pub, err = parseKey(value)
	case "psk":
		p.psk, err = parseKey(value)
	case "endpoint":
		p.endpoint, err = netip.ParseAddrPort(value)
	case "allowed":
		for cidr := range strings.SplitSeq(value, "+") {
			prefix, err := netip.ParsePrefix(cidr)
			if err != nil {
				return err
			}
			p.allowed = append(p.allowed, prefix.Masked())
		}
	case "keepalive":
		var seconds uint64
		seconds, err = strconv.ParseUint(value, 10, 16)
		p.keepalive = uint16(seconds)
	default:
		err = fmt.Errorf("no such option")
	}
	return err
}

// uapi is the peer in the words of WireGuard's configuration protocol.
func (p *peer) uapi() string {
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%s\n", hex.EncodeToString(p.pub))
	if p.psk != nil {
		fmt.Fprintf(&b, "preshared_key=%s\n", hex.EncodeToString(p.psk))
	}
	if p.endpoint.IsValid() {
		fmt.Fprintf(&b, "endpoint=%s\n", p.endpoint)
	}
	b.WriteString("replace_allowed_ips=true\n")
	for _, prefix := range p.allowed {
		fmt.Fprintf(&b, "allowed_ip=%s\n", prefix)
	}
	fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", p.keepalive)
	return b.String()
}
