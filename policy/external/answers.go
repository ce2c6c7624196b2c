package external

import (
	"net/netip"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// maxAnswers is how many answers one generation holds; there are two.
const maxAnswers = 4096

// key is all that a question holds but for its flow and source port. Objects of a snapshot are immutable, so that
// one that has changed in any way is another.
type key struct {
	source   netip.Addr
	local    netip.AddrPort
	name     link.Name
	judged   bool
	endpoint *link.Endpoint
	service  *link.Service
}

func keyOf(q *policy.Question) key {
	r := &q.Request
	return key{r.Source.Addr(), r.Local, r.Name, r.Judged, q.Verdict.Endpoint, q.Verdict.Service}
}

// answers are those that a run of a program has said may be kept. Zero is empty. When one generation is full it
// becomes the old one, and what was old is forgotten: a bound that costs nothing to keep.
type answers struct {
	mu       sync.Mutex
	now, old map[key]kept
}

type kept struct {
	answer answer
	until  time.Time
}

// get returns an answer that still holds.
func (a *answers) get(k key, at time.Time) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one, ok := a.now[k]
	if !ok {
		one, ok = a.old[k]
	}
	if !ok || !at.Before(one.until) {
		return answer{}, false
	}
	return one.answer, true
}

// put keeps an answer for as long as it says: not at all, most often.
func (a *answers) put(k key, one answer, at time.Time) {
	if one.valid <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now == nil || len(a.now) >= maxAnswers {
		a.now, a.old = make(map[key]kept), a.now
	}
	a.now[k] = kept{one, at.Add(one.valid)}
}
