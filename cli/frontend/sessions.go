package frontend

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/postern-link/postern/policy/hello/rawhello"
)

// without returns the results of items that a front end can't fail that doesn't speak a version of TLS; nil if it does.
func (p *probe) without(ctx context.Context, version uint16, name string) []result {
	switch yes, err := p.speaks(ctx, version); {
	case err != nil:
		return []result{{Unknown, "", short(err.Error())}}
	case !yes:
		return []result{{Pass, "", "no " + name + " is spoken"}}
	}
	return nil
}

// sessionID: servers keep no session of a client that takes tickets, so this one doesn't.
func (p *probe) sessionID(ctx context.Context) []result {
	ask := func(h *rawhello.Hello) *rawhello.Hello { return h.Drop(rawhello.ExtTicket) }
	return p.sessions12(ctx, ask, func(s *rawhello.Session) bool { return len(s.ID) > 0 }, (*rawhello.Hello).ResumeID)
}

func (p *probe) sessionTicket(ctx context.Context) []result {
	ask := func(h *rawhello.Hello) *rawhello.Hello { return h } // New12 does
	return p.sessions12(ctx, ask, func(s *rawhello.Session) bool { return len(s.Ticket) > 0 }, (*rawhello.Hello).ResumeTicket)
}

// sessions12 resumes a session of TLS 1.2 of one name with a hello that says the other one, both ways.
func (p *probe) sessions12(ctx context.Context, ask func(*rawhello.Hello) *rawhello.Hello, has func(*rawhello.Session) bool,
	resume func(*rawhello.Hello, *rawhello.Session) *rawhello.Hello) []result {
	if r := p.without(ctx, rawhello.TLS12, "TLS 1.2"); r != nil {
		return r
	}
	var all []result
	for _, q := range []*probe{p, p.swapped()} {
		what := fmt.Sprintf("session of %s with the name %s", q.other.name, q.name.name)
		theirs := *q
		theirs.name = q.other
		text := request(q.cfg.Path, string(q.other.name))
		o, s := theirs.raw(ctx, rawhello.Config{Hello: ask(rawhello.New12(string(q.other.name)))}, text)
		switch {
		case o.reply == nil:
			all = append(all, result{Unknown, what, fmt.Sprintf("no session to begin with: %s", o)})
		case s == nil || !has(s):
			all = append(all, result{Pass, what, "none is given"})
		default:
			again := resume(ask(rawhello.New12(string(q.name.name))), s)
			o, _ := q.raw(ctx, rawhello.Config{Hello: again}, text)
			all = append(all, q.resumed(o).of(what))
		}
	}
	return all
}

// resumed judges an attempt to resume. A session that wasn't taken led nowhere: what the request then got is for the
// other items.
func (p *probe) resumed(o outcome) result {
	r := p.judge(o)
	switch {
	case o.reply != nil && !o.resumed:
		return result{Pass, "", "not resumed"}
	case o.reply != nil:
		r.seen = "resumed: " + r.seen
	}
	return r
}

// psk resumes a session of TLS 1.3 of one name with a hello that says the other one, both ways.
func (p *probe) psk(ctx context.Context) []result {
	if r := p.without(ctx, rawhello.TLS13, "TLS 1.3"); r != nil {
		return r
	}
	var all []result
	for _, q := range []*probe{p, p.swapped()} {
		what := fmt.Sprintf("session of %s with the name %s", q.other.name, q.name.name)
		theirs := *q
		theirs.name = q.other
		var kept session
		cfg := q.config(q.other.name)
		cfg.MinVersion, cfg.ClientSessionCache = tls.VersionTLS13, &kept
		text := request(q.cfg.Path, string(q.other.name))
		first := theirs.get(ctx, cfg, text)
		switch {
		case first.reply == nil:
			all = append(all, result{Unknown, what, fmt.Sprintf("no session to begin with: %s", first)})
		case kept.state == nil:
			all = append(all, result{Pass, what, "none is given"})
		default:
			// The client's own check, that a session is used with its name only, is what is left out here.
			cfg = q.config(q.name.name)
			cfg.MinVersion, cfg.ClientSessionCache, cfg.InsecureSkipVerify = tls.VersionTLS13, &kept, true
			all = append(all, q.resumed(q.get(ctx, cfg, text)).of(what))
		}
	}
	return all
}

// session is a cache of the one session that came last, whatever its name.
type session struct{ state *tls.ClientSessionState }

// Get returns the session for any name.
func (s *session) Get(string) (*tls.ClientSessionState, bool) { return s.state, s.state != nil }

// Put keeps a session.
func (s *session) Put(_ string, state *tls.ClientSessionState) {
	if state != nil {
		s.state = state
	}
}

// secondHello: the server asks for a second hello, and gets one that isn't the first.
func (p *probe) secondHello(ctx context.Context) []result {
	if r := p.without(ctx, rawhello.TLS13, "TLS 1.3"); r != nil {
		return r
	}
	other := string(p.other.name)
	var all []result
	for _, h := range []struct {
		what   string
		change func(*rawhello.Hello) *rawhello.Hello
	}{
		{"the other name", func(h *rawhello.Hello) *rawhello.Hello { return h.Set(rawhello.Names(other)) }},
		{"no name", func(h *rawhello.Hello) *rawhello.Hello { return h.Drop(rawhello.ExtServerName) }},
		{"the other name and ECH", func(h *rawhello.Hello) *rawhello.Hello { return h.Set(rawhello.Names(other)).Add(rawhello.ECH()) }},
	} {
		o, _ := p.raw(ctx, rawhello.Config{Hello: rawhello.New(string(p.name.name)).Share(), Second: h.change}, request(p.cfg.Path, other))
		r := p.judge(o)
		switch {
		case !o.state.Retried:
			r = result{Unknown, "", fmt.Sprintf("no second hello was asked for: %s", o)}
		case r.verdict == Unknown && o.reply != nil && p.foreign(o):
			r = result{Fail, "", r.seen + ", with the certificate of the other site"}
		}
		all = append(all, r.of(h.what))
	}
	return all
}

// foreign reports whether the certificate is good for the other name and not for the first.
func (p *probe) foreign(o outcome) bool {
	c := o.state.Certificates
	return len(c) > 0 && c[0].VerifyHostname(string(p.other.name)) == nil && c[0].VerifyHostname(string(p.name.name)) != nil
}

// ech: whoever has keys for Encrypted ClientHello may serve another name than the one in clear.
func (p *probe) ech(ctx context.Context) []result {
	if r := p.without(ctx, rawhello.TLS13, "TLS 1.3"); r != nil {
		return r
	}
	h := rawhello.New(string(p.name.name)).Add(rawhello.ECH())
	o, _ := p.raw(ctx, rawhello.Config{Hello: h}, request(p.cfg.Path, string(p.name.name)))
	switch {
	case o.state.RetryConfigs:
		return []result{{Fail, "", "the server has keys for Encrypted ClientHello: the name that Postern reads needn't be the one that is served"}}
	case o.reply != nil && p.own(o.reply):
		return []result{{Pass, "", "no keys for Encrypted ClientHello"}}
	case o.refused:
		return []result{{Pass, "", o.String()}}
	}
	return []result{{Unknown, "", o.String()}}
}

// renegotiation: a client of TLS 1.2 asks for another handshake, with the other name in it, where nobody sees it.
func (p *probe) renegotiation(ctx context.Context) []result {
	if r := p.without(ctx, rawhello.TLS12, "TLS 1.2"); r != nil {
		return r
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return []result{p.judge(outcome{err: err})}
	}
	defer conn.Close()
	c, err := rawhello.Handshake(conn, rawhello.Config{Hello: rawhello.New12(string(p.name.name))})
	if err != nil {
		return []result{{Unknown, "", short(err.Error())}}
	}
	err = c.Renegotiate(rawhello.New12(string(p.other.name)))
	o := ended(outcome{}, err)
	switch {
	case err == nil:
		return []result{{Fail, "", "the server renegotiates when a client asks for it"}}
	case o.refused:
		return []result{{Pass, "", o.String()}}
	}
	return []result{{Unknown, "", o.String()}}
}
