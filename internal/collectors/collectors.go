// Package collectors registers metrics that belong together.
package collectors

import "github.com/prometheus/client_golang/prometheus"

// Register registers all of them, or none where one can't be: the error is that one's.
func Register(r prometheus.Registerer, all ...prometheus.Collector) error {
	for i, c := range all {
		if err := r.Register(c); err != nil {
			Unregister(r, all[:i]...)
			return err
		}
	}
	return nil
}

// Unregister takes them away.
func Unregister(r prometheus.Registerer, all ...prometheus.Collector) {
	for _, c := range all {
		r.Unregister(c)
	}
}
