package frontend

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http2"

	"github.com/postern-link/postern/policy/hello/rawhello"
)

// of is the result with the words for what was tried.
func (r result) of(what string) result {
	r.what = what
	return r
}

// noName: which site is it that answers a client without a name? Each of the two is somebody's.
func (p *probe) noName(ctx context.Context) (all []result) {
	for _, h := range []struct {
		what string
		of   *rawhello.Hello
	}{{"no name", rawhello.New()}, {"an empty name", rawhello.New("")}} {
		for _, q := range []*probe{p, p.swapped()} {
			host := string(q.other.name)
			o, _ := q.raw(ctx, rawhello.Config{Hello: h.of}, request(q.cfg.Path, host))
			r := q.judge(o)
			if o.reply != nil && q.own(o.reply) {
				r = result{Fail, "", fmt.Sprintf("the site of %s answered", q.name.name)}
			}
			if names := o.state.Certificates; o.reply != nil && len(names) > 0 {
				r.seen += fmt.Sprintf(", with the certificate of %s", short(strings.Join(append(names[0].DNSNames, names[0].Subject.CommonName)[:1], "")))
			}
			all = append(all, r.of(h.what+" and Host "+host))
		}
	}
	return all
}

// plain requests something on a connection for the first name.
func (p *probe) plain(ctx context.Context, text string) result {
	return p.judge(p.get(ctx, p.config(p.name.name), text))
}

func (p *probe) host(ctx context.Context) []result {
	return []result{p.plain(ctx, request(p.cfg.Path, string(p.other.name)))}
}

// hostForm: other spellings of the other name, which a comparison may miss and a server accept.
func (p *probe) hostForm(ctx context.Context) (all []result) {
	name := string(p.other.name)
	for _, h := range []struct{ what, host string }{
		{"upper case", strings.ToUpper(name)}, {"trailing dot", name + "."}, {"port", name + ":443"}, {"dot and port", name + ".:443"},
	} {
		all = append(all, p.plain(ctx, request(p.cfg.Path, h.host)).of(h.what))
	}
	return all
}

// nameForm: other spellings of the first name as server name. The first two are what Postern lets in and doesn't.
func (p *probe) nameForm(ctx context.Context) (all []result) {
	name := string(p.name.name)
	for _, h := range []struct{ what, name string }{{"upper case", strings.ToUpper(name)}, {"trailing dot", name + "."}, {"port", name + ":443"}} {
		o, _ := p.raw(ctx, rawhello.Config{Hello: rawhello.New(h.name)}, request(p.cfg.Path, string(p.other.name)))
		all = append(all, p.judge(o).of(h.what))
	}
	return all
}

// absoluteForm: a request line with a whole URL, which stands above Host (RFC 9112 section 3.2.2).
func (p *probe) absoluteForm(ctx context.Context) (all []result) {
	name, other := string(p.name.name), string(p.other.name)
	for _, scheme := range []string{"https", "http"} {
		all = append(all, p.plain(ctx, request(scheme+"://"+other+p.cfg.Path, name)).of(scheme))
	}
	return append(all, p.plain(ctx, request("https://"+name+p.cfg.Path, other)).of("the other way around"))
}

func (p *probe) twoHosts(ctx context.Context) []result {
	name, other := string(p.name.name), string(p.other.name)
	return []result{
		p.plain(ctx, request(p.cfg.Path, name, other)).of("the other name last"),
		p.plain(ctx, request(p.cfg.Path, other, name)).of("the other name first"),
	}
}

// pipelined: two requests in one go, the second one for the other site.
func (p *probe) pipelined(ctx context.Context) []result {
	conn, err := p.dial(ctx)
	if err != nil {
		return []result{p.judge(outcome{err: err})}
	}
	defer conn.Close()
	c := tls.Client(conn, p.config(p.name.name))
	if err := c.HandshakeContext(ctx); err != nil {
		return []result{{Unknown, "", short(err.Error())}} // this name is served: it was a moment ago
	}
	first := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", p.cfg.Path, p.name.name, fields)
	return []result{p.judge(p.answers(c, first+request(p.cfg.Path, string(p.other.name)), 2))}
}

// authority: HTTP/2, a request for each site on one connection.
func (p *probe) authority(ctx context.Context) []result {
	conn, err := p.dial(ctx)
	if err != nil {
		return []result{p.judge(outcome{err: err})}
	}
	defer conn.Close()
	cfg := p.config(p.name.name)
	cfg.NextProtos = []string{http2.NextProtoTLS, "http/1.1"}
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return []result{{Unknown, "", short(err.Error())}}
	}
	if c.ConnectionState().NegotiatedProtocol != http2.NextProtoTLS {
		return []result{{Pass, "", "no HTTP/2 is spoken"}}
	}
	t := &http2.Transport{MaxHeaderListSize: maxHeader, DisableCompression: true}
	h2, err := t.NewClientConn(c)
	if err != nil {
		return []result{p.judge(ended(outcome{}, err))}
	}
	defer h2.Close()
	if o := p.stream(ctx, h2, string(p.name.name)); o.reply == nil {
		return []result{{Unknown, "", fmt.Sprintf("HTTP/2 for %s: %s", p.name.name, o)}}
	}
	return []result{p.judge(p.stream(ctx, h2, string(p.other.name)))}
}

// stream is one request of HTTP/2.
func (p *probe) stream(ctx context.Context, c *http2.ClientConn, authority string) outcome {
	u, err := url.ParseRequestURI(p.cfg.Path)
	if err != nil {
		return outcome{err: err}
	}
	u.Scheme, u.Host = "https", authority
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: authority, Header: http.Header{"User-Agent": {agent}, "Accept": {"*/*"}}}).WithContext(ctx)
	resp, err := c.RoundTrip(req)
	if err != nil {
		return ended(outcome{}, err)
	}
	defer resp.Body.Close()
	a, err := newReply(resp, p.cfg.Expect)
	if err != nil {
		return ended(outcome{}, err)
	}
	return outcome{reply: a}
}
