package coremain

import (
	"runtime"
	"testing"
	"time"
)

func TestHeapPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 1000, 1 << 20: 1000, 8 << 20: 400, 16 << 20: 200, 32 << 20: 100, 1 << 30: 100} {
		if got := heapPercent(live); got != want {
			t.Errorf("%d MiB: %d, want %d", live>>20, got, want)
		}
	}
}

func TestAfterCollection(t *testing.T) {
	called := make(chan struct{}, 1)
	afterCollection(func() { called <- struct{}{} })
	for range 100 {
		runtime.GC()
		select {
		case <-called:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Error("never called")
}
