package collectors

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// All are registered, or none: what is there of another one stays, and nothing else is left.
func TestRegister(t *testing.T) {
	t.Parallel()
	of := func(name string) prometheus.Collector {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name})
	}
	there := func(r *prometheus.Registry, want int) {
		t.Helper()
		if all, err := r.Gather(); err != nil || len(all) != want {
			t.Errorf("%d metrics, %v; want %d", len(all), err, want)
		}
	}
	r, taken := prometheus.NewRegistry(), of("taken")
	if err := Register(r, taken); err != nil {
		t.Fatal(err)
	}
	if err := Register(r, of("first"), of("taken"), of("last")); err == nil {
		t.Error("a name was registered twice")
	}
	there(r, 1)
	first, last := of("first"), of("last")
	if err := Register(r, first, last); err != nil {
		t.Error(err)
	}
	there(r, 3)
	Unregister(r, first, last)
	there(r, 1)
}
