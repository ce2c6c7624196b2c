package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/postern-link/postern/link"
)

const (
	// Each server is asked twice. firstTry is how long it has for one answer in the first round, less than flows wait for the
	// first probes after a start, so that one dead server keeps none of them out; oneTry in the second; whole all of them together.
	firstTry = 500 * time.Millisecond
	oneTry   = 2 * time.Second
	whole    = 10 * time.Second
	// udpSize is what fits every path (RFC 9715, 3.2); a longer answer comes over TCP.
	udpSize = 1232
)

// Asker asks servers for addresses.
type Asker struct {
	// Servers returns whom to ask, in order, or why there is nobody.
	Servers func() ([]netip.AddrPort, error)
}

// Lookup asks for the addresses of a name, of both families at once. Of each, the first server that gives an answer counts,
// be it that there is no address or no such name; one that doesn't answer, or answers that it can't say, is passed over.
func (a *Asker) Lookup(ctx context.Context, name link.Name) (f Found) {
	servers, err := a.Servers()
	if err != nil {
		return Found{Half{Err: err}, Half{Err: err}}
	}
	ctx, cancel := context.WithTimeout(ctx, whole)
	defer cancel()
	var other sync.WaitGroup
	other.Go(func() { f.V6 = family(ctx, servers, name, dns.TypeAAAA) })
	f.V4 = family(ctx, servers, name, dns.TypeA)
	other.Wait()
	return f
}

// family asks the servers for the addresses of a family.
func family(ctx context.Context, servers []netip.AddrPort, name link.Name, qtype uint16) (h Half) {
	q := dns.Question{Name: string(name) + ".", Qtype: qtype, Qclass: dns.ClassINET}
	h.Err = errors.New("there is no server to ask")
	for _, patience := range [...]time.Duration{firstTry, oneTry} {
		for _, server := range servers {
			if ctx.Err() != nil {
				return h
			}
			if h.Addrs, h.TTL, h.Err = ask(ctx, server, q, patience); h.Err == nil {
				return h
			}
			h.Err = fmt.Errorf("ask %v: %w", server, h.Err)
		}
	}
	return h
}

// ask asks a server, over UDP, and where the answer doesn't fit over TCP (RFC 7766).
func ask(ctx context.Context, server netip.AddrPort, q dns.Question, patience time.Duration) ([]netip.Addr, time.Duration, error) {
	addrs, ttl, err := exchange(ctx, "udp", server, q, patience)
	if errors.Is(err, errTruncated) {
		return exchange(ctx, "tcp", server, q, patience)
	}
	return addrs, ttl, err
}

// exchange asks one question on a socket of its own, so that the port is a secret as the ID is (RFC 5452).
func exchange(called context.Context, network string, server netip.AddrPort, q dns.Question, patience time.Duration) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(called, patience)
	defer cancel()
	client := dns.Client{Net: network, Timeout: patience, UDPSize: udpSize}
	conn, err := client.DialContext(ctx, server.String())
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(called, func() { conn.Close() }) // no deadline, which the exchange sets too
	defer stop()
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{q}}
	m.SetEdns0(udpSize, false)
	answer, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	if err != nil {
		return nil, 0, err
	}
	return read(answer, q)
}
