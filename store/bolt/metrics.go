package bolt

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/store/meter"
)

func newMeter(reg prometheus.Registerer, s *Store) (*meter.Meter, error) {
	return meter.New(reg,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(meter.Opts("revision", "Revision of the state.")),
			func() float64 { return float64(s.current.Load().Revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(meter.Opts("writable", "0 from a commit that could not be written, as on a full disk, until one is; else 1.")),
			func() float64 {
				if s.Err() != nil || s.failing.Load() {
					return 0
				}
				return 1
			}),
	)
}
