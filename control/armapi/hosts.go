package armapi

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// hosts are the values of the Host header that requests for this API have. A web page whose own name was
// made to resolve to our address sends that name.
type hosts struct {
	names  map[string]bool // lower case
	origin string          // of the configured URL, "" where there is none
	// any: the API listens on all addresses, so that each is ours.
	any bool
}

func newHosts(u *url.URL, listen string) hosts {
	h := hosts{names: map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}}
	if u != nil {
		h.names[strings.ToLower(u.Hostname())] = true
		h.origin = strings.ToLower(u.Scheme + "://" + u.Host)
	}
	if ap, err := netip.ParseAddrPort(listen); err == nil {
		h.names[ap.Addr().Unmap().WithZone("").String()] = true
		h.any = ap.Addr().IsUnspecified()
	}
	return h
}

// check refuses requests that were made for another host, or by a web page of another origin.
func (h hosts) check(r *http.Request) error {
	if !h.ours(r.Host) {
		return fail(http.StatusForbidden, "HostNotAllowed", "The host %s is not that of this API.", quote(r.Host))
	}
	for _, o := range r.Header.Values("Origin") {
		if o = strings.ToLower(o); o != strings.ToLower("https://"+r.Host) && (h.origin == "" || o != h.origin) {
			return fail(http.StatusForbidden, "OriginNotAllowed", "Requests of web pages of another origin are not allowed.")
		}
	}
	return nil
}

func (h hosts) ours(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	a, err := netip.ParseAddr(name)
	if err != nil {
		return h.names[name]
	}
	return h.any || h.names[a.Unmap().WithZone("").String()]
}
