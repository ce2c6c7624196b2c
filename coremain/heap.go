package coremain

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// smallHeap is how much garbage there may be, in bytes, before it is collected. By default the runtime lets a heap double,
// which on one of a few MiB, such as that of a node with few endpoints, means tens of collections a second under load.
const smallHeap = 32 << 20

// mostPercent is the highest GOGC that is set.
const mostPercent = 1000

// tuneHeap has a small heap collected less often; one that is larger than smallHeap is left to double as ever. It does
// nothing where the operator has set GOGC.
func tuneHeap() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := 100
	var tune func()
	tune = func() {
		metrics.Read(live)
		if live[0].Value.Kind() != metrics.KindUint64 {
			return
		}
		if p := heapPercent(live[0].Value.Uint64()); p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
		afterCollection(tune)
	}
	tune()
}

// heapPercent returns the GOGC of a heap with so many live bytes.
func heapPercent(live uint64) int {
	return int(min(max(smallHeap*100/max(live, 1), 100), mostPercent))
}

// afterCollection calls f after the next garbage collection.
func afterCollection(f func()) {
	runtime.SetFinalizer(&[1]*byte{new(byte)}, func(*[1]*byte) { f() })
}
