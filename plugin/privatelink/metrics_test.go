package privatelink

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/link"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	srv := newServer(t, world(t))
	srv.stats = newCounters(registry)
	srv.missIn["privatelink.blob.core.windows.net"] = missRefuse
	srv.missIn["privatelink.vaultcore.azure.net"] = missNXDomain
	for _, ask := range []string{
		"contoso.database.windows.net A", "contoso.database.windows.net TXT", "nobody." + sqlZone + " A", "www.example.org A",
		"nobody.privatelink.blob.core.windows.net A", "nobody.privatelink.vaultcore.azure.net A",
	} {
		srv.ask(t, corp, question(ask))
	}
	srv.ask(t, stranger, question("www.example.org A"))
	srv.ask(t, lab, question("www.example.org A"))
	for i := range 50 { // one label, however many zones of a template are asked for
		srv.ask(t, corp, question(fmt.Sprintf("x.privatelink.r%d.kusto.windows.net A", i)))
	}
	want := `# HELP coredns_privatelink_misses_total Queries for names in a privatelink zone that have no endpoint, by zone and policy.
# TYPE coredns_privatelink_misses_total counter
coredns_privatelink_misses_total{policy="nxdomain",server="",zone="privatelink.vaultcore.azure.net"} 1
coredns_privatelink_misses_total{policy="pass",server="",zone="privatelink.*.kusto.windows.net"} 50
coredns_privatelink_misses_total{policy="pass",server="",zone="privatelink.database.windows.net"} 1
coredns_privatelink_misses_total{policy="refuse",server="",zone="privatelink.blob.core.windows.net"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "coredns_privatelink_misses_total"); err != nil {
		t.Error(err)
	}
	got := func(network, result string) float64 {
		return testutil.ToFloat64(srv.stats.answers.WithLabelValues("", network, result))
	}
	for _, c := range []struct {
		network, result string
		want            float64
	}{
		{"corp", "positive", 1}, {"corp", "nodata", 1}, {"corp", "nxdomain", 1}, {"corp", "refused", 1},
		{"corp", "passed", 52}, {"corp", "continued", 0}, {"", "passed", 1}, {"lab", "passed", 1},
	} {
		if n := got(c.network, c.result); n != c.want {
			t.Errorf("network %q, %s: %v, want %v", c.network, c.result, n, c.want)
		}
	}

	// The labels of a network go with it.
	srv.snapshot = apply(t, srv.snapshot, link.DeleteEndpoint{ID: "sql-10.201.0.5"}, link.DeleteNetwork{ID: "lab"})
	srv.ask(t, corp, question("www.example.org A"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if text := f.String(); strings.Contains(text, `"lab"`) {
			t.Errorf("the network is gone, its labels are there: %s", text)
		}
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// Counters of many networks are found without a lock soon after they were met, are the same ones all the time, and go with the networks, those that
// were met lately too.
func TestCountersOfMany(t *testing.T) {
	const n = 500
	c := newCounters(prometheus.NewRegistry())
	id := func(i int) link.ID { return link.ID(fmt.Sprintf("n%d", i)) }
	for i := range n {
		c.answer("server", id(i), positive)
		c.answer("server", id(i/2), positive)
	}
	for i := 0; c.met != nil; i++ {
		if i == 2*n {
			t.Fatalf("%d networks are known, %d were met lately, after %d queries", len(*c.known.Load()), len(c.met), 2*n+i)
		}
		c.answer("server", id(i%n), positive)
	}
	before := testutil.ToFloat64(c.answers.WithLabelValues("server", "n0", "positive"))
	c.answer("server", "n0", positive)
	if after := testutil.ToFloat64(c.answers.WithLabelValues("server", "n0", "positive")); after != before+1 || len(*c.known.Load()) != n {
		t.Errorf("%v queries after %v; %d networks are known", after, before, len(*c.known.Load()))
	}
	c.answer("server", "late", positive)
	if c.met == nil {
		t.Error("nothing was met lately")
	}
	c.forget(link.Empty())
	if left := testutil.CollectAndCount(c.answers); left != 0 || len(*c.known.Load()) != 0 || c.met != nil {
		t.Errorf("of networks that are gone %d counters are left, %d known, %d met lately", left, len(*c.known.Load()), len(c.met))
	}
}
