package identity

import (
	"crypto/x509"
	"io/fs"
	"strings"
	"time"

	"github.com/postern-link/postern/control"
)

// world is one state of the identities file, checked. Nothing in it changes after it was made.
type world struct {
	sum         digest // of the text of all files
	tenants     []control.Tenant
	owners      map[string]int // index in tenants, by subscription
	identities  []*identity    // in the order of the file
	tokens      map[string]tokenOf
	clients     map[string]*identity // by client ID
	issuers     map[string]*trust    // by the iss claim of their tokens
	authorities map[string][]*x509.Certificate
	pool        *x509.CertPool // of all authorities; nil: there are none
	files       []seen         // what the world was made from
}

// seen is a file as it was when it was read.
type seen struct {
	path string
	info fs.FileInfo
	at   time.Time // when it was read
}

// identity is who can sign in.
type identity struct {
	name         string
	tenant       control.Tenant
	grants       []control.Grant
	clientID     string // "": no client
	secrets      []kept // of the client
	certificates []pin
	rules        []rule
}

// tokenOf is an identity and the token that it holds.
type tokenOf struct {
	identity *identity
	kept
}

// caller returns who the identity is to package control. Name is how the audit calls it.
func (id *identity) caller(name string, grants []control.Grant) control.Caller {
	return control.Caller{Name: name, Tenant: id.tenant.Name, TenantID: id.tenant.ID,
		Operator: id.tenant.Operator, Grants: grants}
}

// match is an identity that what a caller has shown speaks for. name is how the audit calls the caller.
type match struct {
	identity *identity
	name     string
}

// merge makes one caller of all identities that a credential speaks for: the first of the file says the
// name and the tenant, the others of the same tenant add their roles. An identity of another tenant adds
// nothing, since a caller acts for one tenant.
func merge(all []match) (control.Caller, bool) {
	if len(all) == 0 {
		return control.Caller{}, false
	}
	first := all[0].identity
	grants := make([]control.Grant, 0, len(first.grants))
	for _, m := range all {
		if m.identity.tenant.ID == first.tenant.ID {
			grants = append(grants, m.identity.grants...)
		}
	}
	return first.caller(all[0].name, grants), true
}

// tenant returns the tenant with the given name as the state has it.
func (w *world) tenant(name string) (control.Tenant, bool) {
	for _, t := range w.tenants {
		if t.Name == name {
			return t, true
		}
	}
	return control.Tenant{}, false
}

// tenantOf returns the tenant that the file calls by this name.
func (w *world) tenantOf(title string) (control.Tenant, bool) {
	for _, t := range w.tenants {
		if strings.EqualFold(t.Title, title) {
			return t, true
		}
	}
	return control.Tenant{}, false
}
