package armapi

import (
	"strconv"
	"testing"
	"time"

	"github.com/postern-link/postern/control"
)

// TestLookUpFlood (A10): who guesses aliases is told to wait, in the words that every client understands, whether the
// next guess is right or wrong, and by whichever operation; others aren't in its way.
func TestLookUpFlood(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newRig(t, func(_ *Config, c *control.Config) { c.Now = func() time.Time { return now } })
	r.putGroup("contoso", contosoSub, "rg")
	r.putGroup("fabrikam", fabrikamSub, "rg")
	var made privateLinkService
	r.do("contoso", "PUT", armPath(contosoSub, "privateLinkServices/db"), `{"location":"local","properties":{"destinationIPAddress":"10.20.0.5",
		"visibility":{"subscriptions":["*"]},"ipConfigurations":[{"name":"nat"}]}}`).want(201).into(&made)
	alias := made.Properties.Alias
	check := "/subscriptions/" + fabrikamSub + "/providers/Microsoft.Network/locations/local/checkPrivateLinkServiceVisibility"
	guess := func(who, alias string) answer {
		t.Helper()
		return r.do(who, "POST", check, map[string]string{"privateLinkServiceAlias": alias})
	}
	for i := range 60 {
		if a := guess("fabrikam", "db."+strconv.Itoa(i)+".postern.azure.privatelinkservice"); a.status >= 400 {
			t.Fatalf("guess %d: %d %s", i, a.status, a.body)
		}
	}
	for _, alias := range []string{"db.x.postern.azure.privatelinkservice", alias} {
		a := guess("fabrikam", alias).wantError(429, "TooManyRequests")
		if s, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || s < 1 || s > 60 {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
	}
	guess("fabrikam-network", alias).want(200)
	now = now.Add(time.Minute)
	guess("fabrikam", alias).want(200)
}
