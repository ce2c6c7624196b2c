package proxy

import (
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/targets"
)

// set returns the targets of a service, as flows choose among them. The caller has the service of the newest snapshot.
func (h *health) set(service *link.Service) *targets.Set {
	if s := h.of(service.ID); s != nil {
		return s.set
	}
	h.early.mu.Lock()
	defer h.early.mu.Unlock()
	if s := h.of(service.ID); s != nil { // come meanwhile
		return s.set
	}
	return h.early.setLocked(service)
}

// early are the targets of services that aren't in the view yet. A snapshot is in force before the probes have followed
// it, and what its first flows count mustn't get lost. The zero value is ready.
type early struct {
	mu   sync.Mutex
	sets map[link.ID]*targets.Set
}

func (e *early) set(service *link.Service) *targets.Set {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.setLocked(service)
}

func (e *early) setLocked(service *link.Service) *targets.Set {
	s := e.sets[service.ID]
	if s == nil {
		if e.sets == nil {
			e.sets = make(map[link.ID]*targets.Set)
		}
		s = targets.New(time.Now(), service)
		e.sets[service.ID] = s
	}
	return s
}

// forget drops those that are in the view now, and those of services that are gone. It comes after the view is stored.
func (e *early) forget(v *view) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.sets {
		if v.services.get(id) != nil || v.snapshot.Service(id) == nil {
			delete(e.sets, id)
		}
	}
}
