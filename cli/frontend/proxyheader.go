package frontend

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/hello/rawhello"
)

// claimed is the link ID that a header from outside claims.
const claimed link.LinkID = 0x70726f62

// proxyHeader: a client writes a PROXY header itself. Behind the one that Postern writes it must be refused; without
// that one, it must be refused from anybody but Postern.
func (p *probe) proxyHeader(ctx context.Context) (all []result) {
	for _, kind := range []link.ProxyProtocol{link.ProxyV1, link.ProxyV2, link.ProxyAzure} {
		conn, err := p.dial(ctx)
		if err != nil {
			all = append(all, p.judge(outcome{err: err}).of(string(kind)))
			continue
		}
		o, _ := p.over(conn, rawhello.Config{Hello: rawhello.New(string(p.name.name))}, request(p.cfg.Path, string(p.name.name)),
			p.header(conn, kind, claimed, p.name))
		conn.Close()
		all = append(all, p.taken(o, fmt.Sprintf("a header that says link ID %d was taken from this address", claimed)).of(string(kind)))
	}
	return all
}

// proxyMissing: where a header is expected, a connection without one must be refused: else the server guesses, and
// a header could be anyone's.
func (p *probe) proxyMissing(ctx context.Context) []result {
	if p.cfg.Header == "" || p.cfg.Header == link.ProxyOff {
		return nil
	}
	conn, err := p.dialBare(ctx)
	if err != nil {
		return []result{p.judge(outcome{err: err})}
	}
	defer conn.Close()
	o, _ := p.over(conn, rawhello.Config{Hello: rawhello.New(string(p.name.name))}, request(p.cfg.Path, string(p.name.name)), nil)
	return []result{p.taken(o, "a connection without a header is served")}
}

// taken judges a connection that should come to nothing: once the server speaks TLS on it, it has taken what
// came before.
func (p *probe) taken(o outcome, seen string) result {
	switch {
	case o.state.Version != 0 || o.state.Retried:
		return result{Fail, "", seen}
	case o.refused, errors.Is(o.err, rawhello.ErrNotTLS): // some answer 400 in clear
		return result{Pass, "", o.String()}
	}
	return result{Unknown, "", o.String()}
}
