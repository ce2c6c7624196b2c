package etcd

import (
	"sync"
	"testing"
	"time"

	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// A07 on three nodes and three members, of which one after the other is killed or cut off.
func TestLinearizable(t *testing.T) {
	heavy(t)
	c := newCluster(t, 3)
	var stores []store.Store
	for range 3 {
		stores = append(stores, mustOpen(t, Options{Endpoints: c.endpoints()}))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond): // how long it is well between two faults, and longer
			}
			// on a busy machine: faults by the clock alone would leave no time for a change.
			for from := newest(stores); newest(stores) < from+3; {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
			switch m := c.members[i%3]; i % 4 {
			case 0: // answers are lost, then the connections
				m.forward.set(false, true)
				time.Sleep(100 * time.Millisecond)
				m.forward.cut()
				m.forward.set(false, false)
			case 1:
				m.isolate(true)
				time.Sleep(700 * time.Millisecond)
				m.isolate(false)
			case 2:
				m.stop()
				m.start(t)
			case 3:
				for _, m := range c.members {
					m.forward.cut()
				}
			}
		}
	})
	storetest.Linearizable(t, stores, 9, 60/effort+15)
	close(stop)
	wg.Wait()
}

// newest returns the newest revision that one of the stores has.
func newest(stores []store.Store) (revision uint64) {
	for _, s := range stores {
		revision = max(revision, s.(*Store).current.Load().meta.Revision)
	}
	return revision
}
