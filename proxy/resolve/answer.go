package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxChain bounds the aliases from a name to its addresses.
const maxChain = 16

// What is wrong with an answer.
var (
	errForeign   = errors.New("the answer is to another question")
	errTruncated = errors.New("the answer is cut short")
	errChain     = errors.New("the answer is a chain of aliases without end")
)

// read returns the addresses that an answer to a question has, and for how long they hold: the shortest time of all
// records on the way (RFC 2181, 5.2). Records count only where they are what the question leads to, through aliases
// (RFC 1034, 3.6.2); what else an answer has, nobody has asked for. That there are none is no error (RFC 2308).
func read(m *dns.Msg, q dns.Question) (addrs []netip.Addr, ttl time.Duration, err error) {
	if !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || !same(m.Question[0], q) {
		return nil, 0, errForeign
	}
	switch {
	case m.Truncated:
		return nil, 0, errTruncated
	case m.Rcode == dns.RcodeNameError:
		return nil, 0, nil
	case m.Rcode != dns.RcodeSuccess:
		return nil, 0, fmt.Errorf("it answers %s", rcode(m.Rcode))
	}
	ttl = MostTTL
	owner := strings.ToLower(q.Name)
	for range maxChain {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, owner) {
				continue
			}
			a, alias := value(rr, q.Qtype)
			switch {
			case a.IsValid():
				addrs = append(addrs, a)
			case alias != "" && next == "":
				next = alias
			default:
				continue
			}
			ttl = min(ttl, seconds(h.Ttl))
		}
		if next == "" || len(addrs) > 0 {
			return addrs, ttl, nil
		}
		owner = strings.ToLower(next)
	}
	return nil, 0, errChain
}

// value returns the address or the alias of a record of the type that is asked for.
func value(rr dns.RR, qtype uint16) (a netip.Addr, alias string) {
	switch r := rr.(type) {
	case *dns.CNAME:
		return a, r.Target
	case *dns.A:
		if qtype == dns.TypeA {
			a, _ = netip.AddrFromSlice(r.A.To4())
		}
	case *dns.AAAA:
		if qtype == dns.TypeAAAA {
			a, _ = netip.AddrFromSlice(r.AAAA.To16())
		}
	}
	return a.Unmap(), ""
}

func same(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// seconds is a time to live; those with the highest bit are taken for zero (RFC 2181, 8).
func seconds(ttl uint32) time.Duration {
	if ttl >= 1<<31 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

func rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", code)
}
