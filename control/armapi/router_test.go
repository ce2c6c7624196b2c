package armapi

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRouter(t *testing.T) {
	noop := func(*request) (reply, error) { return reply{}, nil }
	r := newRouter([]operation{
		{method: "GET", pattern: "/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Network/privateDnsZones/{zone}/ALL", handle: noop},
		{method: "GET", pattern: "/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.Network/privateDnsZones/{zone}/{type}", handle: noop},
		{method: "PUT", pattern: "/subscriptions/{sub}/resourceGroups/{group}", handle: noop},
		{method: "DELETE", pattern: "/subscriptions/{sub}/resourceGroups/{group}", handle: noop},
		{method: "GET", pattern: "/a/b/c", handle: noop},
		{method: "GET", pattern: "/a/{x}/d", handle: noop},
	})
	for _, c := range []struct {
		name, method, path string
		pattern            string // how it ends; "" is not found
		values, allow      []string
	}{
		{"as written", "PUT", "/subscriptions/S/resourceGroups/G", "{group}", []string{"S", "G"}, nil},
		{"A25 other letter case", "PUT", "/SUBSCRIPTIONS/S/resourcegroups/G", "{group}", []string{"S", "G"}, nil},
		{"double slashes", "PUT", "//subscriptions//S/resourceGroups/G/", "{group}", []string{"S", "G"}, nil},
		{"a literal before a parameter", "GET", "/subscriptions/S/resourceGroups/G/providers/microsoft.network/privatednszones/z/all", "ALL", []string{"S", "G", "z"}, nil},
		{"a parameter", "GET", "/subscriptions/S/resourceGroups/G/providers/microsoft.network/privatednszones/z/a", "{type}", []string{"S", "G", "z", "a"}, nil},
		{"back from a literal", "GET", "/a/b/d", "{x}/d", []string{"b"}, nil},
		{"an escaped slash stays in its segment", "PUT", "/subscriptions/S/resourceGroups/a%2Fb", "{group}", []string{"S", "a/b"}, nil},
		{"A02 another method", "POST", "/subscriptions/S/resourceGroups/G", "", nil, []string{"DELETE", "PUT"}},
		{"A02 unknown", "GET", "/subscriptions/S/x", "", nil, nil},
		{"a part of a pattern", "GET", "/subscriptions/S", "", nil, nil},
		{"HEAD where there is GET", "HEAD", "/a/b/c", "/c", nil, nil},
		{"a broken escape", "GET", "/a/%zz/c", "", nil, nil},
		{"the root", "GET", "/", "", nil, nil},
		{"very many segments", "GET", strings.Repeat("/a", 1000), "", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found *route
			var values, allow []string
			if path, ok := segments(c.path); ok {
				found, values, allow = r.find(c.method, path)
			}
			if c.pattern == "" && found != nil || c.pattern != "" && (found == nil || !strings.HasSuffix(found.pattern, c.pattern)) {
				t.Fatalf("found %+v, want %q", found, c.pattern)
			}
			if c.pattern != "" && !slices.Equal(values, c.values) || !slices.Equal(allow, c.allow) {
				t.Errorf("values %q, allow %q, want %q, %q", values, allow, c.values, c.allow)
			}
		})
	}
}

// TestOperations: the tables of the API fit together, and every label is one of a bounded set.
func TestOperations(t *testing.T) {
	rows := operations()
	newRouter(rows) // panics where two are the same
	labels := map[string]string{}
	for _, o := range rows {
		row := o.method + " " + o.pattern
		if o.handle == nil || !strings.HasPrefix(o.pattern, "/") {
			t.Errorf("%s: malformed", row)
		}
		if other, taken := labels[o.label()]; taken {
			t.Errorf("%s and %s have the label %s", row, other, o.label())
		}
		labels[o.label()] = row
		if o.open && strings.Contains(o.pattern, "{subscription}") {
			t.Errorf("%s is open to everybody", row)
		}
	}
}

// FuzzRouter: no path breaks the router, and what it finds is what the path says, segment by segment.
func FuzzRouter(f *testing.F) {
	r := newRouter(operations())
	f.Add("GET", "/subscriptions/s/resourceGroups/g")
	f.Add("PUT", "//subscriptions/%73/resourcegroups/g//")
	f.Add("GET", "/adfs/adfs/.well-known/openid-configuration")
	f.Add("GET", "/%2e%2e/../.")
	f.Fuzz(func(t *testing.T, method, path string) {
		parts, ok := segments(path)
		if !ok {
			return
		}
		found, values, allow := r.find(method, parts)
		if found == nil {
			if slices.Contains(allow, method) {
				t.Fatalf("%s %q isn't found and is allowed", method, path)
			}
			return
		}
		if found.method != method && (method != http.MethodHead || found.method != http.MethodGet) {
			t.Fatalf("%s %q finds a %s", method, path, found.method)
		}
		var rebuilt []string
		for seg := range strings.SplitSeq(strings.Trim(found.pattern, "/"), "/") {
			if strings.HasPrefix(seg, "{") {
				if len(values) == 0 {
					t.Fatalf("%q: too few values", path)
				}
				seg, values = values[0], values[1:]
			}
			rebuilt = append(rebuilt, seg)
		}
		if !slices.EqualFunc(parts, rebuilt, strings.EqualFold) || len(values) > 0 {
			t.Fatalf("%q finds %s with %q", path, found.pattern, rebuilt)
		}
	})
}
