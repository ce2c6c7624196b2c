// Package frontend asks a provider's front end what a client can reach that was let in for one name and wants another
// one. Postern judges the name in the clear part of TLS; what comes after is between client and provider, and this is
// how the provider finds out whether its server holds to the name.
//
// It knows both sites by fetching them as they should be, and takes an outcome for good only where the request was
// refused or the first site answered. What is neither is unknown.
package frontend

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// Config is one check.
type Config struct {
	Addr        string    // HOST:PORT of the front end
	Name, Other link.Name // of two customers: a client that was let in for Name wants Other
	Path        string    // what is requested; empty: "/"
	// Expect is text that the other site has and the first one doesn't; empty: the sites are told apart by status,
	// headers and content.
	Expect string
	// Roots verify the certificates of the two sites; nil are the system's. Insecure verifies none.
	Roots    *x509.CertPool
	Insecure bool
	// Header is the PROXY header that the front end expects of Postern; empty or off: none. LinkID is the one it says.
	Header link.ProxyProtocol
	LinkID link.LinkID
	// Timeout bounds each connection; zero: 10 s.
	Timeout time.Duration
}

// Verdict is the outcome of an item.
type Verdict string

// Verdicts. An outcome that isn't clear is Unknown, never Pass.
const (
	Pass    Verdict = "pass"
	Unknown Verdict = "unknown"
	Fail    Verdict = "fail"
)

// Item is one thing that was tried.
type Item struct {
	Name    string  `json:"item"`
	Verdict Verdict `json:"verdict"`
	Seen    string  `json:"seen"`
	// Do says what to do unless the item passes, with the section of the manual.
	Do string `json:"do,omitempty"`
}

// Report is what came out.
type Report struct {
	Address string    `json:"address"`
	Name    link.Name `json:"name"`
	Other   link.Name `json:"other"`
	Verdict Verdict   `json:"verdict"` // the worst of all items
	Items   []Item    `json:"items"`
}

// items are tried in this order.
var items = []struct {
	name string
	try  func(*probe, context.Context) []result
	do   string
}{
	{"no-name", (*probe).noName, "refuse hellos without a name"},
	{"host", (*probe).host, "answer 421 where Host isn't the server name"},
	{"authority", (*probe).authority, "answer 421 where :authority isn't the server name"},
	{"host-form", (*probe).hostForm, "compare the host that the server has parsed, without port, dot and case"},
	{"name-form", (*probe).nameForm, "refuse server names that end in a dot, compare without case"},
	{"absolute-form", (*probe).absoluteForm, "compare the host that the server has parsed, not the header"},
	{"two-hosts", (*probe).twoHosts, "answer 400 to two Host headers"},
	{"pipelined", (*probe).pipelined, "compare on every request, not on the first of a connection"},
	{"session-id", (*probe).sessionID, "speak TLS 1.3 only, or keep no sessions"},
	{"session-ticket", (*probe).sessionTicket, "speak TLS 1.3 only, or give no tickets"},
	{"psk", (*probe).psk, "bind sessions to the name, or give no tickets"},
	{"second-hello", (*probe).secondHello, "compare with the name in the PROXY header, or use a TLS library that refuses a changed second hello"},
	{"ech", (*probe).ech, "hold no keys for Encrypted ClientHello on this front end"},
	{"renegotiation", (*probe).renegotiation, "refuse renegotiation that clients ask for"},
	{"proxy-header", (*probe).proxyHeader, "take a PROXY header from Postern's addresses only, and one only"},
	{"proxy-missing", (*probe).proxyMissing, "demand the PROXY header, don't guess whether there is one"},
}

// manual is where each item has a section of its name.
const manual = "docs/providers.md"

// Check tries everything. An error says that nothing could be tried: the sites can't be reached as they should be, or not
// be told apart.
func Check(ctx context.Context, cfg Config) (*Report, error) {
	p, err := newProbe(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r := &Report{Address: cfg.Addr, Name: cfg.Name, Other: cfg.Other, Verdict: Pass}
	for _, i := range items {
		results := i.try(p, ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(results) == 0 {
			continue // doesn't apply to this configuration
		}
		it := summary(results)
		it.Name = i.name
		it.Do = fmt.Sprintf("%s: %s#%s", i.do, manual, i.name)
		r.Items = append(r.Items, it)
	}
	p.stillThere(ctx, r)
	for i := range r.Items {
		if r.Items[i].Verdict == Pass {
			r.Items[i].Do = ""
		}
		r.Verdict = worse(r.Verdict, r.Items[i].Verdict)
	}
	return r, nil
}

// stillThere takes back what rests on refusals, if the front end has meanwhile begun to refuse everything.
func (p *probe) stillThere(ctx context.Context, r *Report) {
	got := p.fetch(ctx, p.name)
	if got.reply != nil && p.name.is(got.reply) {
		return
	}
	for i := range r.Items {
		if it := &r.Items[i]; it.Verdict == Pass {
			it.Verdict = Unknown
			it.Seen = fmt.Sprintf("%s; but at the end %s wasn't answered as in the beginning either (%s)", it.Seen, p.cfg.Name, got)
		}
	}
}

// result is one try of an item.
type result struct {
	verdict Verdict
	what    string // what was tried, where an item has several; may be empty
	seen    string
}

func worse(x, y Verdict) Verdict {
	for _, v := range []Verdict{Fail, Unknown} {
		if x == v || y == v {
			return v
		}
	}
	return Pass
}

// summary makes one line of the tries that decide: the worst ones.
func summary(results []result) Item {
	it := Item{Verdict: Pass}
	for _, r := range results {
		it.Verdict = worse(it.Verdict, r.verdict)
	}
	var order []string
	what := map[string][]string{}
	for _, r := range results {
		if r.verdict != it.Verdict {
			continue
		}
		if _, ok := what[r.seen]; !ok {
			order = append(order, r.seen)
		}
		if r.what != "" {
			what[r.seen] = append(what[r.seen], r.what)
		} else if what[r.seen] == nil {
			what[r.seen] = []string{}
		}
	}
	var parts []string
	for _, seen := range order {
		if w := what[seen]; len(w) > 0 {
			seen = strings.Join(w, ", ") + ": " + seen
		}
		parts = append(parts, seen)
	}
	it.Seen = strings.Join(parts, "; ")
	return it
}
