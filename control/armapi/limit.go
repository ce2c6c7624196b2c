package armapi

import (
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Failed sign-ins of one source, after which it is told to wait. Who has a good credential isn't kept
// from using it by others behind the same address: secrets have 256 random bits, and what the limit saves
// is work and log lines.
const (
	failuresPerSecond = 1
	failureBurst      = 30
)

// maxBuckets bounds what a limiter remembers; beyond, all that are new share one bucket.
const maxBuckets = 16384

// limiter is a token bucket for each key.
type limiter struct {
	rate, burst float64 // rate below 0: no bound

	mu      sync.Mutex
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: math.Max(1, burst), buckets: map[string]*bucket{}}
}

// take takes one token, or says how long it is until there is one.
func (l *limiter) take(key string, now time.Time) (wait time.Duration, ok bool) {
	if l.rate < 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	b := l.buckets[key]
	if b == nil && len(l.buckets) >= maxBuckets {
		key = ""
		b = l.buckets[key]
	}
	if b == nil {
		b = &bucket{l.burst, now}
		l.buckets[key] = b
	}
	b.tokens = math.Min(l.burst, b.tokens+l.rate*math.Max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) / l.rate * float64(time.Second)), false
	}
	b.tokens--
	return 0, true
}

// sweep forgets the buckets that are full again, at most once in ten seconds.
func (l *limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < 10*time.Second {
		return
	}
	l.swept = now
	for key, b := range l.buckets {
		if b.tokens+l.rate*now.Sub(b.at).Seconds() >= l.burst {
			delete(l.buckets, key)
		}
	}
}

// refuseSignIn is the answer to a caller without a good credential: the same for each way to have none.
func (a *API) refuseSignIn(r *request, source string) error {
	if wait, ok := a.sources.take(neighbourhood(source), a.Clock()); !ok {
		return tooMany(wait)
	}
	e := &apiError{status: http.StatusUnauthorized, code: "AuthenticationFailed", message: "Authentication failed. The 'Authorization' header is missing or its token is not valid."}
	return e.with("WWW-Authenticate", `Bearer authorization_uri="`+r.base()+`/common", error="invalid_token", error_description="The token is missing or not valid."`)
}

// neighbourhood is what one client can have many addresses of: the /64 of an IPv6 address.
func neighbourhood(source string) string {
	if a, err := netip.ParseAddr(source); err == nil && a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return source
}
