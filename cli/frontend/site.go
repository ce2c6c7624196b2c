package frontend

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/postern-link/postern/link"
)

// Bounds of what is read of an answer, in bytes.
const (
	maxHeader = 64 << 10
	maxBody   = 1 << 20
)

// reply is an HTTP answer, as far as it is read.
type reply struct {
	status int
	header http.Header
	body   [sha256.Size]byte // digest of at most maxBody bytes
	expect bool              // the expected text is in header or content
}

// readReply reads one answer to a GET.
func readReply(r *bufio.Reader, expect string) (*reply, error) {
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return newReply(resp, expect)
}

func newReply(resp *http.Response, expect string) (*reply, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	a := &reply{status: resp.StatusCode, header: resp.Header, body: sha256.Sum256(body)}
	if expect != "" {
		a.expect = strings.Contains(string(body), expect)
		for _, values := range resp.Header {
			a.expect = a.expect || strings.Contains(strings.Join(values, "\n"), expect)
		}
	}
	return a, nil
}

// site is how one of the two sites answers: what was the same in several answers.
type site struct {
	name   link.Name
	status int
	header map[string]string
	body   *[sha256.Size]byte // nil: it is another one each time
}

// volatile are headers that say nothing about a site: they belong to the moment or to the connection.
var volatile = map[string]bool{
	"Date": true, "Age": true, "Expires": true, "Set-Cookie": true, "Connection": true, "Keep-Alive": true, "Transfer-Encoding": true,
	"Content-Length": true, "Alt-Svc": true, "Upgrade": true, "X-Request-Id": true, "Traceparent": true,
}

func newSite(name link.Name, x, y *reply) (*site, error) {
	if x.status != y.status {
		return nil, fmt.Errorf("%s answers %d and then %d: with --path choose what answers the same twice", name, x.status, y.status)
	}
	s := &site{name: name, status: x.status, header: map[string]string{}}
	for key, values := range x.header {
		if v := strings.Join(values, "\n"); !volatile[key] && v == strings.Join(y.header[key], "\n") {
			s.header[key] = v
		}
	}
	if x.body == y.body {
		s.body = &x.body
	}
	return s, nil
}

// is reports whether an answer has all that the site's answers have in common.
func (s *site) is(a *reply) bool {
	if a.status != s.status || s.body != nil && a.body != *s.body {
		return false
	}
	for key, v := range s.header {
		if strings.Join(a.header[key], "\n") != v {
			return false
		}
	}
	return true
}

// differs reports whether an answer of one site can't be taken for one of the other.
func (s *site) differs(o *site) bool {
	if s.status != o.status || s.body != nil && o.body != nil && *s.body != *o.body {
		return true
	}
	for key, v := range s.header {
		if w, ok := o.header[key]; ok && v != w {
			return true
		}
	}
	return false
}

// swapped returns the probe of a client that was let in for the other name and wants the first one.
func (p *probe) swapped() *probe {
	q := *p
	q.name, q.other = p.other, p.name
	q.swap = !p.swap
	return &q
}

// reached reports whether an answer is one of the site that should be out of reach.
func (p *probe) reached(a *reply) bool {
	if p.cfg.Expect != "" {
		return a.expect != p.swap && (!p.swap || p.other.is(a))
	}
	return p.other.is(a) && !p.name.is(a)
}

// own reports whether an answer is one of the site that the client was let in for.
func (p *probe) own(a *reply) bool {
	if p.cfg.Expect != "" {
		return a.expect == p.swap && p.name.is(a)
	}
	return p.name.is(a) && !p.other.is(a)
}

// judge says what an answer to a request for the other site means.
func (p *probe) judge(got outcome) result {
	seen := got.String()
	switch a := got.reply; {
	case got.refused:
		return result{Pass, "", seen}
	case a == nil:
		return result{Unknown, "", seen}
	case p.reached(a):
		return result{Fail, "", fmt.Sprintf("the site of %s answered", p.other.name)}
	case p.own(a):
		return result{Pass, "", fmt.Sprintf("the site of %s answered", p.name.name)}
	case refusal(a.status) && a.status != p.other.status:
		return result{Pass, "", seen}
	case p.name.is(a) && p.other.is(a):
		return result{Unknown, "", "answered with what both sites answer; --expect-other tells them apart"}
	}
	return result{Unknown, "", seen + ", which is neither site"}
}

// refusal reports whether a status says that the request was for the wrong place, wrong, or not allowed. 404 doesn't: the
// other site could say that of a request that it doesn't like.
func refusal(status int) bool {
	return status == http.StatusMisdirectedRequest || status == http.StatusBadRequest || status == http.StatusForbidden
}

// equalSites returns an error if nothing tells the sites apart.
func (p *probe) equalSites() error {
	if p.cfg.Expect != "" || p.name.differs(p.other) {
		return nil
	}
	return fmt.Errorf("the sites of %s and %s answer alike (status %d, %d headers in common): choose another --path, or give text with --expect-other that only the second one has",
		p.cfg.Name, p.cfg.Other, p.name.status, len(p.name.header))
}
