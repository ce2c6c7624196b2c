package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pin says which client certificates speak for an identity: one by its digest, or those of an authority
// with a subject or an alternative name.
type pin struct {
	digest    digest // of the certificate's DER; zero: not pinned
	authority string // "": any chain that TLS has verified
	subject   string
	san       string
}

// authorities reads the certificates of each.
func (r *reader) authorities() error {
	r.world.authorities = map[string][]*x509.Certificate{}
	for i, text := range r.doc.Authorities {
		path := fmt.Sprintf("authorities[%d]", i)
		if !identityForm.MatchString(text.Name) {
			return r.fail(path+".name", "a name has 1 to 64 letters, digits, '.', '_', '@' and '-'")
		}
		if _, taken := r.world.authorities[text.Name]; taken {
			return r.fail(path+".name", "there are two authorities %q", text.Name)
		}
		if text.File == "" {
			return r.fail(path+".file", "a file with certificates in PEM is needed")
		}
		b, err := r.file(r.path(text.File))
		if err != nil {
			return r.fail(path+".file", "%v", err)
		}
		all, err := certificatesOf(b)
		if err != nil {
			return r.fail(path+".file", "%s: %v", clip(text.File), err)
		}
		r.world.authorities[text.Name] = all
		if r.world.pool == nil {
			r.world.pool = x509.NewCertPool()
		}
		for _, c := range all {
			r.world.pool.AddCert(c)
		}
	}
	return nil
}

// certificatesOf returns the certificates of a PEM text, at least one.
func certificatesOf(b []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds more than certificates: %q", clip(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return all, nil
}

func (r *reader) certificates(path string, id *identity, text identityText) error {
	for i, c := range text.Certificates {
		at := fmt.Sprintf("%s.certificates[%d]", path, i)
		p := pin{authority: c.Authority, subject: c.Subject, san: c.SAN}
		if c.Authority != "" && r.world.authorities[c.Authority] == nil {
			return r.fail(at+".authority", "there is no authority %q", clip(c.Authority))
		}
		switch named := c.Subject != "" || c.SAN != ""; {
		case c.SHA256 == "" && !named:
			return r.fail(at, "sha256, subject or san is needed")
		case c.SHA256 != "" && named:
			return r.fail(at, "sha256 names one certificate; subject and san don't stand beside it")
		case named && c.Authority == "":
			return r.fail(at+".authority", "it is needed: another authority could give somebody else the same name")
		}
		if kind, value, _ := strings.Cut(c.SAN, ":"); c.SAN != "" && (value == "" || !slices.Contains([]string{"dns", "uri", "email"}, kind)) {
			return r.fail(at+".san", "it is written dns:NAME, uri:URI or email:ADDRESS")
		}
		if c.SHA256 != "" {
			// openssl writes fingerprints with colons and in upper case.
			d, err := r.digest(at+".sha256", strings.ToLower(strings.ReplaceAll(c.SHA256, ":", "")))
			if err != nil {
				return r.fail(at+".sha256", "the SHA-256 of the certificate's DER is expected, 64 hexadecimal digits")
			}
			p.digest = d
		}
		id.certificates = append(id.certificates, p)
	}
	return nil
}

// showsOne returns the identities that verified chains speak for, in the order of the file. A connection
// may be older than the end of its certificate, and older than the file: both are judged again.
func (w *world) showsOne(chains [][]*x509.Certificate, now time.Time) []match {
	var all []match
	for _, id := range w.identities {
		if slices.ContainsFunc(id.certificates, func(p pin) bool {
			return slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return w.fits(p, chain, now) })
		}) {
			all = append(all, match{identity: id, name: id.name})
		}
	}
	return all
}

// fits reports whether a chain is good now and its first certificate is the one that a pin means.
func (w *world) fits(p pin, chain []*x509.Certificate, now time.Time) bool {
	if len(chain) == 0 {
		return false
	}
	for _, c := range chain {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return false
		}
	}
	leaf, root := chain[0], chain[len(chain)-1]
	if p.authority != "" && !slices.ContainsFunc(w.authorities[p.authority], root.Equal) {
		return false
	}
	if p.digest != (digest{}) {
		return p.digest == sha256.Sum256(leaf.Raw)
	}
	if p.subject != "" && p.subject != subjectOf(leaf) {
		return false
	}
	if p.san != "" && !hasSAN(leaf, p.san) {
		return false
	}
	return p.authority != "" && (p.subject != "" || p.san != "")
}

// subjectOf returns the whole subject as RFC 2253 writes it. Certificate.Subject keeps one of two common
// names, so it isn't what is compared.
func subjectOf(c *x509.Certificate) string {
	var names pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &names); err != nil || len(rest) > 0 {
		return ""
	}
	return names.String()
}

func hasSAN(c *x509.Certificate, san string) bool {
	kind, value, _ := strings.Cut(san, ":")
	switch kind {
	case "dns":
		return slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, value) })
	case "email":
		return slices.Contains(c.EmailAddresses, value)
	case "uri":
		for _, u := range c.URIs {
			if u.String() == value {
				return true
			}
		}
	}
	return false
}
