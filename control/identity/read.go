package identity

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// reader turns a document into a world. file reads one that the document names, and source finds or makes
// the keys of an issuer.
type reader struct {
	doc    document
	lines  index
	dir    string // of the identities file, which other paths are relative to
	world  *world
	file   func(path string) ([]byte, error)
	source func(url string, ca []byte) (*issuer, error)

	guids map[string]string // where each GUID of a tenant or a subscription stands
	names map[string]bool   // of identities
}

// read returns the world that a text describes.
func (r *reader) read(text []byte) (*world, error) {
	lines, err := decodeStrict(text, &r.doc)
	if err != nil {
		return nil, err
	}
	r.lines, r.guids, r.names = lines, map[string]string{}, map[string]bool{}
	r.world = &world{owners: map[string]int{}, tokens: map[string]tokenOf{}, clients: map[string]*identity{},
		issuers: map[string]*trust{}}
	for _, step := range []func() error{r.tenants, r.authorities, r.issuers, r.identities} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r.world, nil
}

// fail complains about the value at a path, or about what should be there.
func (r *reader) fail(path, format string, args ...any) error {
	at := path
	for at != "" && r.lines[at] == 0 {
		at = at[:max(strings.LastIndexByte(at, '.'), strings.LastIndexByte(at, '['), 0)]
	}
	return lineError(max(r.lines[at], 1), path, format, args...)
}

func (r *reader) tenants() error {
	if len(r.doc.Tenants) == 0 {
		return r.fail("tenants", "at least one tenant is needed")
	}
	operator, domains := "", map[link.Name]string{}
	for i, text := range r.doc.Tenants {
		path := fmt.Sprintf("tenants[%d]", i)
		t, err := r.tenant(path, text)
		if err != nil {
			return err
		}
		if t.Operator {
			if operator != "" {
				return r.fail(path+".operator", "%s is the operator's tenant already", operator)
			}
			operator = path
		}
		for j, d := range t.Domains {
			at := fmt.Sprintf("%s.domains[%d]", path, j)
			if other, taken := domains[d]; taken {
				return r.fail(at, "the domain %q stands at %s already", d, other)
			}
			domains[d] = at
		}
		r.world.tenants = append(r.world.tenants, t)
	}
	return nil
}

func (r *reader) tenant(path string, text tenantText) (control.Tenant, error) {
	t := control.Tenant{Operator: text.Operator}
	id, err := link.ParseID(text.Name)
	if err != nil || strings.Contains(text.Name, "/") || len(text.Name) > 64 {
		return t, r.fail(path+".name", "a name has 1 to 64 letters, digits, '.', '_' and '-'")
	}
	t.Title = string(id)
	if _, taken := r.world.tenantOf(t.Title); taken {
		return t, r.fail(path+".name", "there are two tenants %q", t.Title)
	}
	if !t.Operator {
		t.Name = t.Title
	}
	if t.ID, err = r.guid(path+".id", text.ID); err != nil {
		return t, err
	}
	for i, s := range text.Subscriptions {
		at := fmt.Sprintf("%s.subscriptions[%d]", path, i)
		sub := control.Subscription{Name: s.Name}
		if sub.ID, err = r.guid(at+".id", s.ID); err != nil {
			return t, err
		}
		if !printable(s.Name) {
			return t, r.fail(at+".name", "a name has 1 to 64 printable characters")
		}
		r.world.owners[sub.ID] = len(r.world.tenants)
		t.Subscriptions = append(t.Subscriptions, sub)
	}
	for i, s := range text.Domains {
		d, err := link.ParseName(s)
		if err != nil {
			return t, r.fail(fmt.Sprintf("%s.domains[%d]", path, i), "%q is no DNS name", clip(s))
		}
		t.Domains = append(t.Domains, d)
	}
	if t.Networks, err = r.prefixes(path+".networks", text.Networks); err != nil {
		return t, err
	}
	t.Targets, err = r.prefixes(path+".targets", text.Targets)
	return t, err
}

func (r *reader) prefixes(path string, all []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, s := range all {
		p, err := netip.ParsePrefix(s)
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case err != nil:
			return nil, r.fail(at, "%q is no prefix such as 10.1.0.0/16", clip(s))
		case p.Addr().Is4In6():
			return nil, r.fail(at, "write the IPv4 prefix itself, not %s", p)
		case p != p.Masked():
			return nil, r.fail(at, "%s has bits behind its length, the prefix is %s", p, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// guid returns a GUID in lower case that stands nowhere else in the file.
func (r *reader) guid(path, s string) (string, error) {
	id := strings.ToLower(s)
	switch {
	case !guidForm.MatchString(id):
		return "", r.fail(path, "a GUID is expected, such as 3f2b8c1e-0d4a-4c55-9a51-6f0e2d7b9c10")
	case strings.Trim(id, "0-") == "":
		return "", r.fail(path, "the GUID of zeros is nobody's")
	case r.guids[id] != "":
		return "", r.fail(path, "the GUID stands at %s already", r.guids[id])
	}
	r.guids[id] = path
	return id, nil
}

// printable reports whether s can be shown as a name.
func printable(s string) bool {
	return s != "" && len(s) <= 64 && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// path returns where a file of the document is.
func (r *reader) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.dir, name)
}

// digest reads what is kept of a secret. The error doesn't show the value: it may be the secret itself.
func (r *reader) digest(path, s string) (digest, error) {
	var d digest
	if n, err := hex.Decode(d[:], []byte(clipTo(s, 2*len(d)))); err != nil || n != len(d) || len(s) != 2*len(d) {
		return d, r.fail(path, "a SHA-256 is expected, 64 hexadecimal digits; the secret itself doesn't belong here")
	}
	return d, nil
}

func clipTo(s string, n int) string { return s[:min(len(s), n)] }

// time reads a time of RFC 3339; "" is the zero time.
func (r *reader) time(path, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, r.fail(path, "a time is expected, such as 2027-01-31T00:00:00Z")
	}
	return t, nil
}

// secrets reads a list of them.
func (r *reader) secrets(path string, all []secretText) ([]kept, error) {
	var out []kept
	for i, text := range all {
		at := fmt.Sprintf("%s[%d]", path, i)
		d, err := r.digest(at+".sha256", text.SHA256)
		if err != nil {
			return nil, err
		}
		if _, err := r.time(at+".created", text.Created); err != nil {
			return nil, err
		}
		k := kept{digest: d}
		if k.expires, err = r.time(at+".expires", text.Expires); err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}
