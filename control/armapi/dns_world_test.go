package armapi

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"github.com/postern-link/postern/link"
)

// staticToken is a credential of azcore's for somebody's static token.
type staticToken string

func (s staticToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: tokenOf(string(s)), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// dnsRig is a rig with a group, and the private DNS clients of somebody.
type dnsRig struct {
	*rig
	zones   *armprivatedns.PrivateZonesClient
	links   *armprivatedns.VirtualNetworkLinksClient
	records *armprivatedns.RecordSetsClient
}

func (r *rig) dnsAs(name, sub string) *dnsRig {
	r.t.Helper()
	factory, err := armprivatedns.NewClientFactory(sub, staticToken(name), &arm.ClientOptions{
		ClientOptions: policy.ClientOptions{
			Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: r.url + "/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager: {Endpoint: r.url, Audience: r.url + "/"}}},
			Transport: r.client, Retry: policy.RetryOptions{MaxRetries: -1},
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return &dnsRig{r, factory.NewPrivateZonesClient(), factory.NewVirtualNetworkLinksClient(), factory.NewRecordSetsClient()}
}

// newDNS starts a rig in which fabrikam has a group "Rg" with the network "net" and a private zone.
func newDNS(t *testing.T) *dnsRig {
	t.Helper()
	r := newRig(t)
	r.putGroup("fabrikam", fabrikamSub, "Rg")
	r.makeNetwork("fabrikam", fabrikamSub, "rg", "net", "10.1.0.0/16")
	d := r.dnsAs("fabrikam", fabrikamSub)
	d.putZone("Corp.Example")
	return d
}

// makeNetwork writes a network with a subnet for endpoints, as the operations do.
func (r *rig) makeNetwork(name, sub, group, network, prefix string) link.ID {
	r.t.Helper()
	caller, err := r.directory.Authenticate(r.t.Context(), credential(name))
	if err != nil {
		r.t.Fatal(err)
	}
	id := link.ID(sub + "/" + group + "/" + network)
	p := netip.MustParsePrefix(prefix)
	n := link.Network{Prefixes: []netip.Prefix{p}, Egress: []string{"*"}, Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.PrefixFrom(p.Addr(), 24)}}}}
	if _, err := r.control.EditNetwork(r.t.Context(), opOf(caller), id, func(*link.Snapshot, *link.Network) (*link.Network, error) { return &n, nil }); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (d *dnsRig) putZone(name string) *armprivatedns.PrivateZone {
	d.t.Helper()
	p, err := d.zones.BeginCreateOrUpdate(d.t.Context(), "Rg", name, armprivatedns.PrivateZone{Location: to.Ptr("Global"), Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	z, err := p.PollUntilDone(d.t.Context(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return &z.PrivateZone
}

func networkARM(sub, group, name string) string {
	return groupPath(sub, group) + "/providers/Microsoft.Network/virtualNetworks/" + name
}

func (d *dnsRig) putLink(zone, name, network string, policy armprivatedns.ResolutionPolicy) (*armprivatedns.VirtualNetworkLink, error) {
	p, err := d.links.BeginCreateOrUpdate(d.t.Context(), "Rg", zone, name, armprivatedns.VirtualNetworkLink{Location: to.Ptr("global"),
		Properties: &armprivatedns.VirtualNetworkLinkProperties{RegistrationEnabled: to.Ptr(true), ResolutionPolicy: &policy, VirtualNetwork: &armprivatedns.SubResource{ID: &network}}}, nil)
	if err != nil {
		return nil, err
	}
	l, err := p.PollUntilDone(d.t.Context(), nil)
	return &l.VirtualNetworkLink, err
}

// failed fails the test unless an error of the SDK has the status and code.
func failed(t *testing.T, err error, status int, code string) {
	t.Helper()
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok || e.StatusCode != status || e.ErrorCode != code {
		t.Fatalf("error %v, want %d %s", err, status, code)
	}
}
