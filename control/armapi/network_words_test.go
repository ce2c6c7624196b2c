package armapi

import (
	"strings"
	"testing"
)

// putTagged puts a service with names and these tags, given as JSON fields.
func putTagged(r *rig, name, tags string) answer {
	return r.do("contoso", "PUT", armPath(contosoSub, "privateLinkServices/"+name), `{"location":"local","tags":{`+tags+`},"properties":{
		"destinationIPAddress":"10.20.0.5","fqdns":["`+name+`.contoso.example"],"ipConfigurations":[{"name":"nat","properties":{
		"privateIPAllocationMethod":"Dynamic","subnet":{"id":"`+armPath(contosoSub, "virtualNetworks/provider/subnets/nat")+`"}}}]}}`)
}

// X20: a pin to names where the protocol goes over to TLS in words that no pin reads is refused with the reason
// and what to use.
func TestPinOfStartTLS(t *testing.T) {
	r, _, _ := neighbours(t)
	for port, says := range map[string][]string{"587": {"SMTP", "465"}, "143": {"IMAP", "993"}, "389": {"LDAP", "636"}, "21": {"FTP", "990"}} {
		a := putTagged(r, "mail", `"postern-port":"`+port+`","postern-pin":"tls"`)
		a.want(400)
		for _, word := range says {
			if !strings.Contains(string(a.body), word) {
				t.Errorf("port %s: the answer doesn't say %s: %s", port, word, a.body)
			}
		}
	}
	r.do("contoso", "GET", armPath(contosoSub, "privateLinkServices/mail"), nil).want(404)
	putTagged(r, "mail", `"postern-port":"587","postern-pin":"address"`).want(201)
}

// TestPinTags: what a service is pinned by can be written, read and written back.
func TestPinTags(t *testing.T) {
	r, _, _ := neighbours(t)
	for _, pin := range []string{"postgres", "tds", "mysql", "tls", "address"} {
		name := "db" + pin
		tags := `"postern-port":"14433","postern-pin":"` + pin + `"`
		if pin == "tls" {
			tags += `,"postern-ech":"allow"`
		}
		putTagged(r, name, tags).want(201)
		var read struct{ Tags map[string]string }
		first := r.do("contoso", "GET", armPath(contosoSub, "privateLinkServices/"+name), nil).want(200).into(&read)
		if read.Tags["postern-pin"] != pin || (read.Tags["postern-ech"] == "allow") != (pin == "tls") {
			t.Errorf("%s: tags %v", pin, read.Tags)
		}
		again := r.do("contoso", "PUT", armPath(contosoSub, "privateLinkServices/"+name), string(first.body)).want(200)
		if again.header.Get("ETag") != first.header.Get("ETag") {
			t.Errorf("%s: put back is a change: %s", pin, again.body)
		}
	}
	for _, tags := range []string{`"postern-pin":"oracle"`, `"postern-ech":"deny"`} {
		putTagged(r, "none", tags).want(400)
	}
}

// E22: lists of addresses have no IPv4 prefix in IPv6 notation, which would match nobody.
func TestMappedPrefixes(t *testing.T) {
	r, provider, _ := neighbours(t)
	alias := *provider.publish("db", serviceBody(contosoSub, "10.20.0.5")).Properties.Alias
	for _, allow := range []string{"::ffff:10.1.0.0/112", "10.1.0.0/16 ::ffff:10.2.0.0/112", "::ffff:10.1.2.3", "10.1.2.3/16"} {
		r.do("fabrikam", "PUT", armPath(fabrikamSub, "privateEndpoints/pe"), `{"location":"local","tags":{"postern-allow":"`+allow+`"},"properties":{
			"subnet":{"id":"`+armPath(fabrikamSub, "virtualNetworks/corp/subnets/pe")+`"},
			"manualPrivateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"`+alias+`"}}]}}`).want(400)
	}
	r.do("fabrikam", "PUT", armPath(fabrikamSub, "virtualNetworks/mapped"), `{"location":"local","properties":{"addressSpace":{
		"addressPrefixes":["::ffff:10.50.0.0/112"]}}}`).want(400)
}
