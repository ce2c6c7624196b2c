package armapi

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// azure runs the command line of Azure, as a user of the rig, with a configuration of its own.
type azure struct {
	*testing.T
	env []string
}

// modelFix is the one thing that az of Debian 12 (2.45.0) needs to work with any cloud: it asks for models of
// the network API of 2022-01-01, which Debian's package of the SDK lacks, and fails before it sends a
// request. Python loads this by itself; where the models are there it changes nothing.
const modelFix = `
try:
    import importlib.util
    from azure.cli.core.profiles import _shared as p
    latest, network = p.AZURE_API_PROFILES["latest"], p.ResourceType.MGMT_NETWORK
    if latest[network] == "2022-01-01" and importlib.util.find_spec("azure.mgmt.network.v2022_01_01") is None:
        latest[network] = "2022-07-01"
except ImportError:
    pass
`

// az runs one command and decodes what it prints. It has nowhere to call home to.
func (a *azure) az(v any, args ...string) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "az", append(args, "--output", "json")...)
	c.Env = a.env
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		a.Fatalf("az %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(out, v); err != nil {
		a.Fatalf("az %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// TestAz signs the command line of Azure in as it is told to for a cloud of one's own, and makes what
// a consumer needs, asks for an endpoint, and approves it as the provider.
func TestAz(t *testing.T) {
	if testing.Short() {
		t.Skip("az takes seconds for each command")
	}
	if _, err := exec.LookPath("az"); err != nil && os.Getenv("CI") != "" {
		t.Fatal(err) // there it is installed
	} else if err != nil {
		t.Skip("there is no az; on Debian \"apt-get install azure-cli\" takes about two minutes")
	}
	r := newRig(t)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sitecustomize.py"), []byte(modelFix), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &azure{t, []string{"PYTHONPATH=" + dir, "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AZURE_CONFIG_DIR=" + filepath.Join(dir, "azure"), "REQUESTS_CA_BUNDLE=" + ca,
		"AZURE_CORE_COLLECT_TELEMETRY=no", "AZURE_CORE_NO_COLOR=yes", "PYTHONWARNINGS=ignore"}}
	a.az(nil, "cloud", "register", "-n", "postern", "--endpoint-resource-manager", r.url)
	a.az(nil, "cloud", "set", "-n", "postern")
	var accounts []struct{ ID, State, TenantID string }
	a.az(&accounts, "login", "--service-principal", "-u", clientOf("fabrikam"), "-p", secretOf("fabrikam"), "--tenant", "adfs")
	if len(accounts) != 1 || accounts[0].ID != fabrikamSub || accounts[0].State != "Enabled" {
		t.Fatalf("az login: %+v", accounts)
	}
	var group groupBody
	a.az(&group, "group", "create", "-n", "Rg", "-l", "local")
	if group.Name != "Rg" {
		t.Errorf("az group create: %+v", group)
	}
	var network struct {
		NewVNet struct{ ID, ProvisioningState string }
	}
	a.az(&network, "network", "vnet", "create", "-g", "rg", "-n", "hub", "--address-prefixes", "10.1.0.0/16", "--subnet-name", "pe", "--subnet-prefixes", "10.1.1.0/24",
		"--tags", "postern-egress=*")
	if network.NewVNet.ProvisioningState != "Succeeded" {
		t.Errorf("az network vnet create: %+v", network)
	}
	a.az(nil, "network", "vnet", "subnet", "update", "-g", "rg", "--vnet-name", "hub", "-n", "pe", "--disable-private-endpoint-network-policies", "true")
	service := r.azService()
	var endpoint struct {
		ID                                  string
		ManualPrivateLinkServiceConnections []struct {
			PrivateLinkServiceConnectionState struct{ Status string }
		}
	}
	a.az(&endpoint, "network", "private-endpoint", "create", "-g", "rg", "-n", "db", "-l", "local", "--vnet-name", "hub", "--subnet", "pe",
		"--private-connection-resource-id", service, "--connection-name", "db", "--manual-request", "true", "--request-message", "please")
	if len(endpoint.ManualPrivateLinkServiceConnections) != 1 || endpoint.ManualPrivateLinkServiceConnections[0].PrivateLinkServiceConnectionState.Status != "Pending" {
		t.Errorf("az network private-endpoint create: %+v", endpoint)
	}
	var zone struct{ Name string }
	a.az(&zone, "network", "private-dns", "zone", "create", "-g", "rg", "-n", "corp.internal")
	if zone.Name != "corp.internal" {
		t.Errorf("az network private-dns zone create: %+v", zone)
	}

	// The provider signs in beside, and decides on a request.
	a.az(nil, "login", "--service-principal", "-u", clientOf("contoso"), "-p", secretOf("contoso"), "--tenant", "adfs")
	var rested struct {
		Properties struct{ ProvisioningState string }
	}
	a.az(&rested, "rest", "--method", "put", "--resource", r.url+"/", "--url", r.url+groupPath(contosoSub, "rg")+"/providers/Microsoft.Network/privateLinkServices/rested?api-version=2025-05-01",
		"--body", `{"location": "local", "tags": {"postern-port": "1433"}, "properties": {"fqdns": ["rested.contoso.example"],
			"destinationIPAddress": "10.20.0.67", "visibility": {"subscriptions": ["*"]}, "ipConfigurations": [{"name": "nat"}]}}`)
	if rested.Properties.ProvisioningState != "Succeeded" {
		t.Errorf("az rest: %+v", rested)
	}
	var published struct {
		PrivateEndpointConnections []struct{ Name string }
	}
	a.az(&published, "network", "private-link-service", "show", "-g", "rg", "-n", "pls")
	if len(published.PrivateEndpointConnections) != 1 {
		t.Fatalf("az network private-link-service show: %+v", published)
	}
	var connection struct {
		PrivateLinkServiceConnectionState struct{ Status, Description string }
	}
	a.az(&connection, "network", "private-link-service", "connection", "update", "-g", "rg", "--service-name", "pls", "-n", published.PrivateEndpointConnections[0].Name,
		"--connection-status", "Approved", "--description", "welcome")
	if connection.PrivateLinkServiceConnectionState.Status != "Approved" {
		t.Errorf("az network private-link-service connection update: %+v", connection)
	}
	a.az(nil, "account", "set", "-s", fabrikamSub)
	var shown struct {
		ManualPrivateLinkServiceConnections []struct {
			PrivateLinkServiceConnectionState struct{ Status string }
		}
	}
	a.az(&shown, "network", "private-endpoint", "show", "-g", "rg", "-n", "db")
	if len(shown.ManualPrivateLinkServiceConnections) != 1 || shown.ManualPrivateLinkServiceConnections[0].PrivateLinkServiceConnectionState.Status != "Approved" {
		t.Errorf("az network private-endpoint show: %+v", shown)
	}
	a.az(nil, "network", "private-endpoint", "delete", "-g", "rg", "-n", "db")
}

// azService publishes a service as contoso: az 2.45 can't make one without a load balancer. It returns its ID.
func (r *rig) azService() string {
	r.t.Helper()
	r.putGroup("contoso", contosoSub, "rg")
	path := groupPath(contosoSub, "rg") + "/providers/Microsoft.Network/privateLinkServices/pls"
	r.do("contoso", "PUT", path, `{"location":"local","properties":{"destinationIPAddress":"10.20.0.66","visibility":{"subscriptions":["*"]},"ipConfigurations":[{"name":"nat"}]}}`).want(201)
	return path
}
