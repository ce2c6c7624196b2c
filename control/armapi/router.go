package armapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// operation is one row of the API.
type operation struct {
	method string
	// pattern is segments joined by "/"; "{name}" matches any one segment, others match in any letter case.
	pattern string
	handle  func(*request) (reply, error)
	// open: without a caller and without an API version. For discovery and sign-in.
	open bool
	// dry: it may be asked with ?dryRun=true, which changes nothing and answers with the plan.
	dry bool
}

// label is how metrics call the operation: its method and what of the pattern tells it from others.
func (o *operation) label() string {
	if o == nil {
		return "none"
	}
	_, kind, ok := strings.Cut(o.pattern, "/providers/")
	if !ok {
		return o.method + " " + o.pattern
	}
	if strings.Contains(o.pattern, "{group}") {
		kind = "{group}/" + kind
	}
	return o.method + " " + kind
}

// router finds operations by path. It is made by hand since http.ServeMux tells letter cases apart and
// redirects double slashes, which clients of Azure send.
type router struct{ root *branch }

// branch is what follows after some segments of a path.
type branch struct {
	literals map[string]*branch // by segment in lower case
	any      *branch            // of patterns with a parameter here
	methods  map[string]*route  // of patterns that end here; nil: none does
}

// route is an operation with the names of its parameters, in the order of the path.
type route struct {
	operation
	names []string
}

// newRouter panics where two rows are the same or a row is malformed: the tables are part of the program.
func newRouter(rows []operation) *router {
	r := &router{root: &branch{}}
	for _, o := range rows {
		b, names := r.root, []string(nil)
		for seg := range strings.SplitSeq(o.pattern, "/") {
			if seg == "" {
				continue
			}
			if name, ok := strings.CutPrefix(seg, "{"); ok {
				names = append(names, strings.TrimSuffix(name, "}"))
				if b.any == nil {
					b.any = &branch{}
				}
				b = b.any
				continue
			}
			seg = strings.ToLower(seg)
			if b.literals == nil {
				b.literals = map[string]*branch{}
			}
			if b.literals[seg] == nil {
				b.literals[seg] = &branch{}
			}
			b = b.literals[seg]
		}
		if b.methods == nil {
			b.methods = map[string]*route{}
		}
		if b.methods[o.method] != nil {
			panic(fmt.Sprintf("armapi: two rows %s %s", o.method, o.pattern))
		}
		b.methods[o.method] = &route{o, names}
	}
	return r
}

// maxSegments bounds the segments of a path; the longest pattern has 13.
const maxSegments = 24

// segments splits a path as it was sent: a slash within a name is %2F there. Empty segments, of which
// clients send some, mean nothing. ok is false for a path that can't be one of ours.
func segments(escaped string) (all []string, ok bool) {
	for seg := range strings.SplitSeq(escaped, "/") {
		if seg == "" {
			continue
		}
		s, err := url.PathUnescape(seg)
		if err != nil || len(all) == maxSegments {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

// find returns the route of a path and the values of its parameters. A path that only has other methods
// gives those, in order, instead.
func (r *router) find(method string, path []string) (found *route, values, allow []string) {
	end, values := r.root.walk(path, nil)
	if end == nil {
		return nil, nil, nil
	}
	if found = end.methods[method]; found == nil && method == http.MethodHead {
		found = end.methods[http.MethodGet]
	}
	if found != nil {
		return found, values, nil
	}
	for m := range end.methods {
		allow = append(allow, m)
	}
	slices.Sort(allow)
	return nil, nil, allow
}

// walk returns where a path ends. A literal segment goes before a parameter; a path that ends nowhere
// below the literal may still end below the parameter.
func (b *branch) walk(path, values []string) (*branch, []string) {
	if len(path) == 0 {
		if b.methods == nil {
			return nil, nil
		}
		return b, values
	}
	if next := b.literals[strings.ToLower(path[0])]; next != nil {
		if end, got := next.walk(path[1:], values); end != nil {
			return end, got
		}
	}
	if b.any == nil {
		return nil, nil
	}
	return b.any.walk(path[1:], append(slices.Clip(values), path[0]))
}
