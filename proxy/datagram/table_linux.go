package datagram

import "sync"

// shards of the table: listeners of several ports shouldn't wait for each other.
const shards = 32

// table finds flows by who sends to where. The zero table is ready.
type table [shards]struct {
	sync.RWMutex
	flows map[key]*Flow
}

func (t *table) find(k *key) *Flow {
	s := &t[k.hash()%shards]
	s.RLock()
	defer s.RUnlock()
	return s.flows[*k]
}

// add adds a flow, unless there is one already, which is returned.
func (t *table) add(f *Flow) (there *Flow) {
	s := &t[f.key.hash()%shards]
	s.Lock()
	defer s.Unlock()
	if there = s.flows[f.key]; there != nil {
		return there
	}
	if s.flows == nil {
		s.flows = make(map[key]*Flow)
	}
	s.flows[f.key] = f
	return nil
}

// remove removes a flow; another one that has its place stays.
func (t *table) remove(f *Flow) {
	s := &t[f.key.hash()%shards]
	s.Lock()
	defer s.Unlock()
	if s.flows[f.key] == f {
		delete(s.flows, f.key)
	}
}
