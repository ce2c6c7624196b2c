package armapi

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// crowd yields a subscription of n endpoints, as clients make them, of n/100 services in one network.
func crowd(n int) iter.Seq[link.Object] {
	raw := func(v any) link.Facet {
		b, _ := writeFacet(v) // structs of strings
		return link.Facet{UID: fmt.Sprintf("%032x", n), API: b}
	}
	const in = fabrikamSub + "/crowd/"
	return func(yield func(link.Object) bool) {
		f := facet{Name: "Net", Group: "Crowd", Location: "local", Tags: map[string]string{}}
		ok := yield(&link.Network{ID: in + "net", Tenant: "fabrikam", Prefixes: prefixes("10.0.0.0/8"),
			Subnets: []link.Subnet{{Name: "endpoints", Prefixes: prefixes("10.0.0.0/12")}},
			Facet:   raw(networkFacet{facet: f, Subnets: []subnetFacet{{Name: "Endpoints", EndpointPolicies: disabled, ServicePolicies: enabled}}})}) &&
			yield(&link.Document{Type: documentGroup, ID: in + "crowd", Tenant: "fabrikam", Facet: raw(facet{Name: "Crowd", Location: "local"})})
		service := func(i int) link.ID { return link.ID(fmt.Sprintf("%s/crowd/s%04d", contosoSub, i/100)) }
		for i := 0; ok && i < n; i += 100 {
			name := link.Name(fmt.Sprintf("db%d.contoso.example", i/100))
			ok = yield(&link.Service{ID: service(i), Tenant: "contoso", Alias: fmt.Sprintf("s%d.alias", i), Port: 443, Pin: link.PinTLS, ProxyProtocol: link.ProxyOff,
				Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.4:443")}}, Visible: []link.Party{link.Anyone},
				Names: []link.ResourceName{{Public: name, Private: "p." + name, Zone: "contoso.example"}}, Facet: raw(f)})
		}
		addr := netip.MustParseAddr("10.0.0.4")
		for i := 0; ok && i < n; i, addr = i+1, addr.Next() {
			name := fmt.Sprintf("endpoint-%06d", i)
			f := endpointFacet{facet: facet{Name: name, Group: "Crowd", Location: "local", Tags: map[string]string{"cost": "4711"}},
				Connection: name, Service: fmt.Sprintf("s%d.alias", i/100*100)}
			ok = yield(&link.Endpoint{ID: link.ID(in + name), Tenant: "fabrikam", Network: in + "net", Subnet: "endpoints", Service: service(i), Address: addr, Facet: raw(f),
				Connection: link.Connection{LinkID: link.LinkID(i + 1), State: link.Approved, Asked: 1, Decision: link.Decision{Rule: "auto-approved"}}})
		}
	}
}

// crowded returns an API on a state of n endpoints.
func crowded(t testing.TB, n int) *rig {
	t.Helper()
	s, err := link.Load(1, crowd(n))
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, func(ac *Config, cc *control.Config) {
		ac.Rate = -1
		cc.Snapshot = func() *link.Snapshot { return s }
	})
}

// serve answers a GET of the consumer without a network.
func (r *rig) serve(path string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(http.MethodGet, r.url+path, nil)
	req.Header.Set("Authorization", "Bearer "+tokenOf("fabrikam"))
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		r.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w
}

// BenchmarkLists measures pages of 500 of 100,000 endpoints in one subscription: the first, one in the
// middle and the last. The cost of a page must not depend on where it is.
func BenchmarkLists(b *testing.B) {
	const n = 100_000
	r := crowded(b, n)
	in := "/subscriptions/" + fabrikamSub
	key := func(kind string, i int) string {
		return fmt.Sprintf("%s%s/crowd/endpoint-%06d", kind, fabrikamSub, i)
	}
	for _, l := range []struct{ name, path, kind string }{
		{"endpoints", in + "/providers/Microsoft.Network/privateEndpoints", ""},
		{"group", in + "/resourceGroups/Crowd/providers/Microsoft.Network/privateEndpoints", ""},
		{"interfaces", in + "/providers/Microsoft.Network/networkInterfaces", "endpoint/"},
		{"resources", in + "/resources", "endpoint/"},
	} {
		for _, at := range []struct {
			name  string
			after int // the number of an endpoint, -1 for the first page
		}{{"first", -1}, {"middle", n / 2}, {"last", n - 501}} {
			path := l.path + "?api-version=2025-05-01"
			if at.after >= 0 {
				path += "&$skiptoken=" + skipTokenOf(key(l.kind, at.after))
			}
			b.Run(l.name+"/"+at.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r.serve(path)
				}
			})
		}
	}
}

// TestListsAreWhole reads lists of a crowd page by page: each object is there once, in order.
func TestListsAreWhole(t *testing.T) {
	const n = 1234
	r := crowded(t, n)
	in := "/subscriptions/" + fabrikamSub
	for path, want := range map[string]int{
		in + "/providers/Microsoft.Network/privateEndpoints":                      n,
		in + "/resourceGroups/CROWD/providers/Microsoft.Network/privateEndpoints": n,
		in + "/providers/Microsoft.Network/networkInterfaces":                     n,
		in + "/resources":                      n + 1,
		in + "/resourceGroups/crowd/resources": n + 1,
		in + "/resourcegroups":                 1,
		in + "/resourceGroups/crowd/providers/Microsoft.Network/virtualNetworks":     1,
		in + "/resourceGroups/crowd/providers/Microsoft.Network/privateLinkServices": 0,
		in + "/providers/Microsoft.Network/loadBalancers":                            0,
	} {
		t.Run(path, func(t *testing.T) {
			seen, next := map[string]bool{}, r.url+path+"?api-version=2025-05-01&$top=400"
			for next != "" {
				var page struct {
					Value    []struct{ ID string }
					NextLink string
				}
				if err := json.Unmarshal(r.serve(next[len(r.url):]).Body.Bytes(), &page); err != nil {
					t.Fatal(err)
				}
				for _, v := range page.Value {
					if v.ID == "" || seen[v.ID] {
						t.Fatalf("%q is there twice", v.ID)
					}
					seen[v.ID] = true
				}
				if next = page.NextLink; next != "" && len(page.Value) != 400 {
					t.Fatalf("a page of %d", len(page.Value))
				}
			}
			if len(seen) != want {
				t.Errorf("%d values, want %d", len(seen), want)
			}
		})
	}
}
