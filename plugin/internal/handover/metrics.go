package handover

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// reloads counts the reloads of the Corefile by what became of them: committed, refused (nothing has
// changed), failed (the new Corefile is in force for DNS only).
var reloads = promauto.NewCounterVec(prometheus.CounterOpts{
	Namespace: "postern",
	Name:      "reloads_total",
	Help:      "Reloads of the Corefile by result: committed, refused, failed.",
}, []string{"result"})
